"""Stage encode, with encoders whose output is known, and with a real one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from components.base import Metrics
from components.cache.parts import PartSplit
from components.cache.reader import CacheSplit, open_cache
from components.cache.shards import shard_name
from components.codecs.config import NoneConfig
from components.collection.images import ImageIndex, index_bytes, open_images, read_table
from components.collection.images import Pixels as ImagePixels
from components.collection.packaged import ScansSource
from components.encoders.base import FrozenEncoder, standardize
from components.errors import ArtifactError, DataError, RetryableError
from components.images.config import DecodeRecipe, ViewRecipe
from flows.stages.encode import run as encode
from flows.stages.encode.params import EncodeParams
from tests.support.collected import PARAMS as COLLECT
from tests.support.collected import Committed, Place, add_scenes
from tests.support.folders import FolderArtifact, make_encoder
from tests.support.ranks import run_ranks
from tests.support.toys import worker

PX = 8
PARAMS = EncodeParams(
    numerics=1,
    batch_size=10,
    views=ViewRecipe(seed=0, n_views=3, crop_area=(0.5, 0.9), flip_prob=0.5),
    max_reject_share=0.0,
)


class Pixels(nn.Module):
    """The representation is the picture itself, so it tells which pixels the encoder saw."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1).flatten(1)


def _pixel_encoder(px: int = PX) -> Callable[[object], FrozenEncoder]:
    return lambda _artifact: FrozenEncoder(Pixels(), dim=px * px, input_px=px, mean=(0, 0, 0), std=(1, 1, 1))


def _place(root: Path, n: int = 24, chunk_size: int = 7, labels: str = "none") -> Place:
    place = Place(root)
    add_scenes(place, 0, n // 2, "cats")
    add_scenes(place, n // 2, n, "dogs")
    place.snapshot(chunk_size)
    place.collect(params=COLLECT.model_copy(update={"labels": labels}))
    codec = FolderArtifact(root / "codec")
    codec.write_json("config.json", NoneConfig(kind="none", channels=3, px=PX).model_dump(mode="json"))
    place.artifacts |= {"codec": codec, "encoder": make_encoder(root / "encoder")}
    return place


def _encode(place: Place, name: str = "a", params: EncodeParams = PARAMS) -> tuple[Metrics, Committed]:
    out = place.output("encode", name)
    metrics = encode.run(params, place, out, worker(place.root))
    return metrics, Committed(out)


def _with(**views: object) -> EncodeParams:
    return EncodeParams.model_validate(PARAMS.model_dump() | {"views": PARAMS.views.model_dump() | views})


def _all(split: CacheSplit, view: int = 0) -> dict[str, Tensor]:
    return dict(split.rows(range(len(split)), view))


def test_every_representation_is_of_the_pixels_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "load_encoder", _pixel_encoder())
    cache = open_cache(_encode(_place(tmp_path))[1])
    parts: list[tuple[CacheSplit, int]] = [(cache.training(), view) for view in range(3)]
    for split, view in [*parts, (cache.held_out("val"), 0), (cache.held_out("test"), 0)]:
        batch = _all(split, view)
        pixels = batch["target"].float().div(255)
        expected = standardize(pixels.mean(1).flatten(1))
        assert (batch["representation"] - expected).abs().max() < 1e-4
    views = [_all(cache.training(), view)["target"] for view in range(3)]
    assert all((views[i] != views[j]).flatten(1).any(1).all() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_large_cache_lists_its_shards_and_is_read_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = _place(tmp_path, labels="folder")
    _, small = _encode(place)
    monkeypatch.setattr(encode, "LARGE_BYTES", 0)
    _, large = _encode(place, "b")
    assert [n for n, digest in large.digests().items() if small.digests()[n] != digest] == ["cache.json"]
    whole, parts = open_cache(small).training(), open_cache(large).training()
    assert isinstance(parts, PartSplit)
    assert parts.labels is not None
    assert whole.labels is not None
    assert parts.labels.tolist() == whole.labels.tolist()
    assert all(
        torch.equal(_all(whole, view)[name], rows) for view in (0, 2) for name, rows in _all(parts, view).items()
    )


def test_told_to_stop_it_ends_after_the_shard_at_hand_and_goes_on_with_the_next(tmp_path: Path) -> None:
    place = _place(tmp_path)
    with pytest.raises(RetryableError, match="told to stop"):
        encode.run(PARAMS, place, place.output("encode", "stopped"), worker(tmp_path, stopping=lambda: True))
    first = place.memos("encode")
    assert len(first) == 1
    _, artifact = _encode(place)
    assert first < place.memos("encode")
    assert artifact.digests() == _encode(_place(tmp_path / "other"))[1].digests()


def test_plain_views_are_the_pictures_of_the_index(tmp_path: Path) -> None:
    place = _place(tmp_path, labels="folder")
    metrics, artifact = _encode(place)
    cache = open_cache(artifact)
    index = open_images(place["collect"], place.source, base_only=False)
    assert index.classes == ["cats", "dogs"]
    assert cache.classes == ("cats", "dogs")
    for name, split in (("train", cache.training()), ("val", cache.held_out("val")), ("test", cache.held_out("test"))):
        pictures = index.split(name)
        assert split.keys(range(len(split))) == pictures.keys
        batch = _all(split)
        assert (batch["target"].permute(0, 2, 3, 1).numpy() == pictures.load(range(len(pictures)), PX)).all()
        assert pictures.labels is not None
        assert batch["class"].tolist() == pictures.labels.tolist()
        assert metrics[name] == cache.info.counts[name] == len(pictures)
    z = _all(cache.training())["representation"]
    assert z.mean(1).abs().max() < 1e-5
    assert (z.std(1) - 1).abs().max() < 1e-5


def test_metrics_follow_their_formulas(tmp_path: Path) -> None:
    metrics, artifact = _encode(_place(tmp_path))
    train = open_cache(artifact).training()
    z, other = (_all(train, view)["representation"].double() for view in (0, 1))
    cosines = nn.functional.cosine_similarity(z[:, None], z[None], dim=2)
    n = len(z)
    assert metrics["mean_cosine"] == pytest.approx(float((cosines.sum() - n) / (n * n - n)), abs=1e-6)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(z.T)).numpy()
    assert metrics["participation_ratio"] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert metrics["view_cosine"] == pytest.approx(float(nn.functional.cosine_similarity(z, other).mean()), abs=1e-6)
    assert metrics["reconstruction_mse"] == 0
    assert {"pictures/views.png", "pictures/reconstructions.png", "cache.json"} <= artifact.digests().keys()


def test_one_view_for_all_when_there_is_no_augmentation(tmp_path: Path) -> None:
    metrics, artifact = _encode(_place(tmp_path), params=_with(n_views=1, crop_area=(1, 1), flip_prob=0))
    cache = open_cache(artifact)
    assert cache.info.n_views == 1
    assert "view_cosine" not in metrics


def test_a_bigger_encoder_sees_the_same_window_in_more_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its view shrunk to the codec's size is the codec's view; and it is not an enlarged copy of that."""
    monkeypatch.setattr(encode, "load_encoder", _pixel_encoder(2 * PX))
    train = open_cache(_encode(_place(tmp_path))[1]).training()
    for view in range(3):
        batch = _all(train, view)
        small = batch["target"].float().mean(1)
        small_z = standardize(small.flatten(1))
        large = batch["representation"].reshape(-1, 1, 2 * PX, 2 * PX)
        shrunk = standardize(nn.functional.avg_pool2d(large, 2).flatten(1))
        assert nn.functional.cosine_similarity(small_z, shrunk).min() > 0.97
        blurred = nn.functional.interpolate(small[:, None], scale_factor=2, mode="bicubic")
        assert (standardize(blurred.flatten(1)) - large.flatten(1)).abs().max() > 0.05


def test_new_pictures_cost_only_themselves(tmp_path: Path) -> None:
    place = _place(tmp_path, n=20, chunk_size=10)
    _, first = _encode(place)
    memos = place.memos("encode")
    assert len(memos) == 2
    add_scenes(place, 20, 25)
    place.snapshot(chunk_size=10)
    place.collect("b")
    metrics, second = _encode(place, "b")
    assert metrics["train"] + metrics["val"] + metrics["test"] == 25
    assert len(place.memos("encode") - memos) == 1
    for chunk in ("c00000", "c00001"):
        assert first.digests()[shard_name(chunk)] == second.digests()[shard_name(chunk)]
    assert open_cache(second).training().keys(range(3)) == open_cache(first).training().keys(range(3))


def test_whatever_moves_bits_makes_new_shards_and_nothing_else_does(tmp_path: Path) -> None:
    place = _place(tmp_path, n=20, chunk_size=20)
    changes: list[EncodeParams] = [PARAMS, _with(seed=1), PARAMS.model_copy(update={"numerics": 2})]
    for n, params in enumerate(changes, 1):
        _encode(place, str(n), params)
        assert len(place.memos("encode")) == n
    _encode(place, "again", PARAMS.model_copy(update={"max_reject_share": 0.5}))
    assert len(place.memos("encode")) == 3
    state = NoneConfig(kind="none", channels=1, px=PX).model_dump(mode="json")
    place["codec"].write_json("config.json", state)
    _encode(place, "codec")
    assert len(place.memos("encode")) == 4


def test_a_killed_run_continues_with_the_missing_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = _place(tmp_path, n=24, chunk_size=6)
    (place.pictures / "dogs" / "0019.png").rename(tmp_path / "away.png")
    with pytest.raises(DataError, match=r"dogs/0019\.png is gone"):
        _encode(place)
    done = place.memos("encode")
    assert len(done) == 3
    (tmp_path / "away.png").rename(place.pictures / "dogs" / "0019.png")
    for path in (place.pictures / "cats").iterdir():
        path.unlink()  # shards that exist need no pictures, but for the sheet of held-out ones
    monkeypatch.setattr(encode, "_draw_reconstructions", lambda *_: 0.0)
    _encode(place, "b")
    assert len(place.memos("encode")) == 4


def test_a_representation_without_variance_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "load_encoder", _pixel_encoder())
    place = _place(tmp_path)
    Image.new("RGB", (9, 9), (50, 50, 50)).save(place.pictures / "flat.png")
    place.snapshot()
    place.collect("b")
    with pytest.raises(DataError, match=r"1 of 25 pictures(?s:.)*flat\.png"):
        _encode(place)
    metrics, artifact = _encode(place, "b", PARAMS.model_copy(update={"max_reject_share": 0.05}))
    assert metrics["train"] + metrics["val"] + metrics["test"] == 24
    assert metrics["rejected"] == 1
    assert [row["key"] for row in artifact.read_json("rejects.json")["rejected"]] == ["flat.png"]
    cache = open_cache(artifact)
    for split in (cache.training(), cache.held_out("val"), cache.held_out("test")):
        assert torch.isfinite(_all(split)["representation"]).all()
        assert "flat.png" not in split.keys(range(len(split)))


def test_a_codec_that_is_not_finite_is_refused() -> None:
    target = np.zeros((3, 2), np.float16)
    target[1, 0] = np.inf
    rows = [{"key": name} for name in "abc"]
    with pytest.raises(ArtifactError, match=r"not finite(?s:.)*b"):
        encode._usable(rows, np.ones((3, 4), np.float32), target)


def test_a_picture_left_out_of_all_splits_is_not_encoded(tmp_path: Path) -> None:
    facts = {"sha256": "", "size": 1, "width": 1, "height": 1, "hash": bytes(16), "constant": False}
    notes = {"label": None, "caption": None}
    splits = ["train", "none", "val", "none", "test"]
    rows = [{"key": str(i), "split": split} | facts | notes for i, split in enumerate(splits)]
    (tmp_path / "index.arrow").write_bytes(index_bytes(rows))
    pixels = ImagePixels(ScansSource(), DecodeRecipe(background=(0, 0, 0), max_pixels=1), 1, 0)
    groups = encode._groups(ImageIndex(read_table([tmp_path / "index.arrow"]), pixels, None), 2)
    assert [[row["position"] for row in group] for group in groups] == [[0, 2], [4]]


def _encode_as_rank(rank: int, n: int, root: str) -> tuple[Metrics, dict[str, str]]:
    place = _place(Path(root) / f"rank{rank}")  # the same pictures twice, but one store
    place.root = Path(root)
    out = place.output("encode", f"rank{rank}")
    metrics = encode.run(PARAMS, place, out, worker(Path(root), rank=rank, world_size=n))
    return metrics, {name: entry.sha256 for name, entry in out.files.items()}


@pytest.mark.processes
def test_two_ranks_make_the_artifact_of_one(tmp_path: Path) -> None:
    [(metrics, whole)] = run_ranks(
        1, _encode_as_rank, str(tmp_path / "one")
    )  # threads move low bits, so alone like two
    (first, files), (second, others) = run_ranks(2, _encode_as_rank, str(tmp_path / "two"))
    assert (first, second) == (metrics, {})
    assert files == whole
    assert set(others) == {shard_name("c00002"), shard_name("c00003")}
