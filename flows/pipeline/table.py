"""Which stages a pipeline has: one table of the kinds of stages, and the ones that follow from params."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from components.errors import ConfigError

Sections = Mapping[str, Any]
"""The checked sections of params.yaml as plain data."""


class Need(NamedTuple):
    """A parent of a stage."""

    stage: str
    file: str | None = None
    """The one file of the parent that counts; None: the whole artifact."""
    when: Callable[[Sections], bool] | None = None
    """Whether these params need it; None: always, where the parent is a stage at all. Only in KINDS."""


@dataclass(frozen=True)
class Stage:
    """One DVC stage: it runs `module`, reads the section of params.yaml that has its name, and makes artifacts/<name>/.

    `module` is imported only when the stage runs: it pulls in torch.
    """

    name: str
    needs: tuple[Need, ...]
    shows: tuple[str, ...]
    """Globs of the small files that are copied to artifacts/<name>/ beside the manifest."""

    @property
    def module(self) -> str:
        return f"flows.stages.{self.name}.run"


def _represented_by(source: str) -> Callable[[Sections], bool]:
    """Whether images are sampled from representations of this source."""
    return lambda sections: sections["sample"]["representations"] == source


def _guided(sections: Sections) -> bool:
    """Whether a generator that samples follows the guide."""
    sample = sections["sample"]
    rdm = sample["rdm"] if sample["representations"] == "rdm" else None
    return any(options is not None and options.get("guide") for options in (rdm, sample["pixels"]))


def _reads_representations(sections: Sections) -> bool:
    """Whether the pixel generator is conditioned on representations."""
    return any(condition["kind"] == "representation" for condition in sections["pixels"]["model"]["conditions"])


def _joint(sections: Sections) -> bool:
    """Whether texts and representations get a space."""
    return sections["text"]["joint"] is not None


def _samples_of_real_pictures(sections: Sections) -> bool:
    """Whether images are sampled from what is known of held-out pictures: their representations, or their captions."""
    generators = [sections[name]["model"] for name in ("rdm", "pixels") if sections.get(name) is not None]
    kinds = {condition["kind"] for model in generators for condition in model["conditions"]}
    return bool(kinds & {"text", "text_transformer"}) or _represented_by("oracle")(sections)


def _enlarges_by_text(sections: Sections) -> bool:
    """Whether the upsampler reads captions."""
    conditions = sections["upsampler"]["model"]["conditions"]
    return any(condition["kind"] == "text_transformer" for condition in conditions)


_ALL_BUT_BUNDLE = [
    "collect",
    "encoder",
    "codec",
    "text",
    "encode",
    "rdm",
    "pixels",
    "guide",
    "upsampler",
    "sample",
    "evaluate",
]
_PICTURES = ("metrics.json", "plots/*", "pictures/*")

KINDS: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("collect", (), ("base.json", "rejects.json", *_PICTURES)),
        Stage("encoder", (Need("collect", "base.json"),), _PICTURES),
        Stage("codec", (Need("collect", "base.json"),), _PICTURES),
        Stage("text", (Need("collect", "base.json"), Need("encoder", when=_joint)), _PICTURES),
        Stage("encode", (Need("collect"), Need("encoder"), Need("codec"), Need("text")), ("rejects.json", *_PICTURES)),
        Stage("rdm", (Need("encode"),), _PICTURES),
        Stage("pixels", (Need("encode"), Need("codec")), _PICTURES),
        Stage("guide", (Need("encode"),), _PICTURES),
        Stage("upsampler", (Need("collect"), Need("codec"), Need("text", when=_enlarges_by_text)), _PICTURES),
        Stage(
            "sample",
            (
                Need("rdm", when=_represented_by("rdm")),
                Need("pixels"),
                Need("codec"),
                Need("guide", when=_guided),
                Need("encode", when=_samples_of_real_pictures),
            ),
            _PICTURES,
        ),
        Stage(
            "evaluate",
            (
                Need("sample"),
                Need("encode"),
                Need("encoder"),
                Need("collect"),
                Need("pixels", when=_reads_representations),
                Need("codec", when=_reads_representations),
            ),
            ("report.html", *_PICTURES),
        ),
        Stage(
            "bundle",
            tuple(map(Need, _ALL_BUT_BUNDLE)),
            ("*",),
        ),
    )
}
"""Every stage that a pipeline can have, in an order that puts parents first, with all that it may need.

A new stage is an entry here, a section of Params of the same name, and flows/stages/<name>.py.
"""


def pipeline(sections: Sections) -> dict[str, Stage]:
    """The stages that params ask for, parents first: one for each section of a kind of stage that is not null."""
    present = [stage for stage in KINDS.values() if sections.get(stage.name) is not None]
    names = {stage.name for stage in present}

    def needs(stage: Stage) -> Iterator[Need]:
        for need in stage.needs:
            if need.stage in names and (need.when is None or need.when(sections)):
                yield need._replace(when=None)

    return {stage.name: replace(stage, needs=tuple(needs(stage))) for stage in present}


def check_name(name: str, known: Mapping[str, Stage] = KINDS) -> str:
    """The name. Raises: ConfigError naming the nearest stage, or saying that params have no such stage."""
    if name in known:
        return name
    if name in KINDS:
        raise ConfigError(
            f"this pipeline has no stage {name}",
            got=f"{name}: null in params.yaml",
            expected=" | ".join(known),
            fix="if dvc.yaml still has it, write dvc.yaml anew: rcg plan",
        )
    near = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        "no such stage", got=name, expected=" | ".join(known), fix=f"did you mean {near[0]}?" if near else None
    )
