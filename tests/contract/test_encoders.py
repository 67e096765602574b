"""What every encoder promises, asked of each member of the union."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from components.encoders.base import CONFIG, WEIGHTS, FrozenEncoder, load_encoder, saved_config
from components.encoders.config import EncoderModel
from components.errors import ShapeError, WeightsError
from components.interop.encoders import import_encoder
from components.weights import save_weights
from components.weights_file import WeightsFile
from tests.support.folders import FolderArtifact, randomize

OUTPUTS = {
    "mocov3": ("projector", "cls"),
    "dino": ("projector", "cls"),
    "deit": ("projector", "cls"),
    "clip": ("projector", "cls"),
}
CONFIGS = [
    tiny.model_copy(update={"output": output})
    for tiny in (member.tiny() for member in get_args(EncoderModel))
    for output in OUTPUTS.get(tiny.kind, (tiny.output,))
]
CONFIGS += [c.model_copy(update={"kind": "ibot"}) for c in CONFIGS if c.kind == "dino"]


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}-{c.output}")
def config(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def encoder(config: Any) -> FrozenEncoder:
    built: FrozenEncoder = config.build()
    randomize(built.network)
    return built


def pictures(n: int, px: int = 40) -> torch.Tensor:
    return torch.rand(n, 3, px, px, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n", [1, 3])
def test_representations_are_standardized(encoder: FrozenEncoder, config: Any, n: int) -> None:
    assert encoder(pictures(0)).shape == (0, config.dim)
    z = encoder(pictures(n))
    assert z.shape == (n, config.dim)
    assert z.dtype == torch.float32
    assert encoder.dim == config.dim
    torch.testing.assert_close(z.mean(1), torch.zeros(n), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(1), torch.ones(n), atol=1e-4, rtol=0)


def test_rows_do_not_depend_on_each_other(encoder: FrozenEncoder) -> None:
    images = pictures(3)
    alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), alone, rtol=1e-4, atol=1e-4)


def test_it_is_frozen_and_stays_in_eval_mode(encoder: FrozenEncoder) -> None:
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.train().modules())


def test_saved_and_loaded_is_equal(encoder: FrozenEncoder, config: Any, tmp_path: Path) -> None:
    out = FolderArtifact(tmp_path)
    save_weights(out.path(WEIGHTS), encoder.network.state_dict())
    out.write_json(CONFIG, saved_config(config))
    assert torch.equal(load_encoder(out)(pictures(2)), encoder(pictures(2)))


@pytest.mark.usefixtures("wrong_shapes")
def test_refuses_what_is_not_images(encoder: FrozenEncoder) -> None:
    for images in (torch.rand(3, 40, 40), torch.zeros(2, 3, 40, 40, dtype=torch.uint8), torch.rand(2, 1, 40, 40)):
        with pytest.raises(ShapeError, match="images"):
            encoder(images)


def test_absent_weights_say_how_to_record_them(config: Any, tmp_path: Path) -> None:
    absent = WeightsFile(uri=str(tmp_path / "vit.pth"), sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"called vit\.pth(.|\n)*sha256sum(.|\n)*encoder\.model\.weights\.sha256"):
        import_encoder(config.model_copy(update={"weights": absent}))
