"""Sets of pictures: folders and ADM's .npz, and what is wrong with those that are none."""

import contextlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.errors import ConfigError, DataError, MissingError
from flows.evaluation.sets import Every, First, Folder, Npz, open_set

_IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), np.uint8)


def _folder(root: Path, images: Any = _IMAGES) -> Path:
    root.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(root / f"{i:04d}.png")
    return root


def _all(pictures: Any, size: int = 3) -> np.ndarray:
    return np.concatenate(list(pictures.batches(size)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_folder_and_an_npz_give_the_same_pictures(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", _IMAGES)
    npz, folder = open_set(str(tmp_path / "a.npz"), None), open_set(str(_folder(tmp_path / "a")), None)
    assert npz.n == folder.n == 7
    assert np.array_equal(_all(npz), _IMAGES)
    assert np.array_equal(_all(folder), _IMAGES)


def test_content_names_a_folder_and_sheets_are_no_pictures(tmp_path: Path) -> None:
    one, other = Folder(_folder(tmp_path / "a"), None), Folder(_folder(tmp_path / "b"), None)
    assert one.digest == other.digest
    for sheet in ("grid.png", "nearest.png", "prompts.png"):
        Image.fromarray(_IMAGES[0].repeat(9, axis=0)).save(tmp_path / "b" / sheet)
    assert Folder(tmp_path / "b", None).digest == one.digest
    Image.fromarray(_IMAGES[1]).save(tmp_path / "b/0000.png")
    assert Folder(tmp_path / "b", None).digest != one.digest


def test_parts_of_a_set(tmp_path: Path) -> None:
    folder = Folder(_folder(tmp_path / "a"), None)
    assert np.array_equal(_all(First(folder, 4)), _IMAGES[:4])
    for start in (0, 1):
        half = Every(folder, start)
        assert np.array_equal(_all(half), _IMAGES[start::2])
        assert half.n == len(_IMAGES[start::2])
    assert len({one.digest for one in (folder, First(folder, 4), Every(folder, 0), Every(folder, 1))}) == 4
    assert First(folder, 7).digest == folder.digest
    with pytest.raises(ConfigError, match="7 in"):
        First(folder, 8)


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    images = [*_IMAGES[:2], np.zeros((9, 4, 3), np.uint8)]
    folder = _folder(tmp_path / "a", images)
    with pytest.raises(DataError, match=r"several sizes[\s\S]*4 x 9 of 0002.png[\s\S]*--px"):
        _all(Folder(folder, None))
    assert _all(Folder(folder, 4)).shape == (3, 4, 4, 3)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"arr_0": _IMAGES.astype(np.float32)}, "float32"),
        ({"arr_0": _IMAGES.transpose(0, 3, 1, 2)}, r"\(n, h, w, 3\) uint8"),
        ({"arr_0": np.asfortranarray(_IMAGES)}, "column by column"),
        ({"images": _IMAGES}, "neither pictures nor statistics"),
        ({"arr_0": np.array([{}], object)}, "does not hold pictures"),
    ],
)
def test_npz_of_another_layout(tmp_path: Path, held: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(DataError, match=message):
        Npz(tmp_path / "a.npz")


def test_stored_statistics(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3), mu_s=np.ones(2), sigma_s=np.eye(2))
    held = Npz(tmp_path / "a.npz").statistics
    assert held is not None
    assert held.spatial is not None
    assert held.spatial.mean.tolist() == [1, 1]
    assert Npz(tmp_path / "a.npz").n == 0
    np.savez(tmp_path / "b.npz", mu=np.zeros(3), sigma=np.eye(2))
    with pytest.raises(DataError, match="are none"):
        _ = Npz(tmp_path / "b.npz").statistics


def test_files_that_are_damaged_or_absent(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", _IMAGES)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no whole"):
        Npz(tmp_path / "cut.npz")
    flipped = bytearray(whole)
    flipped[300] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(DataError, match="damaged"):
        _all(Npz(tmp_path / "flipped.npz"))
    with pytest.raises(MissingError, match="no pictures there"):
        open_set(str(tmp_path / "nothing"), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        Folder(tmp_path / "empty", None)


def _stored(path: Path, shapes: dict[str, tuple[str, str]]) -> Path:
    """An .npz of arrays that have a heading, and 4,096 bytes each."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (shape, kind) in shapes.items():
            text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4096))
    return path


@pytest.mark.parametrize(
    "shape", ["(-1, 2, 2, 3)", "(1, 2, -2, 3)", f"(1, {10**7}, {10**7}, 3)", f"({10**30}, 9, 9, 3)"]
)
def test_npz_with_sides_that_no_pictures_have(tmp_path: Path, shape: str) -> None:
    path = _stored(tmp_path / "a.npz", {"arr_0": (shape, "|u1")})
    with pytest.raises(DataError):
        next(Npz(path).batches(64))


@pytest.mark.parametrize("mean", [f"({10**11},)", f"({10**30},)", "(-3,)"])
def test_statistics_are_no_larger_than_any(tmp_path: Path, mean: str) -> None:
    path = _stored(tmp_path / "a.npz", {"mu": (mean, "<f8"), "sigma": ("(2, 2)", "<f8")})
    with pytest.raises(DataError, match="cannot be read"):
        Npz(path).statistics  # noqa: B018  (a property that reads the file)


def test_a_damaged_npz_is_named_wherever_it_is_damaged(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", arr_0=_IMAGES, mu=np.full(3, np.nan), sigma=np.eye(3))
    with pytest.raises(DataError, match="are none"):
        Npz(tmp_path / "a.npz").statistics  # noqa: B018
    whole = (tmp_path / "a.npz").read_bytes()
    for at in range(0, len(whole), 7):
        (tmp_path / "b.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        with contextlib.suppress(DataError):
            npz = Npz(tmp_path / "b.npz")
            if npz.n:
                _all(npz)
            npz.statistics  # noqa: B018
