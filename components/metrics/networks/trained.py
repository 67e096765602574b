"""The network that is trained on the spot, as a feature network: honest between runs at one place, and nowhere else."""

import hashlib

from torch import Tensor

from components.metrics.config import Task
from components.metrics.features import FeatureNet, unsmoothed
from components.metrics.networks.base import Frozen, Identity, Seen


class TrainedFeatures(Frozen):
    """Features and, where it learned labels, probabilities."""

    def __init__(self, net: FeatureNet, task: Task) -> None:
        tensors = sorted(net.state_dict().items())
        digest = hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for _, tensor in tensors)).hexdigest()
        side = net.config.px
        resize = f"bilinear with antialias to {side}"
        super().__init__(net, Identity("trained", f"{task}, {side} px, {net.config.dim} features", digest, resize))
        self.net, self.task = net, task

    def see(self, x: Tensor) -> Seen:
        features = self.net(x / 255)
        if self.task == "self":
            return Seen(features.float().cpu().numpy())
        p = unsmoothed(self.net.head(features).double().softmax(1))
        return Seen(features.float().cpu().numpy(), None, p.cpu().numpy())
