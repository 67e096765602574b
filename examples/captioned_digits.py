"""Make a captioned collection: handwritten digits in five inks, each with up to three captions.

    python examples/captioned_digits.py data/digits-text
    python examples/captioned_digits.py data/digits-few --captioned 0.05    only so many pictures have captions

The digits are scikit-learn's copy of UCI's. One picture in ten has no caption, unless --captioned says another share.
The pairs in UNSEEN are left out altogether, so that `rcg sample --text` can ask for what no picture shows.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = {
    "red": (255, 60, 50),
    "green": (60, 220, 70),
    "blue": (70, 110, 255),
    "yellow": (250, 220, 50),
    "white": (250, 250, 250),
}
UNSEEN = {("red", 7), ("green", 3), ("blue", 0), ("yellow", 5), ("white", 8)}


def captions(ink: str, digit: int, rng: np.random.Generator, share: float) -> list[str] | None:
    """One to three ways to say it, of this share of the pictures."""
    if rng.random() >= share:
        return None
    ways = [
        f"a {ink} {WORDS[digit]}",
        f"the digit {digit}, written in {ink}",
        f"a handwritten {WORDS[digit]} in {ink} ink",
    ]
    return [ways[i] for i in rng.permutation(3)[: rng.integers(1, 4)]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--captioned", type=float, default=0.9, metavar="SHARE")
    args = parser.parse_args()
    folder = args.folder
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    folder.mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            ink = list(INKS)[rng.integers(len(INKS))]
            said = captions(ink, int(digit), rng, args.captioned)
            if (ink, int(digit)) in UNSEEN:
                continue
            pixels = image[:, :, None] / 16 * np.array(INKS[ink])
            name = f"{i:04d}.png"
            Image.fromarray(pixels.round().astype(np.uint8)).save(folder / name)
            metadata.write(json.dumps({"file_name": name, "label": WORDS[digit], "text": said}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
