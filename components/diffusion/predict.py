"""What a diffusion network predicts, and how that becomes the clean sample.

x0: clean sample, x_t: noisy sample, eps: its noise, v: velocity, ab: alpha-bar_t, broadcast over x_t;
x_t = sqrt(ab) x0 + sqrt(1 - ab) eps,  v = sqrt(ab) eps - sqrt(1 - ab) x0  (Salimans & Ho, 2202.00512, app. D).
"""

import torch
from torch import Tensor

from components.diffusion.schedule import Prediction

MOST_V_WEIGHT = 10.0


def noised(x0: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    """x_t from x0. Paper: 2006.11239, eq. 4."""
    return ab.sqrt() * x0 + (1 - ab).sqrt() * eps


def x0_from_eps(x_t: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    """x0 = (x_t - sqrt(1 - ab) eps) / sqrt(ab)."""
    return (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()


def x0_from_v(x_t: Tensor, v: Tensor, ab: Tensor) -> Tensor:
    """x0 = sqrt(ab) x_t - sqrt(1 - ab) v."""
    return ab.sqrt() * x_t - (1 - ab).sqrt() * v


def eps_from_x0(x_t: Tensor, x0: Tensor, ab: Tensor) -> Tensor:
    """eps = (x_t - sqrt(ab) x0) / sqrt(1 - ab)."""
    return (x_t - ab.sqrt() * x0) / (1 - ab).sqrt()


def x0_from(kind: Prediction, x_t: Tensor, predicted: Tensor, ab: Tensor) -> Tensor:
    """The clean sample that a prediction of this kind stands for."""
    match kind:
        case "x0":
            return predicted
        case "eps":
            return x0_from_eps(x_t, predicted, ab)
        case "v":
            return x0_from_v(x_t, predicted, ab)


def target_of(kind: Prediction, x0: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    """What the network should output."""
    match kind:
        case "x0":
            return x0
        case "eps":
            return eps
        case "v":
            return ab.sqrt() * eps - (1 - ab).sqrt() * x0


def min_snr_weight(kind: Prediction, ab: Tensor, gamma: float) -> Tensor:
    """Weight of a loss in this prediction's space that equals min(snr, gamma) on x0.

    Paper: 2303.09556, sec. 3.4 (x0, eps); for v, |v - v'|^2 = (snr + 1) |x0 - x0'|^2.
    """
    snr = ab / (1 - ab)
    per_x0 = {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[kind]
    return snr.clamp(max=gamma) / per_x0


def v_weight(kind: Prediction, ab: Tensor) -> Tensor:
    """Weight of a loss in this prediction's space that equals the squared error of v: snr + 1 on x0.

    Paper: 2202.00512, sec. 4. Differs: at most MOST_V_WEIGHT, as times of hardly any noise would rule the gradient.
    """
    per_v = {"x0": 1 - ab, "eps": ab, "v": torch.ones_like(ab)}[kind]
    return (1 / per_v).clamp(max=MOST_V_WEIGHT)


def p2_weight(ab: Tensor) -> Tensor:
    """1 / (1 + snr), of the squared error of the prediction. Paper: 2204.00227, k = 1 and gamma = 1; Corgi's, on x0."""
    return 1 - ab
