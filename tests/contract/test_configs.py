"""Every config refuses numbers that are not finite, and sizes that no machine has room for."""

import importlib
import math
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

import components
from components.config import Config

_HOLDERS = ("config", "sampling", "schedule", "dit", "hybrid", "mage", "unet", "adm", "ldm", "target")
for _module in pkgutil.walk_packages(components.__path__, "components."):
    if _module.name.rpartition(".")[2] in _HOLDERS:
        importlib.import_module(_module.name)


def _below(kind: type[Config]) -> Iterator[type[Config]]:
    for below in kind.__subclasses__():
        if hasattr(below, "tiny") and below.__module__.startswith("components.") and not below.__abstractmethods__:
            yield below
        yield from _below(below)


CONFIGS = {kind.__name__: kind for kind in _below(Config)}


def test_all_are_found() -> None:
    assert {"DitConfig", "HybridConfig", "MageConfig", "AdmConfig", "LdmConfig", "RdmConfig", "MoCoV3Config"} <= set(
        CONFIGS
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_are_finite_and_bounded(name: str) -> None:
    values: dict[str, Any] = CONFIGS[name].tiny().model_dump()  # type: ignore[attr-defined]
    CONFIGS[name].model_validate(values)
    for key, value in values.items():
        bad: list[Any] = []
        if isinstance(value, int) and not isinstance(value, bool):
            bad = [10**12 if key != "seed" else 2**63, math.inf, math.nan]
        elif isinstance(value, float):
            bad = [math.nan, math.inf, -math.inf]
        elif isinstance(value, tuple) and value and isinstance(value[0], int):
            bad = [(10**12, *value[1:]), value * 1000]
        for other in bad:
            with pytest.raises(ValidationError):
                CONFIGS[name].model_validate(values | {key: other})
