"""What a layout is: a reference file's names and ours, both ways; and how a stage adopts a file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from components.base import Writer
from components.errors import RcgError, WeightsError
from components.interop.signatures import STAGE_OF, recognize, split
from components.weights import Tables, assign, check_tensors, fetch_tables, likeliest, save_weights
from components.weights_file import WeightsFile

Tensors = Mapping[str, Tensor]

KEPT = "reference.safetensors"
"""File of an artifact with the tensors that were kept for exporting."""
LIVE = "live/"
"""Prefix of kept tensors that are the trained weights beside the averaged ones."""


@dataclass(frozen=True)
class Imported:
    """A reference file's tensors, sorted."""

    weights: dict[str, Tensor]
    """All that our module has, under its names."""
    kept: dict[str, Tensor]
    """All that it has no place for, under the file's names: no forward pass reads them, exporting puts them back."""


class Layout(ABC):
    """One kind of file. Both directions are plain functions of tensors."""

    kind: ClassVar[str]
    others: ClassVar[tuple[str, ...]] = ()
    """Further kinds whose files fit."""
    tables: ClassVar[tuple[str, ...]] = ("", "state_dict", "model", "teacher")
    """Entries of a file that may hold it, the likeliest first."""

    def find(self, tables: Tables) -> dict[str, Tensor] | None:
        """This kind's tensors in a file, under the names of a stand-alone file; None when it has none."""
        for table in (tables[name] for name in self.tables if name in tables):
            parts = split(table)
            for kind in (self.kind, *self.others):
                if kind in parts:
                    return self.plain(parts[kind])
        return None

    def live(self, tables: Tables) -> dict[str, Tensor]:  # noqa: ARG002
        """The trained weights beside averaged ones, where a file has both under equal names."""
        return {}

    def plain(self, tensors: Tensors) -> dict[str, Tensor]:
        """Without what training frameworks put around the model."""
        return dict(tensors)

    @abstractmethod
    def imported(self, tensors: Tensors) -> Imported:
        """The file's names to ours."""

    @abstractmethod
    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        """Our names to the file's. What was not kept is filled in as the reference initializes it."""

    @abstractmethod
    def facts(self, tensors: Tensors) -> dict[str, Any]:
        """What shapes tell of the config, by the keys of the stage's `model` section. Raises: WeightsError."""

    def sampling(self, tensors: Tensors) -> dict[str, Any] | None:  # noqa: ARG002
        """How the reference draws from a pixel generator, as a `sampling` section; None for other kinds."""
        return None

    def section(self, tensors: Tensors) -> dict[str, Any]:  # noqa: ARG002
        """What the file says of further keys of the stage's section."""
        return {}

    def note(self, tensors: Tensors) -> str | None:  # noqa: ARG002
        """What a person has to do besides importing it."""
        return None

    def data(self, tensors: Tensors) -> Any:  # noqa: ARG002
        """GeneratorData: what shapes tell of the cache that a generator was trained on; None for other kinds."""
        return None

    def beside(self, tensors: Tensors) -> dict[str, Tensor]:  # noqa: ARG002
        """What this file has that a module of its kind has no place for, whatever its shape."""
        return {}

    def may_lack(self, name: str) -> bool:  # noqa: ARG002
        """Whether files exist without this tensor."""
        return False

    def tolerates(self, name: str) -> bool:  # noqa: ARG002
        """Whether files exist with this tensor that no forward pass reads."""
        return False

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        """The file has exactly the tensors that a module with these weights has. Raises: WeightsError."""
        wanted = self.exported(weights, self.beside(tensors))
        wanted = {name: t for name, t in wanted.items() if name in tensors or not self.may_lack(name)}
        found = {name: t for name, t in tensors.items() if name in wanted or not self.tolerates(name)}
        check_tensors(found, wanted, source=source, model=f"this {self.kind}, in the reference's layout")


class SameNames(Layout):
    """A module whose names are the file's own; what the file has besides is kept."""

    unread: ClassVar[tuple[str, ...]] = ()
    """Prefixes of names that no forward pass reads."""

    def imported(self, tensors: Tensors) -> Imported:
        weights = {name: t for name, t in tensors.items() if not self.tolerates(name)}
        return Imported(weights, {name: t for name, t in tensors.items() if name not in weights})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        return dict(kept) | dict(weights)

    def tolerates(self, name: str) -> bool:
        return name.startswith(self.unread)


def find_in(layout: Layout, tables: Tables, source: str) -> dict[str, Tensor] | None:
    """layout.find(). Raises: WeightsError for names of its kind with tensors that no such file has."""
    try:
        return layout.find(tables)
    except RcgError:
        raise
    except Exception as error:  # a stranger's file may lack anything, in any shape
        raise not_whole(source, layout.kind, error) from error


def not_whole(source: str, kind: str, error: Exception) -> WeightsError:
    """What to raise of a file whose names are those of a kind, and whose tensors are not."""
    return WeightsError(f"{source} is no whole {kind} file", got=repr(error), fix="copy or download it again")


def adopt(module: nn.Module, file: WeightsFile, layouts: Sequence[Layout], *, where: str) -> dict[str, Tensor]:
    """Load a reference file, or one of our own, into module; returns what is kept for exporting.

    `where`: the params key of the file. Raises: WeightsError, ConfigError.
    """
    kinds = " or ".join(layout.kind for layout in layouts)
    tables, source = fetch_tables(file, kinds, where), file.uri
    for layout in layouts:
        tensors = find_in(layout, tables, source)
        if tensors is not None:
            layout.check(tensors, module.state_dict(), source=source)
            imported = layout.imported(tensors)
            module.load_state_dict(imported.weights, strict=True)
            return imported.kept | {f"{LIVE}{name}": t for name, t in layout.live(tables).items()}
    tensors = likeliest(tables, source)
    if (kind := recognize(tensors)) is not None:
        fix = f"name it in the params of `{STAGE_OF[kind]}`"
        got, expected = f"{where} for {kinds}", f"a file of {kinds}"
        raise WeightsError(f"{source} is a {kind} file", got=got, expected=expected, fix=fix)
    assign(module, tensors, source=source)
    return {}


def side_of(tensors: Tensors, name: str, axis: int) -> int:
    """Size of a tensor along an axis. Raises: WeightsError when it is not there."""
    if name not in tensors or tensors[name].ndim <= axis:
        raise WeightsError("the file lacks a tensor that tells its size", expected=name, fix="is it the right kind?")
    return tensors[name].shape[axis]


def depth_of(tensors: Tensors, prefix: str) -> int:
    """How many numbered blocks there are, whose names are `prefix`, a number, a dot and more."""
    heads = [name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)]
    return max((int(head) for head in heads if head.isdecimal()), default=-1) + 1


def heads_of(width: int, published: Mapping[int, int]) -> int:
    """Attention heads, which no shape tells: as published for the width, else 64 channels each."""
    return published.get(width, max(1, width // 64))


def keep(kept: Tensors, out: Writer) -> None:
    """Write what was kept beside the weights, for `rcg export-checkpoint`; nothing when there is nothing."""
    if kept:
        with out.file(KEPT) as path:
            save_weights(path, kept)
