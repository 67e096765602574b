"""A discriminator of patches, its hinge loss, and the weight that balances it against reconstruction.

Paper: 2012.09841 (VQGAN, section 3.1), 1611.07004 (the patch discriminator).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as tf

from components.codecs.config import AdversarialConfig
from components.nn.gather import sum_over_ranks

_MOST = 1e4
_EPS = 1e-4


class Discriminator(nn.Module):
    """One judgment per patch: positive for real.

    Differs: GroupNorm where the paper has BatchNorm, so that a judgment does not depend on the batch or the workers.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, config.depth + 1):
            wider = config.width * min(2**i, 8)
            stride = 2 if i < config.depth else 1
            layers += [nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False)]
            layers += [nn.GroupNorm(8, wider), nn.LeakyReLU(0.2)]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, stride=1, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 m n"]:
        out: Tensor = self.layers(images * 2 - 1)
        return out


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: real judgments below 1 and fake ones above -1 cost."""
    return 0.5 * (tf.relu(1 - real).mean() + tf.relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor, *, rows: int) -> Tensor:
    """Ratio of both losses' gradient norms at the decoder's last layer; that of the global batch on every rank.

    `rows`: of this rank's batch. Paper: 2012.09841, eq. 7.
    """
    n = sum_over_ranks(last.new_tensor(float(rows)))
    norms: list[Tensor] = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, last, retain_graph=True)
        norms.append((sum_over_ranks(gradient.detach().float() * rows) / n).norm())
    return torch.clamp(norms[0] / (norms[1] + _EPS), 0, _MOST)
