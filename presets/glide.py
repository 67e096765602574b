"""Write presets/glide-*.yaml: GLIDE (filtered), from text to 256 pixels, and its inpainter.

    python -m presets.glide [--check]

Sizes and sampling are those of the released models (glide-text2im @69b5307), the recipe is that of the paper
(2112.10741, sec. 4 and 5): what it says of its larger, unfiltered model. Sections that it says nothing about are those
of presets/paper.py.
"""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from presets import paper

FOLDER = Path(__file__).parent
Section = dict[str, Any]


STEPS, BATCH = 2_500_000, 2048
UPSAMPLER_STEPS, UPSAMPLER_BATCH = 1_600_000, 512
TUNING_STEPS = 500_000
"""Of the inpainter, our choice: the paper does not say."""
DROP_PROB = 0.2
"""Share of empty captions. The paper tunes a finished model with it; here it is there from the start."""
INPUTS = {"width": 192, "groups": 32, "heads": {"width": 64}, "qkv_order": "per_head", "sequence_dim": 512}
DROPOUT = 0.1
"""Inside the residual blocks of both networks."""
READER = {
    "kind": "text_transformer",
    "port": "vector_and_sequence",
    "drop_prob": DROP_PROB,
    "missing": "null",
    "width": 512,
    "depth": 16,
    "heads": 8,
    "project": False,
}
KNOWN = {"kind": "masked_image", "port": "spatial", "drop_prob": 0.1}
SMALL = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
HOW = {"kind": "diffusion", "sampler": "ancestral", "steps": 100, "spacing": "linspace", "eta": 0.0}
LARGER = {"kind": "diffusion", "steps": 27, "spacing": "fast27", "temperature": 0.997, "eta": 0.0, "guidance": 0.0}


@dataclass(frozen=True)
class Row:
    """One of the released pairs."""

    name: str
    head: str
    scale: float
    """Of classifier-free guidance, as published; ours is less by one."""
    inpaints: bool = False


ROWS = (
    Row("glide", "GLIDE (filtered): 64 pixels of a text, then 256; scale 3.", 3.0),
    Row(
        "glide-inpaint",
        "GLIDE (filtered) as an inpainter, from a finished run of presets/glide.yaml; scale 5.",
        5.0,
        inpaints=True,
    ),
)


def unet(multipliers: list[int], n_blocks: int, schedule: str, conditions: list[Section]) -> Section:
    """One of the two networks; both have attention at 32, 16 and 8 pixels."""
    return {
        "kind": "adm",
        "conditions": conditions,
        **INPUTS,
        "multipliers": multipliers,
        "n_blocks": n_blocks,
        "attention_sides": [32, 16, 8],
        "schedule": {"kind": schedule, "n_times": 1000},
        "variance": "learned",
        "drop_prob": DROPOUT,
        **paper.NOISE,
    }


def run(steps: int, batch_size: int) -> Section:
    """AdamW as for ADM, in mixed precision."""
    return dict(paper.train(1, batch_size, lr=1e-4, betas=paper.ADAM, decay=0.0, precision="bf16"), steps=steps)


def params(row: Row, base: Section) -> Section:
    """All sections of a row."""
    known, how = [KNOWN] if row.inpaints else [], HOW | {"guidance": row.scale - 1}
    larger = LARGER | {"sampler": "ancestral" if row.inpaints else "ddim"}
    tokenizer = {"uri": "weights/gpt2/tokenizer.json", "sha256": paper.UNRECORDED}
    reader = {
        "numerics": 1,
        "encoder": None,
        "states": False,
        "joint": None,
        "bpe": {"file": tokenizer, "n_ids": None, "max_tokens": 128},
    }
    sections = copy.deepcopy(base) | {
        "collect": base["collect"]
        | {"labels": "none", "split": base["collect"]["split"] | {"val_share": 0.005, "test_share": 0.005}},
        "encoder": base["encoder"] | {"model": paper.vit("b"), "px": 256, "train": None, "contrastive": None},
        "codec": base["codec"] | {"model": {"kind": "none", "channels": 3, "px": 64}},
        "text": reader,
        "encode": base["encode"] | {"batch_size": 64},
        "rdm": None,
        "pixels": base["pixels"]
        | {
            "model": unet([1, 2, 3, 4], 3, "cosine", [READER, *known]),
            "init": f"sha256:{paper.UNRECORDED}" if row.inpaints else None,
            "train": run(TUNING_STEPS if row.inpaints else STEPS, BATCH),
            "ema": paper.CONSTANT_EMA,
            "preview": {"every": 10000, "n": 32, "sampling": how},
        },
        "upsampler": {
            "numerics": 1,
            "px": 256,
            "model": unet([1, 1, 2, 2, 4, 4], 2, "linear", [READER | {"drop_prob": 0.0}, *known, SMALL]),
            "seed": 0,
            "train": run(UPSAMPLER_STEPS, UPSAMPLER_BATCH),
            "ema": paper.CONSTANT_EMA,
            "sampling": larger,
            "noise": 0.0,
            "n_val": 256,
        },
        "sample": base["sample"] | {"n": 30000, "batch_size": 64, "representations": None, "rdm": None, "pixels": how},
        "evaluate": base["evaluate"]
        | {
            "features": {"task": "auto", "px": 64, "width": 64, "dim": 256},
            "train": base["evaluate"]["train"] | {"steps": 20000},
        },
        "gate": base["gate"] | {"n": 10000},
    }
    order = ("collect", "encoder", "codec", "text", "encode", "rdm", "pixels", "upsampler")
    return {name: sections.pop(name) for name in order} | sections


def text(row: Row) -> str:
    """The file, its purpose in the first line."""
    base = yaml.safe_load((FOLDER / "digits.yaml").read_text())
    head = f"# {row.head}\n# Written by presets/glide.py from the published recipe; change it there.\n"
    body = yaml.dump(params(row, base), Dumper=paper.Plain, sort_keys=False, default_flow_style=None, width=118)
    return head + body


if __name__ == "__main__":
    sys.exit(paper.written(ROWS, text, sys.argv[1:]))
