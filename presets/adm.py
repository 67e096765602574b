"""Write presets/adm-*.yaml: ADM's rows of ImageNet at 64 to 512 pixels, guided by a classifier and made larger.

    python -m presets.adm [--check]

The sections that ADM says nothing about are those of presets/paper.py. Provenance: flags of guided-diffusion's README
@22e0df8 for models, classifiers, scales and steps of sampling; 2105.05233 for batch sizes and steps of training (of the
classifiers at 256 and 512 pixels: those at 128, and 500,000 steps).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from presets import paper

FOLDER = Path(__file__).parent
Section = dict[str, Any]


BY_CLASS = {"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}
LOW_RES = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
LINEAR, COSINE = ({"kind": kind, "n_times": 1000} for kind in ("linear", "cosine"))
WIDE, FOUR = {"width": 64}, {"count": 4}
SAMPLING = paper.ANCESTRAL | {"guidance": 0.0}
UNET = {"attention_sides": [32, 16, 8], "groups": 32, "schedule": LINEAR, "latents": "as_stored"}
ADM = {"kind": "adm", **UNET, "qkv_order": "per_head", "prediction": "eps", "min_snr": None, "variance": "learned"}
CLASSIFIER = {"kind": "unet_encoder", **UNET, "input": "as_is", "width": 128, "heads": WIDE}
M64, M128, M256 = [1, 2, 3, 4], [1, 1, 2, 3, 4], [1, 1, 2, 2, 4, 4]
M512 = [0.5, *M256]


def run(steps: int, batch_size: int, lr: float, *, decay: float = 0.0, schedule: str = "constant") -> Section:
    """A training run of so many steps."""
    made = paper.train(1, batch_size, lr=lr, betas=paper.ADAM, decay=decay, precision="bf16", schedule=schedule)
    return dict(made, steps=steps)


@dataclass(frozen=True)
class Size:
    """The models of one size of pictures, with the recipes that train them."""

    px: int
    model: Section
    train: Section
    guide: Section
    guide_train: Section
    scale: float
    """Of the classifier's guidance, at 250 steps."""


def _guide_run(steps: int) -> Section:
    return run(steps, 256, 3e-4, decay=0.05, schedule="linear")


SIZES = {
    size.px: size
    for size in (
        Size(
            64,
            {
                **ADM,
                "width": 192,
                "multipliers": M64,
                "n_blocks": 3,
                "heads": WIDE,
                "schedule": COSINE,
                "qkv_order": "stacked",
                "drop_prob": 0.1,
            },
            run(540_000, 2048, 3e-4),
            {**CLASSIFIER, "multipliers": M64, "n_blocks": 4, "schedule": COSINE},
            run(300_000, 1024, 6e-4, decay=0.2, schedule="linear"),
            1.0,
        ),
        Size(
            128,
            {**ADM, "width": 256, "multipliers": M128, "n_blocks": 2, "heads": FOUR},
            run(4_360_000, 256, 1e-4),
            {**CLASSIFIER, "multipliers": M128, "n_blocks": 2},
            _guide_run(300_000),
            0.5,
        ),
        Size(
            256,
            {**ADM, "width": 256, "multipliers": M256, "n_blocks": 2, "heads": WIDE},
            run(1_980_000, 256, 1e-4),
            {**CLASSIFIER, "multipliers": M256, "n_blocks": 2},
            _guide_run(500_000),
            1.0,
        ),
        Size(
            512,
            {**ADM, "width": 256, "multipliers": M512, "n_blocks": 2, "heads": WIDE},
            run(1_940_000, 256, 1e-4),
            {**CLASSIFIER, "multipliers": M512, "n_blocks": 2},
            _guide_run(500_000),
            4.0,
        ),
    )
}
UPSAMPLERS = {
    64: (256, {**ADM, "width": 192, "multipliers": M256, "n_blocks": 2, "heads": FOUR}, run(500_000, 256, 1e-4)),
    128: (
        512,
        {**ADM, "width": 192, "multipliers": M256, "n_blocks": 2, "heads": WIDE, "attention_sides": [32, 16]},
        run(1_050_000, 256, 1e-4),
    ),
}
"""By the side that they start from: the side that they make, the model, the training."""


@dataclass(frozen=True)
class Row:
    """One preset."""

    name: str
    px: int
    published: str
    """FID by ADM's statistics and inception score, those of its README alone."""
    scale: float | None = None
    """Of the guide; None: no guide."""
    told: bool = True
    """Whether the generator is conditioned on the class."""
    larger: bool = False
    """Whether an upsampler follows."""


ROWS = (
    Row("adm-64", 64, "FID 2.07"),
    Row("adm-128", 128, "in the paper"),
    Row("adm-256", 256, "in the paper"),
    Row("adm-512", 512, "in the paper"),
    Row("adm-g-64", 64, "in the paper", scale=SIZES[64].scale),
    Row("adm-g-128", 128, "FID 2.97", scale=SIZES[128].scale),
    Row("adm-g-256", 256, "FID 4.59, IS 186.7", scale=SIZES[256].scale),
    Row("adm-g-512", 512, "FID 7.72, IS 172.7", scale=SIZES[512].scale),
    Row("adm-g-256-none", 256, "in the paper", scale=10.0, told=False),
    Row("adm-u-256", 64, "in the paper", larger=True),
    Row("adm-u-512", 128, "in the paper", larger=True),
    Row("adm-g-u-256", 64, "FID 3.94, IS 215.84", scale=SIZES[64].scale, larger=True),
    Row("adm-g-u-512", 128, "FID 3.85, IS 221.7", scale=SIZES[128].scale, larger=True),
)


def params(row: Row, base: Section) -> Section:
    """All sections of a row: those of RCG's ADM without a representation, and ADM's own."""
    size = SIZES[row.px]
    sections: Section = paper.params(paper.Row("-none", "adm-256", "", condition="none"), base)
    codec = sections["codec"]
    sections["codec"] = codec | {"model": codec["model"] | {"px": size.px}}
    sections["pixels"] |= {"model": size.model | {"conditions": [BY_CLASS] if row.told else []}, "train": size.train}
    if row.scale is not None:
        sections["guide"] = {"numerics": 1, "model": size.guide, "seed": 0, "train": size.guide_train}
        sections["sample"]["pixels"] = SAMPLING | {"guide": {"scale": row.scale}}
    if row.larger:
        px, model, train = UPSAMPLERS[row.px]
        sections["upsampler"] = {
            "numerics": 1,
            "px": px,
            "model": model | {"conditions": [LOW_RES, BY_CLASS]},
            "seed": 0,
            "train": train,
            "ema": paper.CONSTANT_EMA,
            "sampling": SAMPLING,
            "noise": 0.0,
            "n_val": 256,
        }
    return sections


def text(row: Row) -> str:
    """The file, its purpose in the first line."""
    base = yaml.safe_load((FOLDER / "digits.yaml").read_text())
    told = "told the class" if row.told else "told nothing"
    guided = f", led by a classifier of scale {row.scale:g}" if row.scale is not None else ""
    larger = f", and ADM-U to {UPSAMPLERS[row.px][0]}" if row.larger else ""
    head = f"# ImageNet at paper scale: ADM at {row.px} pixels {told}{guided}{larger} ({row.published}).\n"
    body = yaml.dump(params(row, base), Dumper=paper.Plain, sort_keys=False, default_flow_style=None, width=118)
    return head + "# Written by presets/adm.py from the published recipe; change it there.\n" + body


if __name__ == "__main__":
    sys.exit(paper.written(ROWS, text, sys.argv[1:]))
