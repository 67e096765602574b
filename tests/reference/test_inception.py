"""FID's Inception: tensors of both files that circulate, and its steps against torchvision's with TensorFlow's pools.

Provenance: names and shapes in inception_tensors.txt; differences from torchvision's Inception as pytorch-fid states
them (averages that leave the border out, a max pooling in the last block, 1008 classes). Weights here are random.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.errors import WeightsError
from components.metrics.networks import inception
from components.metrics.networks.base import Identity
from components.metrics.networks.inception import Inception, InceptionFeatures, folded, resized
from components.metrics.networks.inception_layout import convs, graph_names

_LINES = Path(__file__).with_name("inception_tensors.txt").read_text().splitlines()
_SHAPES = {
    line.split(" ")[0]: [int(n) for n in line.split("[")[1][:-1].split(",")] for line in _LINES if line[0] != "#"
}
_TORCHVISION = {name: shape for name, shape in _SHAPES.items() if not name.startswith(("layers.", "output."))}
_GRAPH = {name: shape for name, shape in _SHAPES.items() if name.startswith(("layers.", "output."))}
_PARTS = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in _TORCHVISION.items():
        values = torch.randn(shape, generator=rng)
        if name.endswith("running_var"):
            values = values.square() + 0.5
        elif name.endswith("conv.weight"):
            values = values * (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith("bn.weight"):
            values = torch.ones(shape)
        elif name.endswith("weight"):
            values = values * 0.05
        made[name] = values * 0.1 if name.endswith(("bias", "mean")) else values
    return made


def _graph(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under the second scheme."""
    made = {
        f"{other}.{theirs}": tensors[f"{name}.{ours}"]
        for name, other in graph_names().items()
        for ours, theirs in _PARTS.items()
    }
    return made | {f"output.{part}": tensors[f"fc.{part}"] for part in ("weight", "bias")}


def test_both_files_have_the_published_names_and_shapes(tensors: dict[str, Tensor]) -> None:
    assert len(_TORCHVISION) == 472
    assert len(_GRAPH) == 378
    assert {name: list(tensor.shape) for name, tensor in _graph(tensors).items()} == _GRAPH
    one, other = folded(tensors, source="a"), folded(_graph(tensors), source="b")
    assert one.keys() == other.keys() == Inception().state_dict().keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_inception_is_refused_by_name(tensors: dict[str, Tensor]) -> None:
    photos = tensors | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    with pytest.raises(WeightsError, match=r"not FID's Inception[\s\S]*fc.bias"):
        folded(photos, source="inception_v3.pth")
    with pytest.raises(WeightsError, match="not finite"):
        folded(tensors | {"fc.bias": torch.full((1008,), torch.nan)}, source="x")
    assert folded(tensors | {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}, source="x")


class _TensorFlowPools:
    """torch.nn.functional, but averages do not count the border."""

    def __getattr__(self, name: str) -> object:
        return getattr(functional, name)

    def avg_pool2d(self, x: Tensor, **how: int) -> Tensor:
        return functional.avg_pool2d(x, **how, count_include_pad=False)


class _LastBlock:
    """The same, but the pooling of the last block is a maximum."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block

    def __call__(self, x: Tensor) -> Tensor:
        from torchvision.models import inception as theirs

        pools = theirs.F
        theirs.F = type(
            "Max", (_TensorFlowPools,), {"avg_pool2d": lambda _, x, **how: functional.max_pool2d(x, **how)}
        )()
        try:
            return self._block(x)
        finally:
            theirs.F = pools


@pytest.fixture
def oracle(tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    from torchvision.models import inception as theirs

    monkeypatch.setattr(theirs, "F", _TensorFlowPools())
    made = theirs.Inception3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False).eval()
    made.load_state_dict({**made.state_dict(), **tensors})
    last = made.Mixed_7c.forward
    monkeypatch.setattr(made.Mixed_7c, "forward", _LastBlock(last))
    return made


@torch.inference_mode()
def test_features_spatial_features_and_probabilities(tensors: dict[str, Tensor], oracle: nn.Module) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 56, 3), np.uint8)
    network = Inception()
    network.load_state_dict(folded(tensors, source="x"))
    seen = InceptionFeatures(network, Identity("inception", "", "", ""))(image)
    found: dict[str, Tensor] = {}
    oracle.Mixed_6d.branch1x1.register_forward_hook(lambda _m, _i, out: found.update(spatial=out))
    oracle.avgpool.register_forward_hook(lambda _m, _i, out: found.update(pooled=out))
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float()
    oracle((resized(x) - 128) / 128)
    features = found["pooled"].flatten(1)
    spatial = found["spatial"][:, :7].permute(0, 2, 3, 1).reshape(1, 7 * 17 * 17)
    probabilities = (features @ tensors["fc.weight"].T).softmax(1)
    for ours, theirs in ((seen.features, features), (seen.spatial, spatial), (seen.probabilities, probabilities)):
        assert ours is not None
        assert np.abs(ours - theirs.numpy()).max() < 1e-4 * theirs.abs().max()
    assert seen.features.shape == (1, 2048)


def test_resize_reads_between_the_floor_and_the_next_pixel() -> None:
    x = np.random.default_rng(1).integers(0, 256, (1, 3, 7, 500)).astype(np.float32)
    out = resized(torch.from_numpy(x)).numpy()
    for row, column in ((0, 0), (298, 298), (13, 250), (200, 7)):
        at, across = row * 7 / 299, column * 500 / 299
        i, j = int(at), int(across)
        below, right = min(i + 1, 6), min(j + 1, 499)
        top = x[0, :, i, j] * (1 - across % 1) + x[0, :, i, right] * (across % 1)
        bottom = x[0, :, below, j] * (1 - across % 1) + x[0, :, below, right] * (across % 1)
        assert out[0, :, row, column] == pytest.approx(top * (1 - at % 1) + bottom * (at % 1), abs=0.02)
    assert out.shape == (1, 3, inception.PX, inception.PX)
    assert len(convs()) == 94
