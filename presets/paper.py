"""Write presets/paper-*.yaml: one per row of RCG's table of ImageNet 256 results, and the baselines.

    python presets/paper.py [--check]

A row is a pixel generator, what it is told, its guidance, and whether the RDM knows the class. Sections that no paper
says anything about (splits, evaluation, gate, retraining) are those of presets/digits.yaml, larger where need be.
Provenance of the numbers: LTH14/rcg @ 0c4433c and its README.
"""

import copy
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
N_IMAGES = 1_281_167
"""ImageNet's training pictures; epochs become steps by it."""
UNRECORDED = "0" * 64
"""Digest of a file whose sha256 is still to be recorded; the error says how."""
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

Section = dict[str, Any]


def steps(epochs: int, batch_size: int) -> int:
    """Optimizer steps in so many passes over the data."""
    return epochs * N_IMAGES // batch_size


def train(
    epochs: int, batch_size: int, *, lr: float, betas: tuple[float, float], decay: float, **other: Any
) -> Section:
    """A training run; constant learning rate without warm-up, decay of everything, fp32, unless `other` says else."""
    run = {
        "steps": steps(epochs, batch_size),
        "batch_size": batch_size,
        "seed": 0,
        "optimizer": {"kind": "adamw", "lr": lr, "betas": list(betas), "weight_decay": decay, "decay": "all"},
        "warmup_steps": 0,
        "schedule": "constant",
        "clip_norm": None,
        "precision": "fp32",
        "log_every": 100,
    }
    run["optimizer"]["decay"] = other.pop("decays", "all")
    return run | other


def vit(size: str) -> Section:
    """The MoCo v3 encoder, imported: ViT-B for every model but MAGE-L."""
    width, depth, heads, name = {
        "b": (768, 12, 12, "vit-b-300ep.pth.tar"),
        "l": (1024, 24, 16, "vitl_moco.pth.tar"),
    }[size]
    weights = {"uri": f"weights/{name}", "sha256": UNRECORDED}
    return {
        "kind": "mocov3",
        "weights": weights,
        "input_px": 224,
        "patch_px": 16,
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_ratio": 4.0,
        "projector_hidden": 4096,
        "projector_dim": 256,
        "output": "projector",
        "freeze_patches": True,
        **IMAGENET,
    }


AUTOENCODER = {"px": 256, "width": 128, "n_blocks": 2, "groups": 32, "latent_dim": 4, "dtype": "float16"}
CODECS: dict[str, tuple[Section, str | None]] = {
    "mage": (
        {
            "kind": "vqgan",
            "px": 256,
            "width": 128,
            "multipliers": [1, 1, 2, 2, 4],
            "n_blocks": 2,
            "groups": 32,
            "n_codes": 1024,
            "code_dim": 256,
            "shortcut": "branch",
            "space": "tokens",
        },
        "vqgan_jax_strongaug.ckpt",
    ),
    "dit": (
        {
            "kind": "kl",
            **AUTOENCODER,
            "multipliers": [1, 2, 4, 4],
            "attention_levels": [],
            "scale": 0.18215,
            "posterior": "sample",
        },
        "sd-vae-ft-ema.safetensors",
    ),
    "ldm": (
        {
            "kind": "vq-f8",
            **AUTOENCODER,
            "multipliers": [1, 2, 2, 4],
            "attention_levels": [3],
            "n_codes": 16384,
            "code_dim": 4,
        },
        "ldm-vq-f8.ckpt",
    ),
    "adm": ({"kind": "none", "channels": 3, "px": 256}, None),
}

REPRESENTATION_SAMPLER = {
    "kind": "diffusion",
    "sampler": "ddim",
    "steps": 250,
    "spacing": "reference",
    "eta": 1.0,
    "guidance": 0.0,
}
SQRT_LINEAR, LINEAR = ({"kind": kind, "n_times": 1000} for kind in ("sqrt_linear", "linear"))
NOISE = {"prediction": "eps", "min_snr": None, "latents": "as_stored"}
UNET = {"width": 256, "n_blocks": 2, "attention_sides": [32, 16, 8], "groups": 32}
ADAM, MAE = (0.9, 0.999), (0.9, 0.95)


def mage(width: int, depth: int, heads: int) -> Section:
    return {
        "kind": "mage",
        "width": width,
        "depth": depth,
        "heads": heads,
        "decoder_depth": 8,
        "decoder_heads": 16,
        "mlp_ratio": 4.0,
        "drop_prob": 0.1,
        "label_smoothing": 0.1,
        "mask": {"mean": 0.75, "std": 0.25, "least": 0.5},
    }


@dataclass(frozen=True)
class Model:
    """A pixel generator with the recipe that trains it."""

    name: str
    config: Section
    train: Section
    ema: Section | None
    sampling: Section
    encoder: str = "b"
    drop_prob: float = 0.0
    """Of the condition, where the recipe drops it."""


MAGE_TRAIN = train(
    200,
    4096,
    lr=2.4e-3,
    betas=MAE,
    decay=0.05,
    decays="matrices",
    warmup_steps=steps(10, 4096),
    schedule="cosine",
    clip_norm=3.0,
    precision="bf16",
)
CONSTANT_EMA, RAMPED_EMA = ({"decay": 0.9999, "rule": rule} for rule in ("constant", "ramped"))
ANCESTRAL = {"kind": "diffusion", "sampler": "ancestral", "steps": 250, "spacing": "linspace", "eta": 0.0}
MODELS = {
    model.name: model
    for model in (
        Model(
            "mage-b",
            mage(768, 12, 12),
            MAGE_TRAIN,
            None,
            {"kind": "masked", "steps": 20, "temperature": 6.0},
            drop_prob=0.1,
        ),
        Model(
            "mage-l",
            mage(1024, 24, 16),
            MAGE_TRAIN,
            None,
            {"kind": "masked", "steps": 20, "temperature": 11.0},
            encoder="l",
            drop_prob=0.1,
        ),
        Model(
            "dit-xl-2",
            {
                "kind": "dit",
                "width": 1152,
                "depth": 28,
                "heads": 16,
                "patch": 2,
                "mlp_ratio": 4.0,
                "schedule": LINEAR,
                "variance": "learned",
                **NOISE,
            },
            train(400, 2048, lr=1e-4, betas=MAE, decay=0.0),
            CONSTANT_EMA,
            ANCESTRAL,
            drop_prob=0.1,
        ),
        Model(
            "adm-256",
            {
                "kind": "adm",
                **UNET,
                "multipliers": [1, 1, 2, 2, 4, 4],
                "heads": {"width": 64},
                "schedule": LINEAR,
                "qkv_order": "per_head",
                "variance": "learned",
                **NOISE,
            },
            train(400, 256, lr=1e-4, betas=ADAM, decay=0.0),
            CONSTANT_EMA,
            ANCESTRAL,
        ),
        Model(
            "ldm-8",
            {
                "kind": "ldm",
                **UNET,
                "multipliers": [1, 2, 4],
                "heads": {"width": 32},
                "context_dim": 256,
                "schedule": SQRT_LINEAR,
                "variance": "fixed",
                **NOISE,
            },
            train(40, 256, lr=6.4e-5, betas=ADAM, decay=0.01),
            RAMPED_EMA,
            {"kind": "diffusion", "sampler": "ddim", "steps": 200, "spacing": "reference", "eta": 1.0},
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    suffix: str
    model: str
    published: str
    """FID by ADM's statistics and inception score; null for what the table lacks."""
    condition: str = "representation"
    guidance: float = 0.0
    class_rdm: bool = False

    @property
    def name(self) -> str:
        return f"paper-{self.model}{self.suffix}"


ROWS = (
    Row("", "mage-b", "FID 3.98, IS 177.8"),
    Row("-guided", "mage-b", "FID 3.19, IS 214.9", guidance=1.0),
    Row("-class-rdm", "mage-b", "FID 3.50, IS 194.9", class_rdm=True),
    Row("-class-rdm-guided", "mage-b", "FID 3.18, IS 242.6", class_rdm=True, guidance=1.0),
    Row("", "mage-l", "FID 3.44, IS 186.9"),
    Row("-guided", "mage-l", "FID 2.15, IS 253.4", guidance=6.0),
    Row("-class-rdm", "mage-l", "FID 2.99, IS 215.5", class_rdm=True),
    Row("-class-rdm-guided", "mage-l", "FID 2.25, IS 300.7", class_rdm=True, guidance=6.0),
    Row("", "dit-xl-2", "FID 4.89, IS 143.2"),
    Row("", "adm-256", "FID 6.24, IS 136.9"),
    Row("", "ldm-8", "FID 11.30, IS 101.9"),
    Row("-none", "mage-b", "no published number", condition="none"),
    Row("-none", "mage-l", "FID 7.04", condition="none"),
    Row("-none", "dit-xl-2", "FID 27.32", condition="none"),
    Row("-none", "adm-256", "FID 26.21", condition="none"),
    Row("-none", "ldm-8", "FID 39.13", condition="none"),
    Row("-cluster", "mage-b", "no published number", condition="cluster"),
)
TOLD = {
    "representation": "told a representation",
    "none": "told nothing: the baseline",
    "cluster": "told the cluster: a baseline",
}


CLASS_RDM = [{"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}]


def told(condition: str, model: Model) -> list[Section]:
    """The conditions of a pixel generator; LDM's context is the representation as it is."""
    own: dict[str, Section] = {
        "representation": {"project": model.config["kind"] != "ldm"},
        "cluster": {"n_clusters": 1000},
    }
    if condition not in own:
        return []
    return [{"kind": condition, "port": "vector", "drop_prob": model.drop_prob, **own[condition]}]


def params(row: Row, base: Section) -> Section:
    """All sections of a row."""
    model = MODELS[row.model]
    kind = model.config["kind"]
    codec, weights = CODECS[kind]
    named = None if weights is None else {"uri": f"weights/{weights}", "sha256": UNRECORDED}
    how = model.sampling | {"guidance": row.guidance}
    conditions, reads = told(row.condition, model), row.condition == "representation"
    # MAGE's recipe has one fixed view per picture; the others mirror it every other time.
    views = {"seed": 0, "n_views": 1, "crop_area": [1.0, 1.0], "flip_prob": 0.0}
    views |= {} if kind == "mage" else {"n_views": 2, "flip_prob": 1.0}
    return copy.deepcopy(base) | {
        "collect": base["collect"]
        | {"labels": "folder", "split": base["collect"]["split"] | {"val_share": 0.01, "test_share": 0.04}},
        "encoder": base["encoder"] | {"model": vit(model.encoder), "px": 256, "train": None, "contrastive": None},
        "codec": base["codec"] | {"model": codec, "weights": named},
        "encode": base["encode"] | {"batch_size": 64, "views": views},
        "rdm": base["rdm"]
        | {
            "model": {
                "kind": "residual_mlp",
                "dim": 256,
                "width": 1536,
                "depth": 12,
                "time_dim": 256,
                "conditions": CLASS_RDM if row.class_rdm else [],
                "context_dim": 512,
                "schedule": SQRT_LINEAR,
                "prediction": "x0",
                "min_snr": None,
                "variance": "fixed",
            },
            "train": train(200, 512, lr=5.12e-4, betas=ADAM, decay=0.01),
            "ema": RAMPED_EMA,
            "check": {"n": 10000, "batch_size": 256, "sampling": REPRESENTATION_SAMPLER},
        }
        if reads
        else None,
        "pixels": base["pixels"]
        | {
            "model": model.config | {"conditions": conditions},
            "train": model.train,
            "ema": model.ema,
            "preview": {"every": 10000, "n": 32, "sampling": how},
        },
        "sample": base["sample"]
        | {
            "n": 50000,
            "batch_size": 64,
            "representations": "rdm" if reads else None,
            "rdm": REPRESENTATION_SAMPLER if reads else None,
            "pixels": how,
        },
        "evaluate": base["evaluate"]
        | {
            "features": {"task": "auto", "px": 64, "width": 64, "dim": 256},
            "train": base["evaluate"]["train"] | {"steps": 20000},
        },
        "gate": base["gate"] | {"n": 10000},
    }


def text(row: Row) -> str:
    """The file, its purpose in the first line."""
    base = yaml.safe_load((FOLDER / "digits.yaml").read_text())
    guided = f", guidance {row.guidance:g}" if row.guidance else ""
    rdm = ", class-conditional RDM" if row.class_rdm else ""
    head = f"# ImageNet 256 at paper scale: {row.model} {TOLD[row.condition]}{rdm}{guided} ({row.published}).\n"
    body = yaml.dump(params(row, base), Dumper=Plain, sort_keys=False, default_flow_style=None, width=118)
    return head + "# Written by presets/paper.py from the published recipe; change it there.\n" + body


class Plain(yaml.SafeDumper):
    """No anchors: what is equal is written out twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def written(rows: Iterable[Any], text: Callable[[Any], str], arguments: list[str]) -> int:
    """Write the file of each row; with --check, 1 when one is stale and nothing is written."""
    stale = []
    for row in rows:
        path = FOLDER / f"{row.name}.yaml"
        if not path.exists() or path.read_text() != text(row):
            stale.append(path.name)
            if "--check" not in arguments:
                path.write_text(text(row))
    if stale:
        sys.stdout.write(f"{'stale' if '--check' in arguments else 'written'}: {', '.join(stale)}\n")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(written(ROWS, text, sys.argv[1:]))
