"""Random draws by row, so that neither world size nor batching changes them. The global generator is never used."""

import hashlib
from collections.abc import Sequence
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


class BatchRng:
    """Training: one generator draws the global batch, each rank keeps its own rows.

    So the noise of a row does not depend on the number of workers; drawing it all costs far less than a step.
    """

    def __init__(
        self, seed: int, n: int, *, start: int = 0, stop: int | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.n, self.start, self.stop = n, start, n if stop is None else stop
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(seed)

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def normal(self, *shape: int) -> Tensor:
        return torch.randn((self.n, *shape), generator=self._generator, device=self.device)[self.start : self.stop]

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand((self.n, *shape), generator=self._generator, device=self.device)[self.start : self.stop]

    def integers(self, high: int, *shape: int) -> Tensor:
        drawn = torch.randint(high, (self.n, *shape), generator=self._generator, device=self.device)
        return drawn[self.start : self.stop]

    def shared_uniform(self, *shape: int) -> Tensor:
        """One draw for the whole global batch, equal on every rank."""
        return torch.rand(shape, generator=self._generator, device=self.device)


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


def image_rng(seed: int, start: int, stop: int, *, stream: str, device: str | torch.device = "cpu") -> RowRng:
    """The noise of images start..stop of a sampling run; `stream` keeps e.g. "rdm" and "pixels" apart."""
    return RowRng([derive_seed(seed, stream, i) for i in range(start, stop)], device=device)
