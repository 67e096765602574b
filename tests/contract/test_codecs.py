"""What every codec promises, asked of each member of the union."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from components.codecs.base import Codec, load_codec, save_codec
from components.codecs.config import CodecConfig
from components.errors import ShapeError, WeightsError
from components.nn.vit import seeded_init
from tests.support.folders import FolderArtifact

MEMBERS = get_args(get_args(CodecConfig)[0])
SPACES = {"vqgan": ("tokens", "latents")}
CONFIGS = [
    tiny.model_copy(update={"space": space} if space else {})
    for tiny in (member.tiny() for member in MEMBERS)
    for space in SPACES.get(tiny.kind, (None,))
]
CONFIGS += [config.model_copy(update={"posterior": "sample"}) for config in CONFIGS if config.kind == "kl"]


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}-{getattr(c, 'posterior', getattr(c, 'space', 'pixels'))}")
def config(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def codec(config: Any) -> Codec:
    with seeded_init(0):
        built: Codec = config.build()
    return built.requires_grad_(False).eval()


def pictures(codec: Codec, n: int) -> torch.Tensor:
    px = codec.spec.image_px
    return torch.rand(n, 3, px, px, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n", [1, 3])
def test_target_is_what_the_spec_says(codec: Codec, n: int) -> None:
    target = codec.encode(pictures(codec, n))
    assert target.shape == (n, *codec.spec.shape)
    assert str(target.dtype) == f"torch.{codec.spec.dtype}"
    if codec.spec.space == "tokens":
        assert codec.spec.n_codes is not None
        assert 0 <= int(target.min()) <= int(target.max()) < codec.spec.n_codes
    else:
        assert codec.spec.n_codes is None


@pytest.mark.parametrize("n", [1, 3])
def test_decodes_to_images(codec: Codec, n: int) -> None:
    images = codec.decode(codec.encode(pictures(codec, n)))
    assert images.shape == (n, 3, codec.spec.image_px, codec.spec.image_px)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert float(images.std()) > 0


def test_rows_do_not_depend_on_each_other(codec: Codec) -> None:
    images = pictures(codec, 3)
    together = codec.decode(codec.encode(images))
    alone = torch.cat([codec.decode(codec.encode(image[None])) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_is_equal(codec: Codec, config: Any, tmp_path: Path) -> None:
    save_codec(config, codec, FolderArtifact(tmp_path))
    again, images = load_codec(FolderArtifact(tmp_path)), pictures(codec, 2)
    assert again.spec == codec.spec
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert torch.equal(again.encode(images), codec.encode(images))
    assert torch.equal(again.decode(codec.encode(images)), codec.decode(codec.encode(images)))


@pytest.mark.usefixtures("wrong_shapes")
def test_refuses_what_does_not_fit(codec: Codec) -> None:
    px, target = codec.spec.image_px, codec.encode(pictures(codec, 2))
    for images in (torch.rand(2, 3, px + 1, px), torch.rand(3, px, px), torch.zeros(2, 3, px, px, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match="images"):
            codec.encode(images)
    for wrong in (target[:, :-1], target.to(torch.float64)):
        with pytest.raises(ShapeError, match="target"):
            codec.decode(wrong)


def test_weights_of_another_size_are_refused(codec: Codec, config: Any, tmp_path: Path) -> None:
    if not codec.state_dict():
        pytest.skip("this codec has no weights")
    save_codec(config, codec, FolderArtifact(tmp_path))
    other = config.model_copy(update={"width": 2 * config.width})
    FolderArtifact(tmp_path).write_json("config.json", other.model_dump(mode="json"))
    with pytest.raises(WeightsError, match=r"wrong shape: encoder\.conv_in\.weight"):
        load_codec(FolderArtifact(tmp_path))
