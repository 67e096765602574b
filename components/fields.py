"""Fields: the named and typed columns of the cache and of batches. Imports without torch."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from components.config import Config
from components.errors import ConfigError

_MASK = ".mask"
TEXT_FIELDS = ("text", "tokens", "ids")
"""Fields that a text model makes, of captions and of requests: one vector, the states of tokens, their ids."""


class FieldSpec(Config):
    """What a column holds.

    In a batch a ragged field is padded with zeros to the longest row of the cache, and a mask stands beside it. So does
    one beside a nullable field; but what is missing of a class is -1. See mask_name(). Of `choices` a batch holds one.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    dtype: Literal["uint8", "int32", "int64", "float16", "float32", "string"]
    """Of the numbers, as they are stored; string: text, which stands in no batch."""
    shape: tuple[int, ...]
    """Of a value, or of each element of a ragged one; () is a number or a text."""
    ragged: bool = False
    """Whether a row holds any number of elements, as captions or the states of tokens; none counts as missing."""
    nullable: bool = False
    """Whether it may be missing of a row."""
    choices: bool = False
    """Whether the elements of a ragged field are alternatives, as the captions of a picture: a batch holds one of them,
    in training another one each time. They belong to the picture and are stored with its first view alone."""
    names: tuple[str, ...] | None = None
    """Of a class: the names of the ids 0, 1, … The cache stores names, so that ids may change when classes come."""
    n_ids: int | None = None
    """Of the ids of tokens: how many there are; -1 stands behind the last token of a text."""

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `choices` and `n_ids` where there are none: caches without captions keep their bytes."""
        values: dict[str, Any] = dump(self)
        unsaid = {name for name in ("choices", "n_ids") if not values.get(name)}
        return {name: value for name, value in values.items() if name not in unsaid}

    @property
    def is_sequence(self) -> bool:
        """Whether a batch holds a sequence for each row; of choices, whose elements are padded to one length."""
        return len(self.shape) == 2 if self.choices else self.ragged

    @property
    def is_text(self) -> bool:
        """Whether it is stored as text, a class among them."""
        return self.dtype == "string" or self.names is not None

    @property
    def in_batches(self) -> bool:
        """Whether it has numbers; a class without names has none."""
        return self.dtype != "string" and self.names != ()

    @property
    def size(self) -> int:
        """Numbers of a value, or of each element."""
        return prod(self.shape)


def mask_name(field: str) -> str:
    """Entry of a batch that says where a field has something.

    Shapes: (b,) bool beside a nullable field, (b, m) bool beside a sequence.
    """
    return field + _MASK


def of_fields(batch: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The entries of a batch that belong to these fields, their masks among them."""
    wanted = set(fields)
    return {name: rows for name, rows in batch.items() if name.removesuffix(_MASK) in wanted}


def find_field(fields: Iterable[FieldSpec], name: str) -> FieldSpec:
    """The field of this name, which batches hold. Raises: ConfigError naming those that there are."""
    known = {field.name: field for field in fields if field.in_batches}
    if name not in known:
        raise ConfigError(f"the cache has no field {name}", got=name, expected=f"one of {', '.join(known)}")
    return known[name]
