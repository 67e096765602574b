"""BatchNorm over the global batch, on any backend (torch's SyncBatchNorm refuses CPU)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.nn.gather import sum_over_ranks, world_size


class GlobalBatchNorm(nn.BatchNorm1d):
    """BatchNorm1d whose training statistics are those of all ranks' rows; parameter and buffer names are torch's."""

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        if not self.training or world_size() == 1:
            return super().forward(x)
        n = sum_over_ranks(x.new_tensor(float(len(x))))
        mean = sum_over_ranks(x.sum(0)) / n
        centered = x - mean
        var = sum_over_ranks(centered.square().sum(0)) / n  # two passes: no cancellation
        self._track(mean, var * n / (n - 1))
        out = centered * torch.rsqrt(var + self.eps)
        return out if self.weight is None else out * self.weight + self.bias

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        rate = 0.0 if self.momentum is None else self.momentum
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(unbiased_var, rate)
