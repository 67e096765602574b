"""The page of a finished pipeline: docs/results/NAME.md with its numbers and pictures, taken from artifacts/.

python -m benchmarks.collection_page PROJECT NAME TITLE
"""

import json
import platform
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

RESULTS = Path(__file__).parents[1] / "docs/results"
_WIDEST_PX = 1400
PICTURES = (
    ("sample", "pictures/grid.png", "Generated: representations drawn by the RDM, pictures by the pixel generator"),
    ("evaluate", "pictures/real.png", "Real pictures of the test split, for comparison"),
    ("codec", "pictures/reconstructions.png", "What the codec keeps: pictures and their reconstructions"),
    ("evaluate", "pictures/neighbors.png", "Generated pictures, each with its nearest training pictures"),
    ("evaluate", "pictures/closest.png", "The generated pictures that come closest to a training picture"),
    ("encoder", "pictures/neighbors.png", "Held-out pictures and what the encoder finds most alike in the train split"),
)
NUMBERS = {
    "collect": ("images", "near_duplicates", "rejected", "train", "val", "test"),
    "encoder": ("effective_rank", "knn_accuracy", "knn_accuracy_pixels"),
    "codec": ("psnr_db", "mean_absolute_error", "perplexity", "codes_used"),
    "rdm": ("representation_fd", "representation_fd_floor"),
    "pixels": ("loss", "val_loss"),
    "evaluate": (
        "fd",
        "fd_low",
        "fd_high",
        "fd_floor",
        "precision",
        "precision_real",
        "recall",
        "recall_real",
        "memorization_share",
        "memorization_expected",
        "condition_cosine",
        "condition_cosine_shuffled",
    ),
}


def write_page(project: Path, name: str, title: str, folder: Path = RESULTS) -> Path:
    """Returns the page. Every stage must be finished in the project."""
    folder.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((project / "params.yaml").read_text())
    lines = [
        f"# {title}",
        "",
        f"Written by `python -m benchmarks.collection_page` on {datetime.now(UTC):%Y-%m-%d}, "
        f"{platform.machine()}. What the numbers mean: [concepts](../concepts.md).",
        "",
        f"Sampling: `{json.dumps(params['sample']['pixels'])}`, rdm `{json.dumps(params['sample']['rdm'])}`.",
        "",
    ]
    for stage, file, caption in PICTURES:
        source = project / "artifacts" / stage / file
        if source.is_file():
            target = folder / f"{name}-{stage}-{source.stem}.png"
            target.write_bytes(_shrunk(source))
            lines += [f"## {caption}", "", f"![{caption}]({target.name})", ""]
    lines += ["## Numbers", "", "| stage | | |", "| --- | --- | --- |"]
    for stage, names in NUMBERS.items():
        metrics = _read(project, stage, "metrics.json")
        lines += [f"| {stage} | {key} | {metrics[key]:.4g} |" for key in names if key in metrics]
    path = folder / f"{name}.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _read(project: Path, stage: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "artifacts" / stage / name).read_text())
    return found


def _shrunk(path: Path) -> bytes:
    """As PNG of at most 256 colors, no wider than a page: results are kept in git."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((_WIDEST_PX, 4 * _WIDEST_PX))
    buffer = BytesIO()
    picture.quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    print(write_page(Path(sys.argv[1]), *sys.argv[2:4]))
