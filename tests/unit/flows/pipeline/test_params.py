"""params.yaml: what does not go together is refused before anything starts, with the fix."""

from pathlib import Path
from typing import Any

import pytest

from components.encoders.config import ClipConfig
from components.errors import ConfigError
from components.guides.config import UNetGuideConfig
from components.training.config import TrainConfig
from flows.pipeline.params import check_params, read_yaml
from flows.stages.text.params import JointConfig
from tests.support.generators import conditions

ROOT = Path(__file__).parents[4]
NEVER_DROPPED = [{"kind": "representation", "port": "vector", "drop_prob": 0.0, "project": True}]

UNET = UNetGuideConfig.tiny().model_dump(mode="json")
SAME = {
    "kind": "ready",
    "dim": 64,
    "allow_same": False,
    "network": {
        "kind": "timm",
        "name": "tf_efficientnet_lite0",
        "input_px": 96,
        "weights": read_yaml(ROOT / "presets/emoji.yaml")["encoder"]["model"]["weights"],
    },
}
GUIDE = {"numerics": 1, "seed": 0, "model": UNET, "train": TrainConfig.tiny().model_dump(mode="json")}


def changed(preset: str, **changes: Any) -> dict[str, Any]:
    """The preset with values set by dotted path, dots written as two underscores."""
    data = read_yaml(ROOT / f"presets/{preset}.yaml")
    for path, value in changes.items():
        node, *rest = [data, *path.split("__")]
        for name in rest[:-1]:
            node = node[name]
        node[rest[-1]] = value
    return data


NEAREST = {
    "kind": "gaussians",
    "k": 4,
    "kappa": 1.0,
    "learnable": False,
    "index": True,
    "choice": {"by": "nearest", "field": "text"},
}
CLIP = ClipConfig.tiny().model_dump(mode="json") | {"weights": {"uri": "clip.pt", "sha256": "0" * 64}}
CLIP_TEXT = {
    "kind": "clip",
    "weights": None,
    "tokenizer": None,
    "width": 8,
    "depth": 1,
    "heads": 1,
    "mlp_ratio": 4.0,
    "joint_dim": 6,
    "vocabulary": 9,
    "n_positions": 5,
    "quick_gelu": True,
    "max_tokens": 5,
}
SHARED = {
    "text__joint": {"dim": None, "seed": 0, "train": None},
    "text__encoder": CLIP_TEXT,
    "encoder__train": None,
    "encoder__contrastive": None,
}


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("digits", {"sample__rdm__steps": 1001}, r"sample\.rdm: 1001 sampling steps"),
        ("digits", {"bundle__sampling": {"seed": 0}}, r"bundle\.sampling: the bundle samples as"),
        ("digits", {"sample__pixels__spacing": "reference", "sample__pixels__steps": 30}, r"near it: 20, 25, 40, 50"),
        (
            "digits",
            {"sample__pixels__guidance": 1.0, "pixels__model__conditions": NEVER_DROPPED},
            r"sample\.pixels: .*drop_prob above 0",
        ),
        (
            "digits",
            {"pixels__preview__sampling__guidance": 1.0, "pixels__model__conditions": NEVER_DROPPED},
            r"pixels\.preview\.sampling: .*drop_prob above 0",
        ),
        ("digits", {"sample__pixels__guidance": 1.0, "pixels__model__conditions": []}, "guidance needs a condition"),
        ("digits", {"sample__rdm__guidance": 1.0}, r"sample\.rdm: guidance needs a condition"),
        (
            "digits",
            {"pixels__preview__sampling__spacing": "reference", "pixels__preview__sampling__steps": 30},
            r"pixels\.preview\.sampling: 30 sampling steps",
        ),
        (
            "digits",
            {"rdm__check__sampling__spacing": "reference", "rdm__check__sampling__steps": 30},
            r"rdm\.check\.sampling: 30 sampling steps",
        ),
        (
            "digits",
            {"sample__pixels": {"kind": "masked", "steps": 4, "temperature": 1.0, "guidance": 0.0}},
            r"sample\.pixels: .*kind: diffusion",
        ),
        ("digits", {"sample__pixels__kind": "dit"}, "kind dit is called diffusion now; write kind: diffusion"),
        (
            "digits",
            {"sample__rdm": {"sampler": "ddim", "steps": 50, "eta": 0.0, "spacing": "trailing"}},
            "add kind: diffusion and guidance: 0",
        ),
        ("digits", {"sample__rdm__autoguidance": 1.0}, r"sample\.rdm: autoguidance needs weights .*set earlier"),
        ("digits", {"sample__pixels__guidance_interval": [2.0, 1.0]}, "begins at 0 or above and ends higher"),
        ("digits", {"sample__pixels__guide": {"scale": 1.0}}, r"sample\.pixels: .*there is none .*section guide"),
        ("digits-guided", {"guide__model__schedule__kind": "linear"}, r"guide\.model\.schedule .* is not that of rdm"),
        ("digits-guided", {"guide": None}, r"sample\.rdm: .*there is none"),
        ("digits-guided", {"sample__pixels__guide": {"scale": 1.0}}, r"sample\.pixels: .*there is none"),
        ("digits-guided", {"collect__labels": "none"}, r"tells classes apart, but collect\.labels is none"),
        ("digits-text", {"rdm__model__base": NEAREST}, r"text\.encoder has no image tower.*joint with dim: null"),
        (
            "digits-text",
            {"rdm__model__base": NEAREST, "text__joint": JointConfig.tiny().model_dump(mode="json")},
            r"text\.joint has a space of its own",
        ),
        ("digits-text", {"text__joint": {"dim": None, "seed": 0, "train": None}}, r"words has no image tower"),
        ("digits-text", {"text__joint": {"dim": 8, "seed": 0, "train": None}}, r"text\.joint: .*set dim: null"),
        ("digits-text", SHARED | {"encoder__model": CLIP | {"output": "cls"}}, r"output is cls; set it to projector"),
        ("digits-text", SHARED | {"encoder__model": CLIP}, r"different files"),
        ("digits-guided", {"guide__model": UNET | {"attention_sides": [3]}}, r"no feature map"),
        ("digits-guided", {"guide__model": UNET}, r"guide\.model\.latents \(as_stored\) is not that of pixels"),
        ("digits-mage", {"guide": GUIDE}, r"guide leads a diffusion generator, but pixels\.model\.kind is mage"),
        ("digits", {"rdm": None}, "conditioned on representations, but rdm is null"),
        ("digits", {"sample__representations": None}, "but sample.representations is null"),
        (
            "digits",
            {"pixels__model__conditions": [], "sample__representations": None},
            "so nothing reads representations; set rdm: null, sample.rdm: null",
        ),
        (
            "digits",
            {"pixels__model__condition": {"kind": "class", "drop_prob": 0.1, "n_clusters": 1}},
            r"write conditions: \[\{kind: class, port: vector, drop_prob: 0.1, missing: 'null'\}\]",
        ),
        ("digits", {"rdm__model__class_conditional": True}, r"write conditions: \[\{kind: class, .*missing: skip"),
        (
            "digits",
            {"rdm__model__conditions": [NEVER_DROPPED[0] | {"port": "sequence"}]},
            "residual_mlp has no sequence port for the condition representation",
        ),
        ("digits", {"pixels__model__patch": 3}, "among the divisors of 8"),
        ("digits", {"pixels__model__heads": 5}, "heads is 5, which does not divide width 64; set heads: 4"),
        ("digits", {"encoder__model__heads": 5}, "heads is 5, which does not divide width 64; set heads: 4"),
        ("digits", {"encoder__model__patch_px": 3}, "does not divide input_px 8; set patch_px: 2"),
        ("paper-mage-b", {"pixels__model__heads": 7}, "does not divide width 768; set heads: 6"),
        ("paper-adm-256", {"codec__model__px": 250, "encoder__px": 250}, "multiple of 32"),
        ("paper-adm-256", {"pixels__model__attention_sides": [12]}, "no feature map has this side"),
        ("paper-ldm-8", {"pixels__model__groups": 48}, "no multiple of groups"),
        ("paper-dit-xl-2", {"codec__model__px": 260}, "multiple of 8"),
        ("paper-mage-b", {"codec__model__px": 250}, "multiple of 16"),
        ("emoji", {"evaluate__features": SAME, "evaluate__train": None}, r"is the encoder that .*allow_same: true"),
        ("emoji", {"evaluate__features": SAME}, r"set evaluate\.train: null"),
        ("emoji", {"evaluate__features": {"kind": "none"}}, r"evaluate\.features: .*'trained', 'ready'"),
        ("emoji", {"evaluate__train": None}, r"evaluate\.train is null; presets/ show"),
        (
            "paper-mage-b",
            {
                "sample__pixels": {
                    "kind": "diffusion",
                    "sampler": "ddim",
                    "steps": 5,
                    "spacing": "trailing",
                    "eta": 0.0,
                    "guidance": 0.0,
                }
            },
            "set kind: masked",
        ),
    ],
)
def test_what_does_not_fit_is_refused(preset: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_params(changed(preset, **changes), preset)


@pytest.mark.parametrize("kind", ["none", "class", "cluster"])
def test_a_generator_that_reads_no_representations_has_no_rdm(kind: str) -> None:
    changes: dict[str, Any] = {
        "rdm": None,
        "sample__rdm": None,
        "sample__representations": None,
        "sample__pixels__guidance": 0.0,
    }
    params = check_params(
        changed("digits", pixels__model__conditions=[one.model_dump() for one in conditions(kind)], **changes), kind
    )
    assert params.rdm is None


def test_every_spacing_takes_what_it_can_honor() -> None:
    for spacing, steps in (("trailing", 7), ("linspace", 7), ("leading", 25), ("reference", 8)):
        check_params(changed("digits", sample__rdm__spacing=spacing, sample__rdm__steps=steps), spacing)
