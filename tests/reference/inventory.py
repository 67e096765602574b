"""Reading the tensor inventories in this folder."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def expected_tensors(name: str) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of an inventory file."""
    tensors: dict[str, tuple[int, ...]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if not line.startswith("#"):
            key, shape = line.split(" [")
            size = tuple(int(n) for n in shape.split("]")[0].split(", "))
            tensors |= dict.fromkeys(_expanded(key), size)
    return tensors


def _expanded(key: str) -> list[str]:
    found = re.search(r"\{(\d+)\.\.(\d+)\}", key)
    if found is None:
        return [key]
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [name for i in numbers for name in _expanded(f"{key[: found.start()]}{i}{key[found.end() :]}")]
