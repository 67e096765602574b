"""A noise-aware classifier: p(class | x_t) of a diffusion generator's noisy samples. Paper: 2105.05233 (ADM), sec. 4.

x_t: noisy sample, y: class.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as tf

from components.conditions.frequencies import shares
from components.diffusion.network import Network
from components.errors import ConfigError
from components.generators.base import TrainingRows
from components.generators.config import GeneratorData
from components.guides.base import NoiseAware
from components.target import EventSpec


class Classifier(NoiseAware):
    """Trained by cross-entropy."""

    field = "class"
    metric = "accuracy"
    frequencies: Tensor
    """Share of each class among its training rows."""

    def __init__(
        self, config: Any, data: GeneratorData, *, spec: EventSpec, network: Network, standardize: bool
    ) -> None:
        super().__init__(config, data, spec=spec, network=network, standardize=standardize)
        self.register_buffer("frequencies", torch.zeros(config.n_classes(data)))

    def fit(self, rows: TrainingRows, labels: Int[Tensor, " n"] | None) -> None:
        """Raises: ConfigError for fewer than two classes."""
        none = torch.zeros(0, dtype=torch.int64)
        frequencies = shares(none if labels is None else labels, len(self.frequencies))
        if int((frequencies > 0).sum()) < 2:
            fix = "label some training images of two classes or more, or set guide: null"
            raise ConfigError("a guide tells classes apart, but training images have fewer than two", fix=fix)
        self.frequencies.copy_(frequencies)
        super().fit(rows, labels)

    def logits(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " n"]) -> Float[Tensor, "b k"]:
        """Of one time for all rows, n = 1, or one each."""
        return self.output(x_t, t)

    def losses(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        return tf.cross_entropy(self.logits(x_t, t), y, reduction="none")

    def score(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"], y: Tensor) -> Float[Tensor, " b"]:
        return (self.logits(x_t, t).argmax(1) == y).float()

    def chance(self, y: Tensor) -> float:
        """Of always naming the commonest class of training."""
        return float((y == self.frequencies.argmax()).float().mean())

    def log_likelihood(self, x_t: Float[Tensor, "b ..."], t: int, y: Tensor) -> Float[Tensor, " b"]:
        log_p = self.logits(x_t, torch.tensor([t], device=x_t.device)).log_softmax(1)
        of_y = log_p.gather(1, y.clamp(min=0)[:, None])[:, 0]
        return torch.where(y < 0, 0.0, of_y)
