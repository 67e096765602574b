"""FID's Inception: the one network whose numbers can be laid beside published ones.

torch-fidelity has it, too, but not the features of sFID, and its file under one naming scheme only. Batch norms are
folded into the convolutions: they have no gain that is trained, and this is how the original graph is run.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from components.errors import WeightsError
from components.metrics.networks import inception_layout as layout
from components.metrics.networks.base import Frozen, Identity, Seen
from components.metrics.networks.config import InceptionNetwork
from components.metrics.networks.inception_layout import Conv, Path, Pool, Step
from components.weights import check_tensors, fetch_weights

PX = 299
RESIZE = "bilinear to 299 as TensorFlow 1: corners aligned at the top left, no antialias; (x - 128) / 128"
_EPS = 1e-3
_WHERE = "the network's weights"


class Inception(nn.Module):
    """Images (b, 3, 299, 299), (x - 128) / 128 -> features (b, 2048) and sFID's (b, 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({_key(name): _conv(conv) for name, conv in layout.convs().items()})
        self.fc = nn.Linear(layout.DIM, layout.N_LOGITS, bias=False)  # the score leaves the bias out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in layout.STEM_A:
            x = self._step("", conv, x)
        x = max_pool2d(x, 3, 2)
        for conv in layout.STEM_B:
            x = self._step("", conv, x)
        x = max_pool2d(x, 3, 2)
        spatial, (block, first, channels) = x, layout.SPATIAL
        for name, paths in layout.BLOCKS.items():
            outputs = [self._path(f"{name}.", path, x) for path in paths]
            if name == block:
                at = next(i for i, path in enumerate(paths) if isinstance(path[0], Conv) and path[0].name == first)
                spatial = outputs[at][:, :channels]
            x = torch.cat(outputs, 1)
        return x.mean((2, 3)), spatial.permute(0, 2, 3, 1).flatten(1)  # channels last, as TensorFlow flattens them

    def _path(self, prefix: str, path: Path, x: Tensor) -> Tensor:
        for step in path:
            x = self._step(prefix, step, x)
        return x

    def _step(self, prefix: str, step: Step, x: Tensor) -> Tensor:
        if isinstance(step, tuple):
            return torch.cat([self._step(prefix, conv, x) for conv in step], 1)
        if isinstance(step, Conv):
            return relu(self.convs[_key(prefix + step.name)](x))
        return _pooled(step, x)


def _pooled(pool: Pool, x: Tensor) -> Tensor:
    if pool.kind == "average":
        return avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return max_pool2d(x, 3, 2) if pool.kind == "halve" else max_pool2d(x, 3, 1, 1)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ModuleDict takes no dots


def _conv(conv: Conv) -> nn.Conv2d:
    return nn.Conv2d(conv.c_in, conv.c_out, conv.kernel, conv.stride, conv.padding)


class InceptionFeatures(Frozen):
    """Features, sFID's features, and probabilities of the logits without their bias."""

    def __init__(self, network: Inception, identity: Identity) -> None:
        super().__init__(network, identity)
        self.network = network

    def see(self, x: Tensor) -> Seen:
        features, spatial = self.network((resized(x) - 128) / 128)
        logits = self.network.fc(features)
        parts = (features, spatial, logits.softmax(1))
        return Seen(*(part.float().cpu().numpy() for part in parts))


def resized(x: Tensor) -> Tensor:
    """TensorFlow 1's resize_bilinear to 299: output pixel i reads input position i * (side / 299), between its floor
    and the next pixel. Shapes: (b, 3, h, w) -> (b, 3, 299, 299)."""
    for axis in (2, 3):
        side = x.shape[axis]
        at = torch.arange(PX, dtype=torch.float32, device=x.device) * torch.tensor(side / PX, dtype=torch.float32)
        low = at.long()
        share = (at - low).view((-1, 1) if axis == 2 else (1, -1))
        first, second = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=side - 1))
        x = first + (second - first) * share
    return x


def load(config: InceptionNetwork) -> InceptionFeatures:
    """Raises: WeightsError for another network's file."""
    tensors = fetch_weights(config.weights, "FID's Inception", _WHERE)
    module = Inception()
    module.load_state_dict(folded(tensors, source=config.weights.uri))
    identity = Identity("inception", "FID's Inception, 2015-12-05", config.weights.sha256.lower(), RESIZE)
    return InceptionFeatures(module, identity)


def folded(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """State of Inception from a file under either scheme. Raises: WeightsError naming what does not fit."""
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    is_graph = any(name.startswith("layers.") for name in given)
    names = layout.graph_names() if is_graph else {name: name for name in layout.convs()}
    _check(given, names, is_graph=is_graph, source=source)
    state = {"fc.weight": given["output.weight" if is_graph else "fc.weight"]}
    for name, theirs in names.items():
        if is_graph:
            weight, bias, mean, var = (given[f"{theirs}.{part}"].double() for part in ("weight", "beta", "mean", "var"))
            gain = torch.ones_like(mean)
        else:
            parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
            weight, gain, bias, mean, var = (given[f"{theirs}.{part}"].double() for part in parts)
        scale = gain / torch.sqrt(var + _EPS)
        state[f"convs.{_key(name)}.weight"] = (weight * scale[:, None, None, None]).float()
        state[f"convs.{_key(name)}.bias"] = (bias - mean * scale).float()
    return state


def _check(tensors: Mapping[str, Tensor], names: Mapping[str, str], *, is_graph: bool, source: str) -> None:
    wanted: dict[str, Tensor] = {}
    for name, conv in layout.convs().items():
        weight = torch.empty(conv.c_out, conv.c_in, *conv.kernel, device="meta")
        vector = torch.empty(conv.c_out, device="meta")
        theirs = names[name]
        if is_graph:
            wanted |= {f"{theirs}.weight": weight} | {f"{theirs}.{part}": vector for part in ("beta", "mean", "var")}
        else:
            parts = ("weight", "bias", "running_mean", "running_var")
            wanted |= {f"{theirs}.conv.weight": weight} | {f"{theirs}.bn.{part}": vector for part in parts}
    head = "output" if is_graph else "fc"
    wanted[f"{head}.weight"] = torch.empty(layout.N_LOGITS, layout.DIM, device="meta")
    wanted[f"{head}.bias"] = torch.empty(layout.N_LOGITS, device="meta")
    try:
        check_tensors(tensors, wanted, source=source, model="FID's Inception")
    except WeightsError as error:
        raise WeightsError(
            f"{source} is not FID's Inception",
            got=error.got,
            expected=error.expected,
            fix="use the file that pytorch-fid or torch-fidelity fetch; torchvision's and timm's Inceptions are others",
        ) from error
