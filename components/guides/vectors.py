"""Guides to a vector: to what a caption says, or to how a frozen encoder sees a picture.

x_t: noisy sample, y: the vector, m: the guide's guess of it, from x_t.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as tf

from components.diffusion.network import Network
from components.generators.config import GeneratorData
from components.guides.base import NoiseAware
from components.nn.gather import gather_rows
from components.target import EventSpec

_FIRST_TEMPERATURE, _LEAST_TEMPERATURE = 0.07, 0.01
_N_BINS = 32
_SAME = 1e-5
"""Texts whose cosine is 1 but for this are one text."""


class TextGuide(NoiseAware):
    """A noise-aware image-text model: the image half, against the frozen embeddings of stage `text`.

    Trained by CLIP's loss; log p(text | x_t) is the cosine over the learned temperature, up to a constant.
    Paper: 2112.10741 (GLIDE), sec. 2.3. Differs: there the text tower is trained along; rows of equal captions are all
    right answers here, in equal parts, as collections of few concepts have many.
    """

    by_row = False
    field = "text"
    metric = "retrieval"

    def __init__(
        self, config: Any, data: GeneratorData, *, spec: EventSpec, network: Network, standardize: bool
    ) -> None:
        super().__init__(config, data, spec=spec, network=network, standardize=standardize)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_FIRST_TEMPERATURE)))

    def losses(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        a, b = tf.normalize(self.output(x_t, t), dim=1), tf.normalize(y.float(), dim=1)
        images, texts = gather_rows(a)[0], gather_rows(b)[0]
        right = _equal(b, texts)
        right = right / right.sum(1, keepdim=True)
        pairs = ((a, texts), (b, images))
        losses = [-(right * (self._scale() * x @ other.T).log_softmax(1)).sum(1) for x, other in pairs]
        return (losses[0] + losses[1]) / 2

    def score(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        """Whether the nearest of the texts of these rows is its own."""
        b = tf.normalize(y.float(), dim=1)
        nearest = (tf.normalize(self.output(x_t, t), dim=1) @ b.T).argmax(1)
        return _equal(b, b).gather(1, nearest[:, None])[:, 0]

    def chance(self, y: Tensor) -> float:
        b = tf.normalize(y.float(), dim=1)
        return float(_equal(b, b).mean())

    def log_likelihood(self, x_t: Float[Tensor, "b ..."], t: int, y: Tensor) -> Float[Tensor, " b"]:
        m = tf.normalize(self.output(x_t, torch.tensor([t], device=x_t.device)), dim=1)
        return self._scale() * (m * tf.normalize(y.float(), dim=1)).sum(1)

    def _scale(self) -> Tensor:
        return self.log_scale.clamp(max=-math.log(_LEAST_TEMPERATURE)).exp()


class RepresentationGuide(NoiseAware):
    """A frozen encoder made noise-aware: y given x_t is normal around m, with a variance learned by the time alone.

    It leads a generator without any condition to how the encoder sees a picture.
    """

    field = "representation"
    metric = "cosine"

    def __init__(
        self, config: Any, data: GeneratorData, *, spec: EventSpec, network: Network, standardize: bool
    ) -> None:
        super().__init__(config, data, spec=spec, network=network, standardize=standardize)
        self.log_variance = nn.Parameter(torch.zeros(_N_BINS))

    def losses(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        """Per number of the representation."""
        log_variance = self._log_variance(t)
        return ((y - self.output(x_t, t)).square().mean(1) * (-log_variance).exp() + log_variance) / 2

    def score(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        return tf.cosine_similarity(self.output(x_t, t), y, dim=1)

    def chance(self, y: Tensor) -> float:
        """Of always guessing the mean."""
        return float(tf.cosine_similarity(y.mean(0, keepdim=True), y, dim=1).mean())

    def log_likelihood(self, x_t: Float[Tensor, "b ..."], t: int, y: Tensor) -> Float[Tensor, " b"]:
        times = torch.tensor([t], device=x_t.device)
        far = (y - self.output(x_t, times)).square().sum(1) * (-self._log_variance(times)).exp() / 2
        return torch.where((y == 0).all(1), 0.0, -far)

    def _log_variance(self, t: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.log_variance[t * _N_BINS // self.config.schedule.n_times]


def _equal(a: Float[Tensor, "b dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, "b n"]:
    """1 where two rows of norm 1 are the same text."""
    return (a @ b.T > 1 - _SAME).float()
