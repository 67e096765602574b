"""Random draws by row, so that neither world size nor batching changes them. The global generator is never used."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any mix of integers and names; equal parts give equal seeds on every platform."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Rng(Protocol):
    """A stream of draws for a batch of rows. Each call advances it.

    Shapes: normal, uniform and integers return (rows, *shape) on `device`.
    """

    @property
    def rows(self) -> int: ...
    def normal(self, *shape: int) -> Tensor: ...
    def uniform(self, *shape: int) -> Tensor: ...
    def integers(self, high: int, *shape: int) -> Tensor: ...


BLOCK = 32
"""Rows of a global batch that share a generator. Part of what a seed means: another number gives other draws."""


class BatchRng:
    """Training: each block of rows of the global batch has a generator of its own, seeded by (seed, block).

    A rank makes the draws of the blocks that its rows start..stop touch, and of no others; so the noise of a row
    depends neither on the number of workers nor on how a worker splits its rows.
    """

    def __init__(
        self, seed: int, n: int, *, start: int = 0, stop: int | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.n, self.start, self.stop = n, start, n if stop is None else stop
        self.device = torch.device(device)
        self._shared = self._generator(derive_seed(seed, "shared"))
        first = start // BLOCK
        self._blocks = [
            (self._generator(derive_seed(seed, block)), min(BLOCK, n - block * BLOCK))
            for block in range(first, -(-self.stop // BLOCK))
        ]
        self._offset = start - first * BLOCK

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def normal(self, *shape: int) -> Tensor:
        return self._of_rows(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._of_rows(torch.rand, shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._of_rows(partial(torch.randint, high), shape)

    def shared_uniform(self, *shape: int) -> Tensor:
        """One draw for the whole global batch, equal on every rank."""
        return torch.rand(shape, generator=self._shared, device=self.device)

    def _of_rows(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        drawn = [draw((size, *shape), generator=generator, device=self.device) for generator, size in self._blocks]
        return torch.cat(drawn)[self._offset : self._offset + self.rows]


class RowRng:
    """Sampling: one generator per row, so an image's noise depends on its own seed alone."""

    def __init__(self, seeds: Sequence[int], *, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator() for _ in seeds]
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)

    @property
    def rows(self) -> int:
        return len(self._generators)

    def normal(self, *shape: int) -> Tensor:
        out = torch.empty((self.rows, *shape))
        for row, generator in zip(out, self._generators, strict=True):
            torch.randn(shape, generator=generator, out=row)
        return out.to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        out = torch.empty((self.rows, *shape))
        for row, generator in zip(out, self._generators, strict=True):
            torch.rand(shape, generator=generator, out=row)
        return out.to(self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        drawn = [torch.randint(high, shape, generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self.device)


class Repeated:
    """Draws of another Rng, remembered, so that something else can make its choices by the same ones."""

    def __init__(self, rng: Rng, drawn: Sequence[Tensor] = ()) -> None:
        self._rng, self._ahead, self._drawn = rng, list(drawn), list[Tensor]()

    @property
    def rows(self) -> int:
        return self._rng.rows

    def again(self) -> "Repeated":
        """The draws from the first one on, then new ones."""
        return Repeated(self._rng, self._drawn)

    def normal(self, *shape: int) -> Tensor:
        return self._next(lambda: self._rng.normal(*shape))

    def uniform(self, *shape: int) -> Tensor:
        return self._next(lambda: self._rng.uniform(*shape))

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._next(lambda: self._rng.integers(high, *shape))

    def _next(self, draw: Callable[[], Tensor]) -> Tensor:
        self._drawn.append(self._ahead.pop(0) if self._ahead else draw())
        return self._drawn[-1]


def image_rng(seed: int, start: int, stop: int, *, stream: str, device: str | torch.device = "cpu") -> RowRng:
    """The noise of images start..stop of a sampling run; `stream` keeps e.g. "rdm" and "pixels" apart."""
    return RowRng([derive_seed(seed, stream, i) for i in range(start, stop)], device=device)
