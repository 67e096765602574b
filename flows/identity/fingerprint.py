"""Identity of a stage run: what goes in decides its name, so equal work is found instead of done again."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flows.identity.artifact import SCHEMA, Record, canonical_json, digest_of
from flows.identity.closure import module_digests

LOCK = "collection.lock"
"""Name of collect's only input, which is a file in git and no artifact."""


class Identity(Record):
    """All that may change a stage's bytes. Workers, devices, the store and the source's place are not here."""

    schema_version: int
    stage: str
    params: dict[str, Any]
    """The stage's own section of params.yaml."""
    inputs: dict[str, str]
    """Parent -> content digest; `parent/file` -> sha256 where one file of it counts; collection.lock -> sha256."""
    modules: dict[str, str]
    """Module -> digest of its code."""

    @property
    def code(self) -> str:
        """One digest for all modules."""
        return digest_of(canonical_json(self.modules))

    @property
    def fingerprint(self) -> str:
        """sha256, hex."""
        return digest_of(canonical_json(self.model_dump(mode="json", exclude={"modules"}) | {"code": self.code}))


class Difference(NamedTuple):
    """One reason why two fingerprints of a stage differ; None stands for absent."""

    kind: str
    """params, inputs, modules or schema."""
    name: str
    old: object
    new: object


def identify(stage: str, module: str, params: Mapping[str, Any], inputs: Mapping[str, str]) -> Identity:
    """The identity of a stage as its sources are now. The stage is read, not imported."""
    return Identity(
        schema_version=SCHEMA, stage=stage, params=dict(params), inputs=dict(inputs), modules=module_digests(module)
    )


def differences(old: Identity, new: Identity) -> list[Difference]:
    """What changed from old to new; empty exactly when the fingerprints are equal."""
    found = []
    if old.schema_version != new.schema_version:
        found.append(Difference("schema", "schema_version", old.schema_version, new.schema_version))
    pairs = (
        ("params", old.params, new.params),
        ("inputs", old.inputs, new.inputs),
        ("modules", old.modules, new.modules),
    )
    for kind, before, after in pairs:
        left, right = dict(_leaves(before)), dict(_leaves(after))
        for name in sorted(left.keys() | right.keys()):
            if name not in left or name not in right or canonical_json(left[name]) != canonical_json(right[name]):
                found.append(Difference(kind, name, left.get(name), right.get(name)))
    return found


def _leaves(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{above}{key}"
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, f"{name}.")
        else:
            yield name, item
