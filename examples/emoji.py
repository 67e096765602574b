"""Make the collection of emoji: two drawing styles, ten labels, names and keywords, out of three packages of npm.

    python examples/emoji.py data/emoji                    about 3,750 pictures of 64 px, 84 MB to download
    python examples/emoji.py data/emoji --n 300            only so many pictures, evenly over all of them
    python examples/emoji.py data/emoji --packages FOLDER  the packages are here already (`npm pack` wrote them)

Needs npm, unless the packages are here. They are pinned by sha256 and nothing of them is run. Pictures are laid on
white; skin tones are left out. metadata.csv says of each picture

    label   its group, e.g. food-drink (10)
    group   its concept, e.g. 1f34e: what is the same in both styles, for men and women, and for either direction
            shares it, so that a split never has one half of it
    style   twemoji (flat, CC-BY 4.0, by Twitter and others) or fluent (glossy, MIT, by Microsoft)
    text    three captions, a row for each: the name, name and style, keywords

These are drawings, not photographs.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from components.files import file_sha256

PACKAGES = {
    "twemoji": (
        "emoji-datasource-twitter@16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "fluent": (
        "@lobehub/fluent-emoji-3d@1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "names": ("emojibase-data@17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
}
"""name[@scope]@version of each package, and the sha256 of its file."""
FOLDERS = {"twemoji": "package/img/twitter/64/", "fluent": "package/assets/"}
"""Where the pictures of each style lie in its package."""
STYLES = {"twemoji": "a flat drawing", "fluent": "a glossy 3-D picture"}
PX = 64

TONES = {f"1f3f{i}" for i in "bcdef"}
ANYBODY = {"1f468": "1f9d1", "1f469": "1f9d1", "1f466": "1f9d2", "1f467": "1f9d2", "1f474": "1f9d3", "1f475": "1f9d3"}
"""Man, woman -> person; boy, girl -> child; old man, old woman -> older person."""
SIGNS = ("-200d-2640", "-200d-2642", "-200d-27a1")
"""Female, male, facing right."""


class Emoji(NamedTuple):
    """What is said of a code point."""

    name: str
    label: str
    keywords: tuple[str, ...]


def package(role: str, folder: Path) -> Path:
    """The file of a package in `folder`, downloaded by npm when it is not there. Ends when it is another file."""
    spec, sha256 = PACKAGES[role]
    path = folder / (spec.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz")
    if not path.is_file():
        if shutil.which("npm") is None:
            sys.exit(f"npm is not here; bring {path.name} by other means and name its folder with --packages")
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), spec]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"npm did not fetch {spec}")
    found = file_sha256(path)
    if found != sha256:
        sys.exit(f"{path} is not the expected file: sha256 {found}, not {sha256}")
    return path


def code(name: str) -> str:
    """Code points of a name such as 0023-FE0F-20E3, the way all three packages agree on."""
    parts = [part.lstrip("0") for part in name.lower().split("-")]
    return "-".join(part for part in parts if part != "fe0f")


def concept(code_points: str) -> str:
    """The same for men, women and anybody, whichever way they look."""
    for sign in SIGNS:
        code_points = code_points.replace(sign, "")
    return "-".join(ANYBODY.get(part, part) for part in code_points.split("-"))


def names(path: Path) -> dict[str, Emoji]:
    """What the package says of each code point that is in a group."""
    with tarfile.open(path) as archive:
        every = json.load(archive.extractfile("package/en/data.json"))
        labels = json.load(archive.extractfile("package/meta/groups.json"))["groups"]
    return {
        code(one["hexcode"]): Emoji(one["label"], labels[str(one["group"])], tuple(one.get("tags", ())))
        for one in every
        if "group" in one
    }


def pictures(path: Path, style: str) -> Iterator[tuple[str, bytes]]:
    """Code points and file of each picture of a style, without skin tones."""
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and member.name.startswith(FOLDERS[style]) and name.suffix in (".png", ".webp"):
                code_points = code(name.stem)
                if code_points in TONES or TONES.isdisjoint(code_points.split("-")):
                    yield code_points, archive.extractfile(member).read()


def drawn(data: bytes, px: int) -> bytes:
    """A PNG of px x px on white, whatever the picture's own size and shape."""
    with Image.open(io.BytesIO(data)) as picture:
        rgba = picture.convert("RGBA")
    rgba.thumbnail((px, px), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (px, px), "white")
    square.alpha_composite(rgba, ((px - rgba.width) // 2, (px - rgba.height) // 2))
    buffer = io.BytesIO()
    square.convert("RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def rows(key: str, style: str, code_points: str, emoji: Emoji) -> Iterator[dict[str, str]]:
    """Rows of metadata.csv about one picture: one for each caption."""
    texts = [emoji.name, f"{emoji.name}, {STYLES[style]}", ", ".join(emoji.keywords)]
    shared = {"file_name": key, "label": emoji.label, "group": concept(code_points), "style": style}
    for text in filter(None, texts):
        yield {**shared, "text": text}


def write(target: Path, packages: Path, n: int | None) -> int:
    """The collection; an existing folder is replaced whole. Returns the number of pictures."""
    known = names(package("names", packages))
    found = {style: dict(pictures(package(style, packages), style)) for style in STYLES}
    every = sorted((point, style) for style, some in found.items() for point in some if point in known)
    chosen = every if n is None else [every[i * len(every) // n] for i in range(min(n, len(every)))]
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    metadata = []
    for point, style in chosen:
        key = f"{style}/{point}.png"
        (partial / style).mkdir(parents=True, exist_ok=True)
        (partial / key).write_bytes(drawn(found[style][point], PX))
        metadata += rows(key, style, point, known[point])
    with (partial / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(metadata[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(metadata)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder to make")
    parser.add_argument("--n", type=int, help="only so many pictures")
    parser.add_argument("--packages", type=Path, help="folder of package files that are already here")
    args = parser.parse_args()
    if args.n is not None and args.n < 1:
        parser.error("--n is at least 1")
    args.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        n = write(args.target, args.packages or Path(folder), args.n)
    sys.stdout.write(f"{n} pictures in {args.target}\n")


if __name__ == "__main__":
    main()
