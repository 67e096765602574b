"""The nine stages: the one table that dvc.yaml, the CLI and the executors agree on."""

from dataclasses import dataclass
from typing import NamedTuple


class Need(NamedTuple):
    """A parent, and the one file of it that counts (None: the whole artifact)."""

    stage: str
    file: str | None = None


@dataclass(frozen=True)
class Stage:
    """One DVC stage. `module` is imported only when the stage runs: it pulls in torch."""

    name: str
    needs: tuple[Need, ...]
    shows: tuple[str, ...]
    """Globs of the small files that are copied to artifacts/<name>/ beside the manifest."""

    @property
    def module(self) -> str:
        return f"flows.stages.{self.name}.run"


_PICTURES = ("metrics.json", "plots/*", "pictures/*")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("collect", (), ("base.json", "rejects.json", *_PICTURES)),
        Stage("encoder", (Need("collect", "base.json"),), _PICTURES),
        Stage("codec", (Need("collect", "base.json"),), _PICTURES),
        Stage("encode", (Need("collect"), Need("encoder"), Need("codec")), ("rejects.json", *_PICTURES)),
        Stage("rdm", (Need("encode"),), _PICTURES),
        Stage("pixels", (Need("encode"), Need("codec")), _PICTURES),
        Stage("sample", (Need("rdm"), Need("pixels"), Need("codec"), Need("encode")), _PICTURES),
        Stage(
            "evaluate", (Need("sample"), Need("encode"), Need("encoder"), Need("collect")), ("report.html", *_PICTURES)
        ),
        Stage(
            "bundle",
            tuple(Need(s) for s in ("collect", "encoder", "codec", "encode", "rdm", "pixels", "evaluate")),
            ("*",),
        ),
    )
}
