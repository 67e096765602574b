"""Conditions on any field of the cache, on every network that has their port: cache, training and sampling."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from components.cache.reader import CacheSplit, open_cache
from components.errors import ConfigError
from components.generators.base import Generator
from components.generators.files import load_generator, save_generator
from components.generators.sampling import AnySampling, DiffusionSampling, MaskedSampling
from components.pixels import PixelConfig
from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.hybrid import HybridConfig
from components.pixels.ldm import LdmConfig
from components.pixels.mage import MageConfig
from components.rdm import RdmConfig
from components.rng import BatchRng, image_rng
from components.target import TargetSpec
from components.training.config import OptimConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from tests.support.caches import DIM, IMAGE, SEQUENCE, VECTOR, make_cache
from tests.support.folders import FolderArtifact, randomize
from tests.support.toys import worker

PIXELS = TargetSpec(space="pixels", shape=(1, 8, 8), dtype="uint8", n_codes=None, image_px=8)
TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=8, image_px=8)
PLACED = SEQUENCE.model_copy(update={"positions": True})
NETWORKS: dict[str, tuple[Any, TargetSpec, tuple[Any, ...]]] = {
    "dit": (DitConfig.tiny(), PIXELS, (VECTOR, SEQUENCE, IMAGE)),
    "hybrid": (HybridConfig.tiny(), PIXELS, (VECTOR, SEQUENCE, IMAGE)),
    "adm": (AdmConfig.tiny(), PIXELS, (VECTOR, PLACED, IMAGE)),
    "ldm": (LdmConfig.tiny(), PIXELS, (VECTOR, SEQUENCE, IMAGE)),
    "ldm without a vector": (LdmConfig.tiny(), PIXELS, (SEQUENCE, VECTOR.model_copy(update={"port": "sequence"}))),
    "mage": (MageConfig.tiny(), TOKENS, (VECTOR, PLACED)),
    "rdm": (RdmConfig.tiny().model_copy(update={"dim": DIM}), PIXELS, (VECTOR,)),
}
HOW: dict[str, AnySampling] = {
    "diffusion": DiffusionSampling.tiny().model_copy(update={"guidance": 1.0}),
    "masked": MaskedSampling.tiny().model_copy(update={"guidance": 1.0}),
}
CASES = pytest.mark.parametrize("name", NETWORKS)


def _config(name: str, **changes: Any) -> tuple[Any, TargetSpec]:
    config, target, conditions = NETWORKS[name]
    changed = [condition.model_copy(update=changes) for condition in conditions]
    return type(config).model_validate(config.model_dump() | {"conditions": [c.model_dump() for c in changed]}), target


def _built(root: Path, name: str, **changes: Any) -> tuple[Generator, CacheSplit]:
    config, target = _config(name, **changes)
    cache = open_cache(make_cache(root, target))
    generator: Generator = config.build(config.data(cache.fields, cache.target_spec))
    randomize(generator)
    rows = cache.training((generator.makes, *generator.conditions)).having(generator.skips)
    generator.fit(rows, 0)
    return generator, rows


def _batch(rows: CacheSplit, indices: Sequence[int] = range(8)) -> dict[str, Tensor]:
    return dict(rows.rows(indices))


def _loss(generator: Generator, batch: dict[str, Tensor]) -> Tensor:
    return generator.loss(batch, BatchRng(0, len(next(iter(batch.values())))))


def _sample(generator: Generator, batch: dict[str, Tensor]) -> Tensor:
    given = {key: rows[:2] for key, rows in batch.items() if not key.startswith(generator.makes)}
    with torch.no_grad():
        return generator.eval().sample(given, HOW[generator.config.sampled_by], image_rng(0, 0, 2, stream="x"))


@CASES
def test_training_moves_every_weight_of_every_embedder(name: str, tmp_path: Path) -> None:
    generator, rows = _built(tmp_path / "cache", name, drop_prob=0.3)
    before = {key: value.clone() for key, value in generator.conditioner.named_parameters()}
    config = TrainConfig(
        steps=3,
        batch_size=8,
        seed=0,
        warmup_steps=0,
        schedule="constant",
        clip_norm=None,
        precision="fp32",
        log_every=1,
        optimizer=OptimConfig(kind="adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, decay="all"),
    )
    curve = train(GeneratorTrainable(generator, None), rows.fetch, len(rows), config, worker(tmp_path)).curve
    assert np.isfinite([record["loss"] for record in curve]).all()
    unmoved = [key for key, value in generator.conditioner.named_parameters() if torch.equal(value, before[key])]
    assert before
    assert not unmoved


@CASES
def test_what_a_mask_hides_changes_nothing(name: str, tmp_path: Path) -> None:
    generator, rows = _built(tmp_path, name)
    batch = _batch(rows)
    hidden = dict(batch)
    for field in {"text", "tokens"} & hidden.keys():
        mask = hidden[f"{field}.mask"]
        assert not mask.all()
        hidden[field] = hidden[field].clone()
        hidden[field][~mask] = float("nan")
    assert torch.equal(_loss(generator, hidden), _loss(generator, batch))
    assert torch.equal(_sample(generator, hidden), _sample(generator, batch))
    if "tokens" in batch:  # other lengths of the padding, the same numbers
        cut = {key: rows[[3]] for key, rows in batch.items()}  # no tokens at all
        short = cut | {key: cut[key][:, :1] for key in ("tokens", "tokens.mask")}
        torch.testing.assert_close(_loss(generator, short), _loss(generator, cut))


@CASES
def test_each_condition_matters_and_its_absence_is_the_null(name: str, tmp_path: Path) -> None:
    generator, rows = _built(tmp_path, name)
    batch = _batch(rows)
    for field in generator.conditions:
        other = {**batch, field: (batch[field].flip(0) if field == "low_res" else batch[field] + 1)}
        assert not torch.equal(_loss(generator, other), _loss(generator, batch)), field
        mask = torch.zeros(batch["tokens"].shape[:2] if field == "tokens" else (8,), dtype=torch.bool)
        missing = {**batch, f"{field}.mask": mask}
        absent = {key: value for key, value in batch.items() if key.split(".")[0] != field}
        torch.testing.assert_close(
            _sample(generator, absent).float(), _sample(generator, missing).float(), rtol=0, atol=1
        )


@CASES
def test_dropped_rows_are_those_of_the_null(name: str, tmp_path: Path) -> None:
    """With nearly every row dropped in training, ports are those that guidance pushes away from."""
    generator, rows = _built(tmp_path, name, drop_prob=1 - 1e-9)
    batch = _batch(rows)
    ports = generator.conditioner.training_ports(batch, BatchRng(0, 8))
    given, null = generator.conditioner.sampling_ports(batch, BatchRng(0, 8))
    for port in ("vector", "sequence", "mask", "spatial"):
        mine, theirs = getattr(ports, port), getattr(null, port)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine.float(), theirs.float())
            assert not torch.equal(getattr(given, port), theirs)


@CASES
def test_missing_rows_are_skipped_or_null(name: str, tmp_path: Path) -> None:
    kept, rows = _built(tmp_path / "null", name)
    assert kept.skips == kept.required == ()
    skipping, fewer = _built(tmp_path / "skip", name, missing="skip")
    assert set(skipping.skips) == set(skipping.required) == set(skipping.conditions)
    assert len(fewer) < len(rows)
    with pytest.raises(ConfigError, match=f"needs a {skipping.conditions[0]} to sample"):
        _sample(skipping, {})


@CASES
def test_saved_and_loaded_samples_are_equal(name: str, tmp_path: Path) -> None:
    generator, rows = _built(tmp_path / "cache", name)
    save_generator(generator, FolderArtifact(tmp_path / "saved"))
    again = load_generator(FolderArtifact(tmp_path / "saved"), RdmConfig if name == "rdm" else PixelConfig)
    assert again.data == generator.data
    assert torch.equal(_sample(generator, _batch(rows)), _sample(again, _batch(rows)))


def test_a_port_or_field_that_is_not_there_is_named(tmp_path: Path) -> None:
    for config, condition in ((MageConfig.tiny(), IMAGE), (RdmConfig.tiny(), SEQUENCE), (RdmConfig.tiny(), IMAGE)):
        with pytest.raises(ValidationError, match=rf"has no {condition.port} port for the condition {condition.name}"):
            type(config).model_validate(config.model_dump() | {"conditions": [condition.model_dump()]})
    for wrong, message in (
        ({"field": "txet"}, "no field txet(?s:.)*text, tokens, low_res"),
        ({"field": "low_res"}, "low_res does not suit a condition of kind"),
    ):
        for name in ("dit", "mage", "rdm"):
            with pytest.raises((ConfigError, ValidationError), match=message):
                _built(tmp_path / name, name, **wrong)
    with pytest.raises(ValidationError, match="conditions has vector_text twice"):
        DitConfig.model_validate(DitConfig.tiny().model_dump() | {"conditions": [cast(Any, VECTOR).model_dump()] * 2})
