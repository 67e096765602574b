"""Training of a joint space, which no bundle needs.

s: similarity over temperature.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.base import Batch
from components.nn.gather import gather_rows
from components.rng import BatchRng
from components.text.joint import Joint
from components.training.trainable import Trainable

_FIRST_TEMPERATURE, _LEAST_TEMPERATURE = 0.07, 0.01


class JointTrainer(Trainable):
    """Batch: representation (b, image_dim), text (b, text_dim), caption (b,) float, the number of the caption.

    Differs: rows of equal captions are all right answers, in equal parts, as collections of few concepts have many.
    """

    def __init__(self, joint: Joint) -> None:
        super().__init__()
        self.joint = joint
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_FIRST_TEMPERATURE)))

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        a = self.joint.of_text(batch["text"]) / self.joint.dim**0.5
        b = self.joint.of_image(batch["representation"]) / self.joint.dim**0.5
        scale = self.log_scale.clamp(max=-math.log(_LEAST_TEMPERATURE)).exp()
        numbers, _ = gather_rows(batch["caption"])
        right = (batch["caption"][:, None] == numbers).float()
        right = right / right.sum(1, keepdim=True)
        texts, images = gather_rows(a)[0], gather_rows(b)[0]
        losses = [_cross_entropy(scale * x @ y.T, right) for x, y in ((a, images), (b, texts))]
        return (losses[0] + losses[1]) / 2, {"temperature": 1 / scale.detach()}


def _cross_entropy(s: Float[Tensor, "b n"], right: Float[Tensor, "b n"]) -> Tensor:
    out: Tensor = -(right * s.log_softmax(1)).sum(1).mean()
    return out


def caption_numbers(captions: list[str]) -> Int[Tensor, " n"]:
    """Equal numbers for equal captions."""
    numbers = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    return torch.tensor([numbers[caption] for caption in captions], dtype=torch.int64)
