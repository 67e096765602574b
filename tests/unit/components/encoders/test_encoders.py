import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.encoders.base import (
    CONFIG,
    WEIGHTS,
    FrozenEncoder,
    constant_rows,
    load_encoder,
    preprocess,
    saved_config,
    standardize,
)
from components.encoders.config import EncoderConfig, MoCoV3Config, TimmConfig
from components.encoders.mocov3 import MoCoV3Network
from components.encoders.timm import imported
from components.errors import ConfigError, ShapeError, WeightsError
from components.interop.encoders import import_encoder
from components.weights import fetch_weights, read_tensors, save_weights
from components.weights_file import WeightsFile

VIT_B: dict[str, Any] = {
    "input_px": 224,
    "patch_px": 16,
    "width": 768,
    "depth": 12,
    "heads": 12,
    "mlp_ratio": 4.0,
    "projector_hidden": 4096,
    "projector_dim": 256,
}


class Folder:
    """The part of an artifact that load_encoder reads, over a plain folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def _pin(path: Path) -> WeightsFile:
    return WeightsFile(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _images(n: int = 3, px: int = 12) -> torch.Tensor:
    return torch.rand(n, 3, px, px, generator=torch.Generator().manual_seed(0))


def test_standardization_is_unbiased_without_epsilon() -> None:
    z = torch.randn(4, 256, generator=torch.Generator().manual_seed(0)) * 1e-12 + 1e-11
    s = standardize(z)
    expected = [[(v - sum(row) / 256) for v in row] for row in z.double().tolist()]
    for got, row in zip(s, expected, strict=True):
        std = (sum(v * v for v in row) / 255) ** 0.5
        torch.testing.assert_close(got, torch.tensor([v / std for v in row]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(s.square().sum(1), torch.full((4,), 255.0))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e20])
def test_constant_rows_are_found(value: float) -> None:
    z = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    z[1] = value
    s = standardize(z)
    assert s[1].isnan().all()
    assert constant_rows(s).tolist() == [1]


def test_images_are_normalized_before_a_bicubic_resize_without_antialias() -> None:
    images, mean, std = _images(2, 12), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    got = preprocess(images, px=5, mean=mean, std=std)
    scaled = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    expected = torch.zeros(2, 3, 5, 5)
    for i in range(5):
        for j in range(5):
            for a, wy in _cubic(i, 12, 5):
                for b, wx in _cubic(j, 12, 5):
                    expected[:, :, i, j] += wy * wx * scaled[:, :, a, b]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def _cubic(i: int, n_in: int, n_out: int) -> list[tuple[int, float]]:
    """Taps of Keys' cubic convolution with a = -0.75, pixel centers aligned by their midpoints."""
    center = (i + 0.5) * n_in / n_out - 0.5
    base, a = int(center // 1), -0.75
    taps = []
    for k in range(base - 1, base + 3):
        d = abs(center - k)
        w = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        taps.append((min(max(k, 0), n_in - 1), w))
    return taps


@pytest.mark.usefixtures("wrong_shapes")
@pytest.mark.parametrize(
    "images",
    [torch.rand(3, 8, 8), torch.rand(2, 1, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 0, 4)],
)
def test_wrong_images_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"\(b, 3, h, w\) float32"):
        MoCoV3Config.tiny().build()(images)


@pytest.mark.parametrize("config", [MoCoV3Config.tiny(), TimmConfig.tiny()], ids=lambda c: c.kind)
def test_every_encoder_is_frozen_and_standardized(config: EncoderConfig, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    encoder = config.build()
    assert torch.equal(torch.random.get_rng_state(), before)
    z = encoder(_images())
    assert z.shape == (3, config.dim) == (3, encoder.dim)
    torch.testing.assert_close(z.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(1), torch.ones(3))
    assert not z.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.train()
    assert not any(m.training for m in encoder.modules())
    torch.testing.assert_close(encoder(_images())[:1], encoder(_images()[:1]), rtol=1e-4, atol=1e-5)
    assert encoder(_images()[:0]).shape == (0, config.dim)
    with torch.no_grad():  # other weights than a fresh build has
        for parameter in encoder.parameters():
            parameter.mul_(1.1)
    save_weights(tmp_path / WEIGHTS, encoder.network.state_dict())
    (tmp_path / CONFIG).write_text(json.dumps(saved_config(config)))
    assert torch.equal(load_encoder(Folder(tmp_path))(_images()), encoder(_images()))


def test_wrong_width_names_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"set encoder.model.dim: 4"):
        FrozenEncoder(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), dim=5, input_px=2, mean=(0,) * 3, std=(1,) * 3)(
            _images()
        )


def test_vit_b_has_the_published_parameters_and_names() -> None:
    config = MoCoV3Config.tiny().model_copy(update=VIT_B)
    with torch.device("meta"):
        network = MoCoV3Network(config)
    head = {id(p) for p in network.head.parameters()}
    assert sum(p.numel() for p in network.parameters() if id(p) not in head) == 85_798_656
    assert sum(p.numel() for p in network.head.parameters()) == 20_987_904
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    assert len(shapes) == 166
    assert shapes["pos_embed"] == (1, 197, 768)
    assert shapes["blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["patch_embed.proj.weight"] == (768, 3, 16, 16)
    head_names = {name for name in shapes if name.startswith("head.")}
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    expected = {f"head.{i}.weight" for i in (0, 3, 6)} | {f"head.{i}.{n}" for i in (1, 4) for n in norm}
    assert head_names == expected | {f"head.7.{n}" for n in norm - {"weight", "bias"}}


@pytest.mark.parametrize("output", ["projector", "cls"])
def test_published_moco_files_are_imported(output: str, tmp_path: Path) -> None:
    config = MoCoV3Config.tiny().model_copy(update={"depth": 15, "output": output})
    source = config.build()
    torch.nn.init.normal_(source.network.blocks[13].norm1.weight)
    torch.nn.init.normal_(source.network.blocks[14].norm2.weight)
    names = {"blocks.13.norm1": "blocks.13.norm13", "blocks.13.mlp.fc1": "blocks.13.mlp.fc13"}
    names |= {"blocks.14.norm2": "blocks.14.norm14", "blocks.14.mlp.fc2": "blocks.14.mlp.fc14"}
    state = {}
    for name, tensor in source.network.state_dict().items():
        stem = name.rsplit(".", 1)[0]
        state["module.base_encoder." + name.replace(stem, names.get(stem, stem))] = tensor
        state["module.momentum_encoder." + name] = tensor + 1
    state["module.predictor.0.weight"] = torch.ones(2)
    path = tmp_path / "vit.pth.tar"
    torch.save({"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": {"state": {}}}, path)
    encoder = import_encoder(config.model_copy(update={"weights": _pin(path)}))[0]
    assert torch.equal(encoder(_images()), source(_images()))
    assert "norm13" in " ".join(state)


def _timm_file(tmp_path: Path, name: str = "test_vit", **changes: Any) -> Path:
    import timm

    path = tmp_path / f"{name}.safetensors"
    save_weights(path, timm.create_model(name, pretrained=False, **changes).state_dict())
    return path


@pytest.mark.parametrize(
    ("name", "output", "dim", "changes"),
    [
        ("test_vit", "cls", 64, {"img_size": 32}),  # with a classifier in the file, which is dropped
        ("test_vit", "pooled", 64, {"img_size": 32, "num_classes": 0}),
        ("test_vit", "head", 10, {"img_size": 32, "num_classes": 10}),
        ("test_resnet", "pooled", 96, {}),
    ],
)
def test_timm_weights_are_imported(name: str, output: str, dim: int, changes: dict[str, Any], tmp_path: Path) -> None:
    import timm

    path = _timm_file(tmp_path, name, **changes)
    update = {"name": name, "output": output, "dim": dim, "weights": _pin(path)}
    config = TimmConfig.tiny().model_copy(update=update)
    encoder = imported(config)
    reference = timm.create_model(name, pretrained=False, **changes).eval()
    reference.load_state_dict(fetch_weights(_pin(path), "x", "y"))
    images = _images(2, 32)
    x = (images - torch.tensor(config.mean)[:, None, None]) / torch.tensor(config.std)[:, None, None]
    with torch.no_grad():
        features = reference.forward_features(x)
        raw = reference(x) if output == "head" else reference.forward_head(features, pre_logits=True)
        raw = features[:, 0] if output == "cls" else raw
    torch.testing.assert_close(encoder(images), standardize(raw))


def test_timm_mistakes_are_named(tmp_path: Path) -> None:
    tiny = TimmConfig.tiny()
    with pytest.raises(ConfigError, match="no model 'vit_tiniest'"):
        tiny.model_copy(update={"name": "vit_tiniest"}).build()
    with pytest.raises(ConfigError, match=r"no .CLS. token"):
        tiny.model_copy(update={"name": "test_resnet"}).build()
    with pytest.raises(ConfigError, match="no weights"):
        imported(tiny)
    resnet = {"name": "test_resnet", "output": "pooled", "weights": _pin(_timm_file(tmp_path, "test_resnet"))}
    with pytest.raises(ConfigError, match=r"set encoder.model.dim: 96"):
        imported(tiny.model_copy(update=resnet))
    odd = {"input_px": 40, "weights": _pin(_timm_file(tmp_path, img_size=40))}
    with pytest.raises(ConfigError, match="does not run at this size"):
        imported(tiny.model_copy(update=odd))
    small = _timm_file(tmp_path, img_size=16)
    with pytest.raises(WeightsError, match="wrong shape: pos_embed"):
        imported(tiny.model_copy(update={"weights": _pin(small)}))


def test_bad_weights_files_are_refused_by_name(tmp_path: Path) -> None:
    config, path = MoCoV3Config.tiny(), tmp_path / "w.safetensors"
    digest = "1" * 64
    absent = config.model_copy(update={"weights": WeightsFile(uri=f"file://{path}", sha256=digest)})
    with pytest.raises(WeightsError, match=r"mocov3 does not exist(.|\n)*w.safetensors(.|\n)*sha256sum"):
        import_encoder(absent)[0]
    state = config.build().network.state_dict()
    save_weights(path, state)
    with pytest.raises(WeightsError, match=digest):
        import_encoder(absent)[0]
    unrecorded = config.model_copy(update={"weights": WeightsFile(uri=str(path), sha256="0" * 64)})
    with pytest.raises(
        WeightsError, match=rf"not recorded(.|\n)*{_pin(path).sha256}(.|\n)*encoder.model.weights.sha256"
    ):
        import_encoder(unrecorded)[0]
    save_weights(path, {name: tensor for name, tensor in state.items() if name != "norm.bias"})
    with pytest.raises(WeightsError, match=r"missing: norm.bias"):
        import_encoder(config.model_copy(update={"weights": _pin(path)}))[0]
    save_weights(path, state | {"head.6.weight": torch.zeros(9, 24)})
    with pytest.raises(WeightsError, match=r"wrong shape: head.6.weight \(9, 24\)"):
        import_encoder(config.model_copy(update={"weights": _pin(path)}))[0]
    remote = WeightsFile(uri="https://example.org/w.pth", sha256=digest)
    with pytest.raises(ConfigError, match="file:// URI or s3://"):
        import_encoder(config.model_copy(update={"weights": remote}))[0]


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("torch_file", [True, False])
def test_code_in_a_weights_file_does_not_run(tmp_path: Path, torch_file: bool) -> None:
    path, marker = tmp_path / "w.pth", tmp_path / "ran"
    if torch_file:
        torch.save({"state_dict": _Payload(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(_Payload(marker), protocol=2))
    with pytest.raises(WeightsError, match=r"w\.pth"):
        import_encoder(MoCoV3Config.tiny().model_copy(update={"weights": _pin(path)}))[0]
    assert not marker.exists()


def test_positions_of_another_image_size_are_stretched(tmp_path: Path) -> None:
    import timm

    path = _timm_file(tmp_path, img_size=64, num_classes=0)
    config = TimmConfig.tiny().model_copy(update={"weights": _pin(path), "resample_positions": True})
    encoder = imported(config)
    bigger = timm.create_model("test_vit", pretrained=False, img_size=64, num_classes=0).state_dict()
    own = encoder.network.pos_embed
    assert own.shape == (1, 1 + (32 // 16) ** 2, 64)
    given = read_tensors(path)["pos_embed"]
    assert bigger["pos_embed"].shape == given.shape != own.shape
    assert torch.equal(own[:, 0], given[:, 0]), "the [CLS] position stays"
    square = given[:, 1:].reshape(1, 4, 4, 64)
    assert float((own[:, 1:].mean(1) - square.mean((1, 2))).abs().max()) < 0.3 * float(given.std())
    assert torch.isfinite(encoder(_images())).all()
