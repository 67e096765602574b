"""Pictures of one request at a time, as files with their provenance; a job that nobody follows any more ends."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic
from typing import Any, NamedTuple

from torch import nn

from components.bundle.bundle import Bundle
from components.bundle.provenance import with_provenance
from components.bundle.request import Picture, Request
from components.images.pictures import png_bytes, to_uint8
from flows.play.abilities import Abilities

_EVERY_S = 0.5
"""Between two looks at a job."""


class Progress(NamedTuple):
    """How far a job is: `pictures` holds those that are done, all `n` of them at the end."""

    pictures: tuple[Picture, ...]
    n: int
    seconds: float


class _LeftError(Exception):
    """Nobody waits for this job."""


class Artist:
    """Draws what requests ask for, one after the other, on a thread of its own.

    Image i of a request is, byte for byte, the file that `rcg sample` writes for it.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.can = bundle, Abilities.of(bundle)
        self.px = bundle.system.codec.spec.image_px
        self._left = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rcg-play")
        beside = (bundle.system.upsampler, bundle.system.guide)
        for network in (*bundle.system.generators.values(), *(one for one in beside if one is not None)):
            for module in network.modules():
                if not any(module.children()):
                    module.register_forward_pre_hook(self._stop_if_left)

    def draw(self, request: Request, *, every_s: float = _EVERY_S) -> Iterator[Progress]:
        """Progress now and then, and at the end all pictures. Closing the iterator ends the job at the network's next
        layer, or before it begins.

        Raises: ConfigError for a request that the model cannot answer; DataError.
        """
        pictures: list[Picture] = []
        left, started = threading.Event(), monotonic()
        job = self._thread.submit(self._work, request, pictures.append, left)
        try:
            while wait([job], timeout=every_s).not_done:
                yield Progress(tuple(pictures), request.n, monotonic() - started)
            job.result()
        finally:
            left.set()
            job.cancel()
        yield Progress(tuple(pictures), request.n, monotonic() - started)

    def drawn(self, request: Request) -> tuple[Picture, ...]:
        """All pictures of a request. Raises: as draw()."""
        *_, last = self.draw(request)
        return last.pictures

    def close(self) -> None:
        """End the job at work, and those that wait."""
        self._left.set()
        self._thread.shutdown(cancel_futures=True)

    def _work(self, request: Request, keep: Callable[[Picture], None], left: threading.Event) -> None:
        self._left = left
        system, provenance = self.bundle.system, self.bundle.provenance(request)
        draw = system.sampler(request)
        for here in system.split(request):
            for i, image in zip(here, to_uint8(system.images(draw(here))), strict=True):
                index = request.first + i
                png = with_provenance(png_bytes(image), provenance.model_copy(update={"index": index}))
                keep(Picture(png, f"seed{request.seed}-{index:04d}.png"))

    def _stop_if_left(self, _module: nn.Module, _inputs: Any) -> None:
        if self._left.is_set():
            raise _LeftError
