"""Archives: what is said beside pictures, and what damaged or hostile ones come to."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from components.collection.archives import directory, parquet, parquet_pages
from components.collection.lock import read_lock
from components.collection.metadata import read_notes
from components.collection.snapshot import take_snapshot
from components.collection.source import FolderSource, open_source
from components.errors import DataError
from tests.support.archives import pgm, write_folder, write_parquet, write_tar, write_zip

FOUR = {f"{i}.pgm": pgm(i) for i in range(4)}


def _keys(path: Path) -> list[str]:
    return [item.key for item in open_source(str(path)).list()]


def _said(path: Path, lock: Path) -> dict[str, tuple[str | None, tuple[str, ...], str | None]]:
    source = open_source(str(path))
    take_snapshot(source, lock, rebuild=False)
    return {key: tuple(note) for key, note in read_notes(source, read_lock(lock).metadata).items()}


def test_webdatasets_sidecars_become_metadata(tmp_path: Path) -> None:
    beside = {
        "a/0.json": b'{"caption": ["one", "two"], "label": 7, "group": "g", "width": 2}',
        "a/0.cls": b"3\n",
        "a/1.left.pgm": pgm(8),
        "a/1.txt": "a café\n".encode(),
        "a/2.json": b"[1]",
        "nobody.txt": b"of no picture",
        "readme.md": b"",
    }
    files = beside | {f"a/{name}": data for name, data in FOUR.items()} | {"a/9.seg.png": b"x"}
    path = write_tar(tmp_path / "x.tar", files)
    assert _said(path, tmp_path / "lock") == {
        "a/0.pgm": ("3", ("one", "two"), "g"),
        "a/1.pgm": (None, ("a café",), None),
        "a/1.left.pgm": (None, ("a café",), None),
    }
    source = open_source(str(path))
    assert len(list(source.list())) == 7
    assert str(source.left_out) == "1 .json, 1 .md, 1 .txt"


def test_an_archives_own_metadata_wins(tmp_path: Path) -> None:
    files = FOUR | {"0.txt": b"no", "metadata.csv": b"file_name,text\n0.pgm,yes\n"}
    assert _said(write_zip(tmp_path / "x.zip", files), tmp_path / "lock") == {"0.pgm": (None, ("yes",), None)}


def test_columns_of_parquet_become_metadata(tmp_path: Path) -> None:
    more = {"label": [0, 1, -1, 1], "text": [["a", "b"], ["c"], [], None], "group": [None, "g", None, None]}
    path = write_parquet(tmp_path / "x.parquet", list(FOUR.items()), more, classes=["cat", "dog"])
    assert _said(path, tmp_path / "lock") == {
        "0.pgm": ("cat", ("a", "b"), None),
        "1.pgm": ("dog", ("c",), "g"),
        "3.pgm": ("dog", (), None),
    }


@pytest.mark.parametrize("name", ["0.pgm", None, "../0.pgm", "/home/me/0.pgm", "0", "a\nb.pgm"])
def test_rows_without_a_usable_path_go_by_number(tmp_path: Path, name: str | None) -> None:
    rows = [("0.pgm", pgm(0)), (name, pgm(1)), ("2.pgm", None), ("3.pgm", b"GIF8"), ("4.pgm", b"what?")]
    path = write_parquet(tmp_path / "x.parquet", rows)
    source = open_source(str(path))
    assert [item.key for item in source.list()] == ["000000000.pgm", "000000001.pgm", "000000003.gif"]
    assert source.read("000000001.pgm") == pgm(1)
    assert source.left_out.n == 2


def test_parquet_is_read_on_and_back_with_few_pictures_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 600)
    rows = [(f"{i:03d}.pgm", pgm(i, 8)) for i in range(100)]
    source = open_source(str(write_parquet(tmp_path / "x.parquet", rows, group_rows=37)))
    for i in [0, 99, 50, 49, 36, 37, 38, 0, *range(100), *range(99, -1, -7)]:
        assert source.read(f"{i:03d}.pgm") == rows[i][1]


def test_a_folder_with_pictures_stays_one_and_archives_are_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", FOUR)
    write_tar(root / "x.tar", FOUR)
    source = open_source(str(root))
    assert isinstance(source, FolderSource)
    assert [item.key for item in source.list()] == sorted(FOUR)
    assert str(source.left_out) == "1 .tar"


def test_hidden_members_links_and_pipes_are_no_pictures(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (
            ("./a.pgm", tarfile.REGTYPE),
            ("link.pgm", tarfile.SYMTYPE),
            ("hard.pgm", tarfile.LNKTYPE),
            ("pipe.pgm", tarfile.FIFOTYPE),
            ("d.pgm", tarfile.DIRTYPE),
            (".x/b.pgm", tarfile.REGTYPE),
            ("__MACOSX/._a.pgm", tarfile.REGTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"abc"))
    source = open_source(str(tmp_path / "x.tar"))
    assert [item.key for item in source.list()] == ["a.pgm"]
    assert str(source.left_out) == "3 that is no file"
    assert source.read("a.pgm") == b"abc"


@pytest.mark.parametrize("name", ["../a.pgm", "a/../../b.pgm", "/etc/a.pgm", "//a.pgm"])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str, write: object) -> None:
    path = write(tmp_path / f"x.{write.__name__[6:]}", {name: b"x"})  # type: ignore[operator, attr-defined]
    with pytest.raises(DataError, match=r"x\.(tar|zip): a member's name leads out(.|\n)*pgm"):
        _keys(path)


@pytest.mark.parametrize("twice", [("a.pgm", "./a.pgm"), ("a.pgm", "a.pgm"), ("a.txt", "./a.txt")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path, twice: tuple[str, str]) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar, zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in twice:
            tar.addfile(tarfile.TarInfo(name))
            file.writestr(name, b"")
    for end in ("tar", "zip"):
        with pytest.raises(DataError, match=rf"x\.{end} holds two members of one name(.|\n)*{twice[0]}"):
            _keys(tmp_path / f"x.{end}")


def test_two_archives_of_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("a.tar", "a/b.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / name, FOUR)
    with pytest.raises(DataError, match=r"a\.tar and a/b\.tar"):
        _keys(tmp_path)


@pytest.mark.parametrize("keep", [100, 1024, 1536, 1700, 2048, 4096])
def test_a_tar_that_was_cut_off_is_named_with_its_last_member(tmp_path: Path, keep: int) -> None:
    path = write_tar(tmp_path / "x.tar", FOUR)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"x\.tar is damaged or cut off"):
        _keys(path)
    if keep == 2048:
        with pytest.raises(DataError, match=r"after its member 1\.pgm"):
            _keys(path)


def test_a_damaged_heading_in_the_middle_of_a_tar_is_no_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FOUR)
    data = bytearray(path.read_bytes())
    data[1024 + 150] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tar is damaged or cut off after its member 0\.pgm"):
        _keys(path)


def test_a_compressed_tar_is_told_from_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.pgm"))
    with pytest.raises(DataError, match="uncompressed tar"):
        _keys(tmp_path / "x.tar")


def test_a_heading_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 2**32
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(member.tobuf())
        file.truncate(2**32 + 10240)
    with pytest.raises(DataError, match="announces a heading"):
        _keys(tmp_path / "x.tar")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "x.zip", FOUR, method)
    data = bytearray(path.read_bytes())
    at = data.index(b"2.pgm") + len("2.pgm") + 4
    data[at] ^= 0xFF
    path.write_bytes(data)
    source = open_source(str(path))
    assert len(list(source.list())) == 4
    assert source.read("1.pgm") == pgm(1)
    for read in (source.read, source.content_pin):
        with pytest.raises(DataError, match=r"x\.zip is damaged: its member 2\.pgm"):
            read("2.pgm")


def test_a_zip_that_lies_about_its_sizes_is_bounded(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.pgm": bytes(50 * 2**20), "b.pgm": b"x" * 9})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    source = open_source(str(path))
    assert {item.key: item.size for item in source.list()}["a.pgm"] == 1000
    with pytest.raises(DataError, match=r"its member a\.pgm"):
        source.read("a.pgm")


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FOUR)
    data = bytearray(path.read_bytes())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    path.write_bytes(data)
    with pytest.raises(DataError, match="overlaps another"):
        _keys(path)


def test_what_is_larger_than_any_picture_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MOST_BYTES", 1000)
    source = open_source(str(write_zip(tmp_path / "x.zip", FOUR | {"bomb.pgm": bytes(1001)})))
    assert len(list(source.list())) == 4
    assert str(source.left_out) == "1 larger than any picture"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused_by_name(tmp_path: Path, method: int) -> None:
    with pytest.raises(DataError, match=r"x\.zip: its member 0\.pgm is packed by method"):
        _keys(write_zip(tmp_path / "x.zip", FOUR, method))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FOUR)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0\.pgm is encrypted"):
        _keys(path)


@pytest.mark.parametrize("end", ["zip", "parquet", "tar"])
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 what", b"PAR1" + bytes(100) + b"PAR1", bytes(100)])
def test_what_only_has_the_name_of_an_archive_is_refused(tmp_path: Path, end: str, data: bytes) -> None:
    (tmp_path / f"x.{end}").write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.{end} is damaged"):
        _keys(tmp_path / f"x.{end}")


def test_a_damaged_page_of_parquet_names_its_row_group(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [(f"{i}.pgm", pgm(i, 40)) for i in range(6)])
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.parquet is damaged in row group 0"):
        _keys(path)


@pytest.mark.parametrize(("most", "refused"), [("_MOST_BYTES", False), ("_MOST_DICTIONARY_BYTES", True)])
@pytest.mark.parametrize("path", ["", "named.pgm"])
def test_a_page_that_unpacks_to_far_more_than_it_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, path: str, refused: bool
) -> None:
    """Of the pictures, or of their names; what repeats lies in a dictionary."""
    monkeypatch.setattr(parquet_pages, most, 10_000)
    rows = [(f"{path}{i}.pgm", pgm(1, 300)) for i in range(6)]
    file = write_parquet(tmp_path / "x.parquet", rows, group_rows=6, compression="gzip")
    if not refused:
        assert len(_keys(file)) == 6
        return
    with pytest.raises(DataError, match=r"x\.parquet holds a page that unpacks to far more[\s\S]*that become 90"):
        _keys(file)


def test_more_rows_than_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_FEW_ROWS", 1000)
    path = write_parquet(tmp_path / "x.parquet", [(None, None)] * 10_000, group_rows=10_000)
    with pytest.raises(DataError, match=r"x\.parquet is damaged[\s\S]*10000 rows in"):
        _keys(path)


def test_a_table_without_pictures_or_with_two_columns_of_them_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for columns, what in (({"x": pa.array([1])}, "no column"), ({"a": [b"x"], "b": [b"y"]}, "several columns")):
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=f"{what} of pictures"):
            _keys(tmp_path / "x.parquet")


@pytest.mark.parametrize("blocks", [-1, -2, -3, 2**60])
def test_a_tar_whose_member_has_a_size_that_none_can_have_ends(tmp_path: Path, blocks: int) -> None:
    member = tarfile.TarInfo("a.pgm")
    member.size = blocks * tarfile.BLOCKSIZE
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"abc" + bytes(10237))
    with pytest.raises(DataError, match="damaged or cut off"):
        _keys(tmp_path / "x.tar")


def test_a_zip_with_a_place_beyond_64_bits_is_damaged(tmp_path: Path) -> None:
    """The extra field of zip64 says where a member lies."""
    path = write_zip(tmp_path / "x.zip", {"a.pgm": pgm(1)})
    data, extra = bytearray(path.read_bytes()), struct.pack("<HHQ", 1, 8, 2**64 - 1)
    entry, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<I", end - entry + len(extra))
    data[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    data[entry + 42 : entry + 46] = b"\xff" * 4
    data[end:end] = extra
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip is damaged"):
        _keys(path)


def test_a_parquet_file_whose_text_is_none_is_damaged(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [("a.pgm", pgm(1)), ("b.pgm", pgm(2))], {"text": ["<caption>"] * 2})
    path.write_bytes(path.read_bytes().replace(b"<caption>", b"\xff\xfeaption>"))
    with pytest.raises(DataError, match=r"x\.parquet is damaged"):
        _keys(path)
