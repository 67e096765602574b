"""The variational bound of one step, which a learned reverse variance is trained on.

x0: clean sample, x_t: noisy sample, ab: alpha-bar_t, f: where between beta-tilde (0) and beta (1), in logarithms, the
reverse variance lies. Paper: 2102.09672, sec. 3.1.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.diffusion.process import alpha_bars
from components.diffusion.schedule import ScheduleConfig

_HALF_BIN = 1.0 / 255.0
"""Half the distance of two of the 256 values in [-1, 1]."""
_LEAST_PROBABILITY = 1e-12


class Posterior(nn.Module):
    """q(x_{t-1} | x_t, x0) of the unspaced chain, by time. Buffers are (T,) float32, computed in float64, not saved."""

    from_x0: Tensor
    from_x_t: Tensor
    log_low: Tensor
    log_high: Tensor

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        ab = alpha_bars(config)
        ab_prev = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), ab[:-1]])
        beta = 1 - ab / ab_prev
        low = beta * (1 - ab_prev) / (1 - ab)
        low = torch.cat([low[1:2], low[1:]])  # it is zero at t = 0, where its logarithm borrows that of t = 1
        values = {
            "from_x0": ab_prev.sqrt() * beta / (1 - ab),
            "from_x_t": (ab / ab_prev).sqrt() * (1 - ab_prev) / (1 - ab),
            "log_low": low.log(),
            "log_high": beta.log(),
        }
        for name, value in values.items():
            self.register_buffer(name, value.float(), persistent=False)

    def mean(self, x0: Tensor, x_t: Tensor, t: Int[Tensor, " b"]) -> Tensor:
        """Paper: 2006.11239, eq. 7."""
        return _rows(self.from_x0, t, x_t) * x0 + _rows(self.from_x_t, t, x_t) * x_t

    def log_variance(self, f: Tensor, t: Int[Tensor, " b"]) -> Tensor:
        """Paper: 2102.09672, eq. 15."""
        low, high = _rows(self.log_low, t, f), _rows(self.log_high, t, f)
        return low + f * (high - low)


def bound_bits(
    q: Posterior, x0: Tensor, x_t: Tensor, guess: Tensor, f: Tensor, t: Int[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Bits per element of the bound's term at t: KL(q || p), and at t = 0 the likelihood of x0 in bins of 2/255.

    `guess`, the predicted x0, gets no gradient: the bound trains the variance alone.
    Differs: the normal's distribution function is exact; guided-diffusion approximates it by a tanh.
    """
    mean, log_variance = q.mean(guess.detach(), x_t, t), q.log_variance(f, t)
    low = _rows(q.log_low, t, x_t)
    gap = (q.mean(x0, x_t, t) - mean).square()
    kl = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + gap * (-log_variance).exp())
    nll = -_log_likelihood(x0, mean, log_variance)
    nats = torch.where((t == 0).view(-1, *[1] * (x0.ndim - 1)), nll, kl)
    return nats.flatten(1).mean(1) / math.log(2)


def _log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of x0's bin; the outermost bins reach to infinity."""
    centered, inverse_std = x0 - mean, (-0.5 * log_variance).exp()
    above = torch.special.ndtr((centered + _HALF_BIN) * inverse_std)
    below = torch.special.ndtr((centered - _HALF_BIN) * inverse_std)
    last, first = x0 > 1 - _HALF_BIN, x0 < -1 + _HALF_BIN
    probability = torch.where(first, above, torch.where(last, 1 - below, above - below))
    return probability.clamp(min=_LEAST_PROBABILITY).log()


def _rows(values: Tensor, t: Int[Tensor, " b"], like: Tensor) -> Tensor:
    return values[t].view(-1, *[1] * (like.ndim - 1))
