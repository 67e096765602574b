"""Make the color collection: public-domain clip art out of Debian's package openclipart-png.

    python examples/clipart.py data/clipart                          about 2,900 pictures, 130 MB to download
    python examples/clipart.py small.zip --n 320 --px 64             a small, shrunk selection (the tests use one)

Needs apt and dpkg-deb (Debian, Ubuntu), but not root. The selection depends on the package alone: pictures whose
shorter side is at least 64 pixels, neither elongated nor nearly blank, no links, no byte-for-byte duplicates. One
folder per class, named after the package's top-level folders; the files are its own, alpha and palette included.
"""

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "openclipart-png"
PICTURES = Path("usr/share/openclipart/png")
LEFT_OUT = (
    "shapes",  # hundreds of nearly equal stars
    "unsorted",
    "special",
    "buttons",
    "logos",  # no class
    "people/clothing/pantyhose",
    "signs_and_symbols/flags/historic",
    "tools/weapons",
)
MIN_PX, MAX_PX, MAX_ASPECT = 64, 2000, 1.5
MIN_INK = 0.1  # share of pixels that differ from the white background
MIN_CONTRAST = 20.0  # standard deviation of the bytes


def unpack(deb: Path | None, folder: Path) -> Path:
    """Download the package, unless given, and unpack it. apt checks its signature."""
    if deb is None:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        deb = next(folder.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "x")], check=True)
    return folder / "x" / PICTURES


def candidates(root: Path) -> Iterator[Path]:
    """Picture files in name order, without links, left-out folders and duplicates."""
    seen: set[bytes] = set()
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or name.startswith(tuple(f"{folder}/" for folder in LEFT_OUT)):
            continue
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            yield path


def is_good(path: Path) -> bool:
    """Large enough, not elongated, not nearly blank on white."""
    with Image.open(path) as picture:
        w, h = picture.size
        if min(w, h) < MIN_PX or max(w, h) > MAX_PX or max(w, h) > MAX_ASPECT * min(w, h):
            return False
        small = shrunk(picture, MIN_PX)
    white = Image.new("RGBA", small.size, "white")
    white.alpha_composite(small)
    pixels = np.asarray(white.convert("RGB"), dtype=np.float64)
    ink = (np.abs(pixels - 255).max(-1) > 24).mean()
    return bool(ink >= MIN_INK and pixels.std() >= MIN_CONTRAST)


def shrunk(picture: Image.Image, px: int) -> Image.Image:
    """RGBA with a shorter side of px, never enlarged."""
    rgba = picture.convert("RGBA")
    scale = px / min(rgba.size)
    size = (max(px, round(rgba.width * scale)), max(px, round(rgba.height * scale)))
    return rgba.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0) if scale < 1 else rgba


def select(root: Path, n: int | None) -> list[Path]:
    """The good candidates; n of them, spread evenly over the list, if given."""
    paths = list(candidates(root))
    with ThreadPoolExecutor(4) as threads:
        good = [path for path, keep in zip(paths, threads.map(is_good, paths), strict=True) if keep]
    return good if n is None else [good[i * len(good) // n] for i in range(min(n, len(good)))]


def flat_name(root: Path, path: Path) -> str:
    """class/rest_of_the_path.png"""
    category, *rest = path.relative_to(root).parts
    return f"{category}/{'_'.join(rest)}"


def write_folder(root: Path, paths: list[Path], target: Path) -> None:
    """The package's own files; an existing folder is replaced whole."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path in paths:
        to = partial / flat_name(root, path)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def write_zip(root: Path, paths: list[Path], target: Path, px: int) -> None:
    """Shrunk pictures in one file, with alpha; equal selections give equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            buffer = io.BytesIO()
            with Image.open(path) as picture:
                shrunk(picture, px).quantize(64, Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
            archive.writestr(zipfile.ZipInfo(flat_name(root, path), (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder to make, or a .zip (then --px applies)")
    parser.add_argument("--n", type=int, help="only so many pictures")
    parser.add_argument("--px", type=int, default=MIN_PX, help="shorter side of the pictures in a .zip")
    parser.add_argument("--deb", type=Path, help="a package file that is already here")
    args = parser.parse_args()
    if shutil.which("dpkg-deb") is None:
        sys.exit("dpkg-deb is not here: this collection is made on Debian or Ubuntu")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked before decoding
    Image.MAX_IMAGE_PIXELS = None
    args.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = unpack(args.deb and args.deb.resolve(), Path(folder))
        paths = select(root, args.n)
        if args.target.suffix == ".zip":
            write_zip(root, paths, args.target, args.px)
        else:
            write_folder(root, paths, args.target)
    sys.stdout.write(f"{len(paths)} pictures in {args.target}\n")


if __name__ == "__main__":
    main()
