"""Stage collect, on real files and a real store."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.collection.images import index_name, index_schema, open_images, read_table
from components.collection.source import FolderSource
from components.errors import ConfigError, DataError, TamperedError
from flows.stages.collect import run as collect
from flows.stages.collect.params import CollectParams
from tests.support.archives import write_zip
from tests.support.collected import PARAMS, Committed, Place, add_scenes, scene, write
from tests.support.odd_pictures import odd_pictures
from tests.support.ranks import run_ranks
from tests.support.toys import worker


def _rows(artifact: Committed) -> dict[str, dict[str, object]]:
    names = [chunk["name"] for chunk in artifact.read_json("collection.json")["chunks"]]
    table = read_table([artifact.path(index_name(name)) for name in names])
    return {row["key"]: row for row in table.to_pylist()}


def _with(**changes: object) -> CollectParams:
    return CollectParams.model_validate(PARAMS.model_dump() | changes)


def _save_every_kind(root: Path) -> list[str]:
    """One file of every format and mode; all decodable."""
    picture = scene(1000)
    alpha = Image.fromarray(np.linspace(0, 255, 480).reshape(20, 24).astype(np.uint8))
    with_alpha = scene(1001).copy()
    with_alpha.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = Image.fromarray(np.asarray(scene(1002).convert("L")).astype(np.uint16) * 257)
    files = {
        "rgb.png": (picture, {}),
        "gray.png": (scene(1003).convert("L"), {}),
        "bits.png": (scene(1004).convert("1"), {}),
        "palette.png": (scene(1005).quantize(32), {"transparency": 3}),
        "rgba.png": (with_alpha, {}),
        "la.png": (with_alpha.convert("LA"), {}),
        "sixteen.png": (sixteen, {}),
        "sixteen.tiff": (sixteen, {}),
        "turned.jpg": (scene(1006), {"exif": exif}),
        "cmyk.jpeg": (scene(1007).convert("CMYK"), {}),
        "photo.webp": (scene(1008), {}),
        "first.GIF": (scene(1009).quantize(64), {"save_all": True, "append_images": [scene(1010).quantize(64)]}),
        "sub/old.bmp": (scene(1011), {}),
        "sub/deep/plain.pgm": (scene(1012).convert("L"), {}),
        "tall.png": (scene(1013, (7, 90)), {}),
    }
    for name, (image, options) in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name, **options)  # type: ignore[arg-type]
    return sorted(files)


def test_every_kind_of_picture_is_taken_and_what_is_none_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    names = _save_every_kind(place.pictures)
    truncated = (place.pictures / "rgb.png").read_bytes()[:-300]
    Image.new("1", (400, 300)).save(place.pictures / "huge.png")
    write(place, {"text.png": b"not a picture", "cut.png": truncated, "empty.jpg": b"", "notes.txt": b"ignored"})
    place.snapshot()
    metrics, artifact = place.collect(params=_with(max_reject_share=0.3))
    rows = _rows(artifact)
    assert sorted(rows) == names
    assert (metrics["images"], metrics["rejected"], metrics["chunks"]) == (15, 4, 3)
    for name, row in rows.items():
        data = (place.pictures / name).read_bytes()
        assert (row["sha256"], row["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (rows["turned.jpg"]["width"], rows["turned.jpg"]["height"]) == (20, 24)
    rejected = {row["key"]: row["why"] for row in artifact.read_json("rejects.json")["rejected"]}
    assert set(rejected) == {"text.png", "cut.png", "empty.jpg", "huge.png"}
    assert "max_pixels" in rejected["huge.png"]
    assert "damaged" in rejected["cut.png"]
    index = open_images(artifact, place.source, base_only=True)
    assert index.load(range(len(index)), 16).shape == (15, 16, 16, 3)


def test_a_linked_folder_is_read_through_its_links(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    (tmp_path / "dvc").mkdir()
    for i in range(6):
        (place.pictures / f"{i:04d}.png").rename(tmp_path / "dvc" / f"{i}.png")
        (place.pictures / f"{i:04d}.png").symlink_to(tmp_path / "dvc" / f"{i}.png")
    place.snapshot(follows_links=True)
    metrics, artifact = place.collect()
    assert metrics["images"] == 12
    index = open_images(artifact, place.source, base_only=True)
    assert index.load(range(12), 16).shape == (12, 16, 16, 3)


def test_cases_that_people_met(tmp_path: Path) -> None:
    """All odd pictures at once: only broken pixels and what needs another decoder are refused, and names are told."""
    place = Place(tmp_path)
    odd_pictures().main(str(place.pictures))
    add_scenes(place, 0, 12)
    place.snapshot()
    source = FolderSource(place.pictures)
    listed = {item.key for item in source.list()}
    assert {"B13/phone.jfif", "B13/phone.jpe", "B13/phone.avif", "B12/birds/1.png"} <= listed
    assert str(source.left_out).startswith("1 .heic, 1 by names")
    assert "Mu\\xf1oz.png" in str(source.left_out)
    metrics, artifact = place.collect(params=_with(labels="metadata"))
    rejected = {row["key"]: row["why"] for row in artifact.read_json("rejects.json")["rejected"]}
    assert set(rejected) == {"B07/crc-of-pixels.png"}
    assert "IDAT" in rejected["B07/crc-of-pixels.png"]
    assert _rows(artifact)["B12/birds/1.png"]["label"] == "sparrow"
    assert (metrics["labeled"], metrics["unmatched_metadata"]) == (1, 0)


def test_too_many_rejects_fail_by_name(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    write(place, {f"bad{i}.png": b"no" for i in range(4)})
    place.snapshot()
    with pytest.raises(DataError, match=r"4 of 16 files(?s:.)*bad0\.png(?s:.)*at most 20"):
        place.collect()
    assert place.collect("b", _with(max_reject_share=0.25))[0]["rejected"] == 4


def test_all_corrupt_fails(tmp_path: Path) -> None:
    place = Place(tmp_path)
    write(place, {f"{i}.png": b"no %d" % i for i in range(5)})
    place.snapshot()
    with pytest.raises(DataError, match="5 of 5 files"):
        place.collect(params=_with(max_reject_share=0.99))


def test_new_pictures_cost_only_themselves_and_move_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 30)
    place.snapshot(chunk_size=10)
    params = _with(base=["c00000", "c00001"])
    _, first = place.collect("a", params)
    memos = place.memos("collect")
    assert len(memos) == 3
    damaged = place.pictures / "0003.png"
    damaged.write_bytes(bytes(damaged.stat().st_size))  # an old file; it must not be read again
    add_scenes(place, 30, 45, "new")
    with pytest.raises(DataError, match=r"0003\.png"):
        place.snapshot(chunk_size=10)  # a snapshot does see it
    scene(3).save(damaged)
    place.snapshot(chunk_size=10)
    damaged.write_bytes(bytes(damaged.stat().st_size))
    metrics, second = place.collect("b", params)
    assert metrics["images"] == 45
    assert len(place.memos("collect") - memos) == 2
    moved = {name for name, digest in first.digests().items() if second.digests()[name] != digest}
    assert moved <= {"collection.json", "pictures/samples.png"}  # neither facts, index nor base.json
    with pytest.raises(DataError, match=r"0003\.png has changed"):
        open_images(second, place.source, base_only=True).load([3], 8)


def test_base_holds_the_digests_of_its_chunks(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 24)
    place.snapshot()
    metrics, artifact = place.collect(params=_with(base=["c00002"]))
    base = artifact.read_json("base.json")
    assert [chunk["name"] for chunk in base["chunks"]] == ["c00002"]
    assert base["chunks"][0]["sha256"] == artifact.digests()[index_name("c00002")]
    assert metrics["base_chunks"] == 1
    assert open_images(artifact, place.source, base_only=True).keys == [f"{i:04d}.png" for i in range(16, 24)]
    with pytest.raises(ConfigError, match="c00009"):
        place.collect("b", _with(base=["c00009"]))


def test_near_duplicates_share_a_split_across_chunks(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 20)
    for i in range(20):
        scene(i, (48, 40)).save(place.pictures / f"z{i:04d}.jpg", quality=80)
    place.snapshot(chunk_size=7)
    metrics, artifact = place.collect()
    rows = _rows(artifact)
    assert all(rows[f"{i:04d}.png"]["split"] == rows[f"z{i:04d}.jpg"]["split"] for i in range(20))
    assert metrics["near_duplicates"] == 20
    assert len({row["split"] for row in rows.values()}) == 3


def test_labels_and_captions_from_metadata(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    lines = [f"{i:04d}.png,{i % 3},picture {i}" for i in range(10)] + ["gone.png,5,", "0004.png,,four"]
    write(place, {"metadata.csv": "\n".join(["file_name,label,text", *lines]).encode()})
    place.snapshot()
    metrics, artifact = place.collect(params=_with(labels="metadata"))
    rows = _rows(artifact)
    assert [rows[f"{i:04d}.png"]["label"] for i in (0, 4, 11)] == ["0", "1", None]
    assert [rows[f"{i:04d}.png"]["caption"] for i in (4, 5, 11)] == [["picture 4", "four"], ["picture 5"], None]
    assert artifact.read_json("base.json")["classes"] == ["0", "1", "2"]
    assert (metrics["labeled"], metrics["classes"], metrics["unmatched_metadata"]) == (10, 3, 1)
    assert artifact.read_json("rejects.json")["unmatched"] == ["gone.png"]
    _, unlabeled = place.collect("b")
    assert unlabeled.read_json("base.json")["classes"] is None
    assert _rows(unlabeled)["0004.png"]["caption"] == ["picture 4", "four"]
    (place.pictures / "metadata.csv").write_bytes(b"file_name\n")
    with pytest.raises(DataError, match=r"metadata\.csv has changed"):
        place.collect("c")


def test_captions_of_no_picture_are_refused_by_name(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    write(place, {"metadata.csv": b"file_name,text\n0001.png,one\n0O02.png,two\nsub/3.png,\n"})
    place.snapshot()
    with pytest.raises(DataError, match=r"captions for 1 picture(?s:.)*0O02\.png") as refused:
        place.collect()
    assert "sub/3.png" not in str(refused.value)


def test_labels_from_folders(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 6, "cats")
    add_scenes(place, 6, 12, "dogs")
    add_scenes(place, 12, 14)
    place.snapshot()
    _, artifact = place.collect(params=_with(labels="folder"))
    index = open_images(artifact, place.source, base_only=False)
    assert index.classes == ["cats", "dogs"]
    assert index.labels is not None
    assert index.labels.tolist() == [-1] * 2 + [0] * 6 + [1] * 6


@pytest.mark.parametrize("labels", ["metadata", "folder"])
def test_labels_that_are_not_there_are_missed(tmp_path: Path, labels: str) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    place.snapshot()
    with pytest.raises(DataError, match=f"collect.labels is {labels}"):
        place.collect(params=_with(labels=labels))


def test_constant_pictures_are_legal_and_counted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 10)
    Image.new("RGB", (9, 9), (3, 4, 5)).save(place.pictures / "flat.png")
    place.snapshot()
    metrics, artifact = place.collect()
    assert metrics["constant"] == 1
    assert [key for key, row in _rows(artifact).items() if row["constant"]] == ["flat.png"]


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 3)
    place.snapshot()
    with pytest.raises(DataError, match="no picture fell into"):
        place.collect()


def test_a_source_that_does_not_match_the_lock_is_refused_by_name(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    place.snapshot()
    content = (place.pictures / "0005.png").read_bytes()
    (place.pictures / "0005.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"0005\.png has changed since the snapshot"):
        place.collect()
    (place.pictures / "0005.png").write_bytes(content + b"!")
    with pytest.raises(DataError, match=r"0005\.png.*not the same"):
        place.collect("b")
    (place.pictures / "0005.png").unlink()
    with pytest.raises(DataError, match=r"0005\.png.*missing"):
        place.collect("c")
    shutil.rmtree(place.pictures)
    with pytest.raises(ConfigError, match="does not exist"):
        place.collect("d")


def test_a_picture_that_vanishes_while_the_stage_runs_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    place.snapshot(chunk_size=4)
    out = place.output("collect", "a")
    memoised = out.memoised

    def vanish(name: str, key: str, make: object) -> object:
        if name == "facts/c00001.arrow":
            (place.pictures / "0006.png").unlink()
        return memoised(name, key, make)  # type: ignore[arg-type]

    out.memoised = vanish  # type: ignore[method-assign, assignment]
    with pytest.raises(DataError, match=r"0006\.png is gone"):
        collect.run(PARAMS, place, out, worker(tmp_path))


def test_an_edited_or_absent_lock_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    with pytest.raises(DataError, match="rcg snapshot"):
        place.collect()
    place.snapshot()
    place.lock.write_bytes(place.lock.read_bytes().replace(b"0003.png", b"0033.png"))
    with pytest.raises(TamperedError, match="digest"):
        place.collect()


def test_numerics_and_the_decode_recipe_force_new_facts(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 12)
    place.snapshot(chunk_size=12)
    for n, params in enumerate(
        [PARAMS, _with(numerics=2), _with(decode={"background": (0, 0, 0), "max_pixels": 100_000}), PARAMS], 1
    ):
        place.collect(str(n), params)
        assert len(place.memos("collect")) == min(n, 3)


def _collect_as_rank(rank: int, n: int, root: str) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    place = Place(Path(root))
    out = place.output("collect", f"rank{rank}")
    metrics = collect.run(PARAMS, place, out, worker(place.root, rank=rank, world_size=n))
    return metrics, {name: entry.sha256 for name, entry in out.files.items()}, out.keys


@pytest.mark.processes
def test_two_ranks_make_the_artifact_of_one(tmp_path: Path) -> None:
    place, apart = Place(tmp_path / "one"), Place(tmp_path / "two")
    for each in (place, apart):
        add_scenes(each, 0, 20)
        each.snapshot(chunk_size=4)
    metrics, artifact = place.collect()
    (first, files, keys), (second, others, other_keys) = run_ranks(2, _collect_as_rank, str(apart.root))
    assert (first, second) == (metrics, {})
    assert files == artifact.digests()
    assert set(others) == {f"facts/c{i:05d}.arrow" for i in (2, 3, 4)}
    assert all(keys[name] == other_keys[name] for name in others)


def test_a_split_that_near_duplicates_fill_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 20)
    for i in range(60):
        scene(9, (40 + i, 40)).save(place.pictures / f"z{i:04d}.jpg", quality=80)
    place.snapshot()
    _, artifact = place.collect()
    assert {row["split"] for key, row in _rows(artifact).items() if key.startswith("z")} == {"test"}
    (told,) = (record.getMessage() for record in caplog.records if "near_bits" in record.getMessage())
    assert "fell into test, where 20% were asked for" in told


def test_a_group_stays_together_and_odd_groups_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 60)
    lines = [f"{i:04d}.png,{'' if i == 7 else i % 20}\n" for i in range(60)]
    write(place, {"metadata.csv": ("file_name,group\n" + "".join(lines)).encode()})
    place.snapshot()
    metrics, artifact = place.collect("a")
    rows = _rows(artifact)
    assert set(rows["0000.png"]) == {field.name for field in index_schema()}
    splits = {i: rows[f"{i:04d}.png"]["split"] for i in range(60)}
    assert all(splits[i] == splits[i + 20] == splits[i + 40] for i in range(20) if i != 7)
    assert (metrics["groups"], metrics["grouped"]) == (20, 59)
    assert [record.getMessage() for record in caplog.records] == ["1 of 60 pictures are in no group: 0007.png"]
    caplog.clear()
    write(place, {"metadata.csv": ("file_name,group\n" + "".join(f"{i:04d}.png,one\n" for i in range(15))).encode()})
    place.snapshot()
    place.collect("b")
    assert "group one has 15 of them, and a split may have no more than 12" in caplog.text
    write(place, {"metadata.csv": ("file_name,group\n" + "".join(f"{i:04d}.png,one\n" for i in range(60))).encode()})
    place.snapshot()
    with pytest.raises(DataError, match=r"no picture fell into(?s:.)*group one has 60 of them(?s:.)*smaller groups"):
        place.collect("c")


def test_without_groups_the_artifact_is_as_ever(tmp_path: Path) -> None:
    place = Place(tmp_path)
    add_scenes(place, 0, 30)
    place.snapshot()
    plain, artifact = place.collect("a")
    write(place, {"metadata.csv": b"file_name,style,group\n0001.png,flat,\n"})
    place.snapshot()
    metrics, again = place.collect("b")
    assert (metrics, again.digests()) == (plain, artifact.digests())
    assert "groups" not in plain


def test_an_unpacked_archive_is_the_same_collection(tmp_path: Path) -> None:
    """The folder, and the archive of it: equal artifacts, whose pictures load from either."""
    here, packed = Place(tmp_path / "here"), Place(tmp_path / "packed")
    add_scenes(here, 0, 30, "in")
    write(here, {"metadata.csv": b"file_name,text\nin/0003.png,a scene\n"})
    files = {str(f.relative_to(here.pictures)): f.read_bytes() for f in here.pictures.rglob("*") if f.is_file()}
    packed.pictures = write_zip(tmp_path / "packed.zip", files)
    for place in (here, packed):
        place.snapshot()
    (_, one), (metrics, other) = here.collect(), packed.collect()
    assert one.digests() == other.digests()
    assert metrics["images"] == 30
    loaded = [open_images(other, place.source, base_only=False).load(range(30), 8) for place in (here, packed)]
    assert (loaded[0] == loaded[1]).all()
