"""The network whose features the metrics are measured in; trained here, on the train split, and on nothing else.

It is never the conditioning encoder, in whose features a representation-conditioned generator would flatter itself. It
has another architecture (a small convolutional network), other initial weights and another task. With labels it learns
to name them. Without, it learns to tell how an image was turned and to redraw it from its features: turning alone is
blind to most of an image, and redrawing alone hardly notices noise or blends (docs/LOG.md compares them).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.base import Batch
from components.metrics.config import LOWEST_SIDE, FeatureConfig
from components.rng import BatchRng
from components.training.loop import Trainable

LABEL_SMOOTHING = 0.1  # keeps features of one class from running off: the distance then varies less between samples
REDRAW_WEIGHT = 10.0  # the squared error of pixels in [0, 1] is about a tenth of the classification loss
SHIFT = 8  # training images are shifted by up to 1/8 of their side


class _Block(nn.Module):
    """x + conv(conv(x)), normalized by groups: no statistics of the batch enter a feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        halves = [
            layer
            for _ in range(2)
            for layer in (nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        ]
        self.branch = nn.Sequential(*halves)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class FeatureNet(nn.Module):
    """Images -> `dim` features (the linear layer before the classifier) and `n_outputs` logits."""

    def __init__(self, config: FeatureConfig, n_outputs: int) -> None:
        super().__init__()
        self.config = config
        channels, side = config.width, config.px
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), _Block(channels)]
        while side > LOWEST_SIDE:
            wider = min(2 * channels, 4 * config.width)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), _Block(wider)]
            channels, side = wider, -(-side // 2)
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(8, channels), nn.SiLU(), nn.Flatten())
        self.bottleneck = nn.Linear(channels * side * side, config.dim)
        self.head = nn.Linear(config.dim, n_outputs)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        features: Tensor = self.bottleneck(self.trunk(fit(images, self.config.px) * 2 - 1))
        return features


def fit(images: Float[Tensor, "b 3 h w"], px: int) -> Float[Tensor, "b 3 px px"]:
    """Resize square images with antialiasing; the same function for real and generated ones."""
    if images.shape[-2:] == (px, px):
        return images
    return nn.functional.interpolate(images, size=(px, px), mode="bilinear", antialias=True, align_corners=False)


class LabelTask(Trainable):
    """Classify slightly shifted images, with smoothed labels. Batch: image (b, 3, px, px), class (b,)."""

    def __init__(self, net: FeatureNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        logits = self.net.head(self.net(shifted(batch["image"], rng)))
        loss = nn.functional.cross_entropy(logits, batch["class"], label_smoothing=LABEL_SMOOTHING)
        hit = (logits.argmax(1) == batch["class"]).float().mean()
        return loss, {"accuracy": hit.detach()}


class SelfTask(Trainable):
    """Name the quarter turn of an image and redraw it from its features. Batch: image (b, 3, px, px).

    Paper: 1803.07728 (rotation); the redrawing is a plain autoencoder through the same features.
    """

    def __init__(self, net: FeatureNet) -> None:
        super().__init__()
        self.net = net
        hidden, n_pixels = 8 * net.config.dim, 3 * net.config.px**2
        self.redraw = nn.Sequential(nn.Linear(net.config.dim, hidden), nn.SiLU(), nn.Linear(hidden, n_pixels))

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        turns = rng.integers(4).to(batch["image"].device)
        images = turned(shifted(batch["image"], rng), turns)
        features = self.net(images)
        logits = self.net.head(features)
        naming = nn.functional.cross_entropy(logits, turns)
        redrawing = nn.functional.mse_loss(self.redraw(features), images.flatten(1))
        hit = (logits.argmax(1) == turns).float().mean()
        scalars = {"accuracy": hit.detach(), "redraw_mse": redrawing.detach()}
        return naming + REDRAW_WEIGHT * redrawing, scalars


def shifted(images: Float[Tensor, "b 3 h w"], rng: BatchRng) -> Float[Tensor, "b 3 h w"]:
    """Each image moved by its own draw of up to 1/8 of its side; the border is repeated."""
    b, _, h, w = images.shape
    reach = max(1, h // SHIFT)
    padded = nn.functional.pad(images, (reach,) * 4, mode="replicate")
    start = rng.integers(2 * reach + 1, 2).to(images.device)
    ys = start[:, :1] + torch.arange(h, device=images.device)  # (b, h)
    xs = start[:, 1:] + torch.arange(w, device=images.device)  # (b, w)
    rows = torch.arange(b, device=images.device)[:, None, None]
    return padded[rows, :, ys[:, :, None], xs[:, None, :]].permute(0, 3, 1, 2)  # indexing moves channels last


def turned(images: Float[Tensor, "b 3 s s"], turns: Tensor) -> Float[Tensor, "b 3 s s"]:
    """Image i turned counterclockwise by turns[i] quarter turns."""
    all_turns = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return all_turns[turns, torch.arange(len(images), device=images.device)]


def unsmoothed(p: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Probabilities of the labels, given those of smoothed labels: the inverse of (1 - s) p + s / k, never negative."""
    k = p.shape[1]
    sharp = ((p - LABEL_SMOOTHING / k) / (1 - LABEL_SMOOTHING)).clamp(min=0)
    return sharp / sharp.sum(1, keepdim=True)
