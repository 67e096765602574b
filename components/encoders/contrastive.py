"""MoCo v3 training: two augmented views, a momentum encoder, the symmetrized contrastive loss over the global batch."""

import copy
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.base import Batch
from components.encoders.base import preprocess
from components.encoders.config import ContrastiveConfig, MoCoV3Config
from components.encoders.mocov3 import MoCoV3Network, projection_head
from components.images.augment import Images, augment
from components.nn.gather import gather_rows
from components.nn.parts import in_parts
from components.rng import BatchRng
from components.training.trainable import Trainable


def contrastive_loss(q: Float[Tensor, "b d"], k: Float[Tensor, "b d"], temperature: float) -> Tensor:
    """InfoNCE of each query against the keys of the global batch, positive = the key of the same row; mean over q.

    Paper: 2104.02057, algorithm 1, with the factor 2 * temperature of its reference code.
    """
    keys, start = gather_rows(k)
    labels = torch.arange(start, start + len(q), device=q.device)
    return nn.functional.cross_entropy(q @ keys.T / temperature, labels) * (2 * temperature)


class MoCoV3Trainer(Trainable):
    """Base encoder, predictor and momentum encoder. Batch key: target (b, 3, h, w) float32 in [0, 1]."""

    in_parts = True

    def __init__(self, model: MoCoV3Config, config: ContrastiveConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.base_encoder = MoCoV3Network(model)
        self.predictor = projection_head((model.projector_dim, config.predictor_hidden, model.projector_dim))
        self.momentum_encoder = copy.deepcopy(self.base_encoder).requires_grad_(False)

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        views = torch.cat(self.views(batch["target"], rng))
        x = preprocess(views, px=self.model.input_px, mean=self.model.mean, std=self.model.std)
        q1, q2 = (_unit(self.predictor(z)) for z in self._project(self.base_encoder, x))
        with torch.no_grad():
            k1, k2 = (_unit(z) for z in self._project(self.momentum_encoder, x))
        loss = contrastive_loss(q1, k2, self.config.temperature) + contrastive_loss(q2, k1, self.config.temperature)
        return loss, {}

    def views(self, images: Images, rng: BatchRng) -> tuple[Images, Images]:
        """Two independently augmented copies. Shapes: rng.rows equals the batch."""
        first, second = self.config.views
        return augment(images, first, rng), augment(images, second, rng)

    def _project(self, encoder: MoCoV3Network, x: Images) -> tuple[Tensor, ...]:
        """Both views through the ViT together, each through the head alone: BatchNorm sees all rows of one view."""
        most = None if self.rows_at_once is None else 2 * self.rows_at_once
        return tuple(encoder.head(cls) for cls in in_parts(encoder.cls, x, most).chunk(2))

    @torch.no_grad()
    def after_step(self, step: int, n_steps: int) -> None:
        """Move the momentum encoder's parameters; its BatchNorm statistics come from its own forward passes.

        Differs: the reference moves it at the start of the next step, with the same weights.
        """
        rate = momentum_at(self.config.momentum, step, n_steps)
        slow: list[Tensor] = [*self.momentum_encoder.parameters()]
        fast: list[Tensor] = [*self.base_encoder.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - rate)


def momentum_at(start: float, step: int, n_steps: int) -> float:
    """Momentum before step number `step` (0 … n_steps): start at 0, a half cosine up to 1 at n_steps."""
    return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    return nn.functional.normalize(x, dim=1)
