"""Reading the tensor inventories in this folder."""

import re
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[1] / "reference"
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


def expected_tensors(name: str) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of an inventory file."""
    lines = (FOLDER / name).read_text().splitlines()
    return {key: shape for key, (shape, _) in _layout(lines).items()}


def expected_layout(section: str) -> Layout:
    """Names, shapes and dtypes of a section of checkpoint_tensors.txt."""
    text = (FOLDER / "checkpoint_tensors.txt").read_text()
    return _layout(text.split(f"## {section}\n")[1].split("\n\n")[0].splitlines())


def random_tensors(layout: Layout, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random values of these shapes, as overlapping views of one vector: the largest model in 100 MB."""
    rng = torch.Generator().manual_seed(seed)
    sizes = {name: torch.Size(shape).numel() for name, (shape, _) in layout.items()}
    base = torch.randn(max(sizes.values()) + 100_003, generator=rng)
    starts = torch.randint(100_003, (len(layout),), generator=rng).tolist()
    return {
        name: base[start : start + sizes[name]].view(shape).to(dtype)
        for start, (name, (shape, dtype)) in zip(starts, layout.items(), strict=True)
    }


def _layout(lines: list[str]) -> Layout:
    tensors: Layout = {}
    for line in lines:
        if line and not line.startswith("#"):
            key, shape = line.split(" [")
            sizes, _, dtype = shape.partition("]")
            found = getattr(torch, dtype.split()[0]) if dtype.strip() and not dtype.strip().startswith("(") else None
            size = tuple(int(n) for n in sizes.split(", ") if n)
            tensors |= dict.fromkeys(_expanded(key), (size, found or torch.float32))
    return tensors


def _expanded(key: str) -> list[str]:
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([\d,]+))\}", key)
    if found is None:
        return [key]
    numbers = range(int(found[1]), int(found[2]) + 1) if found[1] else map(int, found[3].split(","))
    return [name for i in numbers for name in _expanded(f"{key[: found.start()]}{i}{key[found.end() :]}")]
