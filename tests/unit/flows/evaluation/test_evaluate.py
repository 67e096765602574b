"""`rcg evaluate` from files to table and JSON, in features that a few lines of numpy can follow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from components.errors import ArtifactError, ConfigError, DataError, ShapeError, WeightsError
from components.metrics.networks.base import Identity, Seen
from components.metrics.protocol import check_same
from flows.evaluation.networks import Choice
from flows.evaluation.page import columns, page, table
from flows.evaluation.rows import Judged, as_json
from flows.evaluation.run import Asked, judge
from flows.execution.project import Project
from flows.settings import Settings
from tests.support.cli import rcg


class _Colors:
    """Mean colors of the upper and of the lower half as features; those of the left and right as spatial ones."""

    def __init__(self, kind: str) -> None:
        self.identity = Identity(kind, "colors", "0" * 64, "none")

    def to(self, _device: Any) -> "_Colors":
        return self

    def load(self) -> "_Colors":
        return self

    def __call__(self, images: np.ndarray) -> Seen:
        h, w = images.shape[1] // 2, images.shape[2] // 2
        halves = [images[:, :h], images[:, h:], images[:, :, :w], images[:, :, w:]]
        a, b, c, d = (half.mean((1, 2)).astype(np.float32) / 255 for half in halves)
        p = np.exp(4 * a)
        return Seen(np.concatenate([a, b], 1), np.concatenate([c, d], 1), p / p.sum(1, keepdims=True))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Choice, "config", lambda self: _Colors(self.kind))
    return Project(tmp_path, Settings())


def _write(name: str, n: int, shift: float = 0.0, **more: np.ndarray) -> str:
    rng = np.random.default_rng(n)
    base = rng.normal(128 + shift, 30, (n, 1, 1, 3)) + rng.normal(0, 30, (n, 4, 4, 3))
    np.savez(name, base.clip(0, 255).astype(np.uint8), **more)
    return name


def _judge(project: Project, samples: list[str], reference: str, kind: str = "inception", **more: Any) -> Judged:
    asked = Asked(samples, reference, Choice(kind), n_bootstrap=0, controls=False)
    return judge(replace(asked, **more), project, _silent)


def _silent(_what: str, _n: int) -> Any:
    import contextlib

    return contextlib.nullcontext(lambda _done: None)


def _features(file: str, part: str = "features") -> np.ndarray:
    return np.asarray(getattr(_Colors("x")(np.load(file)["arr_0"]), part), np.float64)


def _textbook(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(np.cov(x.T) @ cov).real
    return float(np.square(x.mean(0) - mean).sum() + np.trace(np.cov(x.T) + cov - 2 * root))


def test_numbers_of_two_files_are_the_formulas_in_float64(project: Project) -> None:
    a, b = _write("a.npz", 150), _write("b.npz", 90, shift=20)
    x, y, p = _features(a), _features(b), _features(b, "probabilities")
    (row,) = _judge(project, [b], a).rows
    assert row.numbers["fid"] == pytest.approx(_textbook(y, x.mean(0), np.cov(x.T)), rel=1e-6)
    u, v = _features(a, "spatial"), _features(b, "spatial")
    assert row.numbers["sfid"] == pytest.approx(_textbook(v, u.mean(0), np.cov(u.T)), rel=1e-6)
    kl = (p * np.log(p / p.mean(0))).sum(1).mean()
    assert row.numbers["inception_score"] == pytest.approx(np.exp(kl), rel=1e-6)
    k = lambda s, t: (s @ t.T / 6 + 1) ** 3  # noqa: E731
    within = [(k(s, s).sum() - np.trace(k(s, s))) / (len(s) * (len(s) - 1)) for s in (x, y)]
    assert row.numbers["kid"] == pytest.approx(sum(within) - 2 * k(x, y).mean(), rel=1e-5)


def test_identical_sets_have_distance_zero_and_more_bits_change_nothing(project: Project) -> None:
    a = _write("a.npz", 80)
    (row,) = _judge(project, [a], a).rows
    assert row.numbers["fid"] == pytest.approx(0, abs=1e-9)
    assert row.numbers["precision"] == row.numbers["recall"] == row.numbers["coverage"] == 1
    assert all(np.isfinite(value) for value in row.numbers.values())


def test_stored_statistics_are_used_and_pictures_give_the_rest(project: Project) -> None:
    mean, cov = np.full(6, 0.4), np.eye(6) * 0.02
    samples = _write("a.npz", 60)
    both = _write("both.npz", 70, mu=mean, sigma=cov, mu_s=mean, sigma_s=cov)
    np.savez("alone.npz", mu=mean, sigma=cov)
    expected = _textbook(_features(samples), mean, cov)
    (full,), (bare,) = (_judge(project, [samples], reference).rows for reference in (both, "alone.npz"))
    assert full.numbers["fid"] == pytest.approx(expected, rel=1e-6)
    assert bare.numbers["fid"] == pytest.approx(expected, rel=1e-6)
    assert {"sfid", "precision", "kid"} <= full.numbers.keys()
    assert not {"sfid", "precision", "kid"} & bare.numbers.keys()
    assert full.protocol.reference_statistics == bare.protocol.reference_statistics == "stored"
    assert _judge(project, [samples], both, "timm").rows[0].protocol.reference_statistics == "measured"
    with pytest.raises(ConfigError, match="FID's Inception"):
        _judge(project, [samples], "alone.npz", "timm")
    np.savez("other.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ShapeError, match="another network"):
        _judge(project, [samples], "other.npz")
    with pytest.raises(ConfigError, match="statistics alone"):
        _judge(project, ["alone.npz"], samples)


def test_sets_of_different_sizes_are_not_shown_side_by_side(project: Project) -> None:
    a, b, reference = _write("a.npz", 40), _write("b.npz", 50), _write("r.npz", 60)
    with pytest.raises(ConfigError, match=r"different protocols[\s\S]*n: 40 of a.npz, 50 of b.npz[\s\S]*-n"):
        _judge(project, [a, b], reference)
    one, other = _judge(project, [a, b], reference, n=40).rows
    assert one.protocol.digest == other.protocol.digest
    assert _judge(project, [a], reference, seed=1).rows[0].protocol.digest != one.protocol.digest
    with pytest.raises(ConfigError, match="network"):
        check_same([("a", one.protocol), ("b", _judge(project, [b], reference, "timm", n=40).rows[0].protocol)])


def test_a_reference_is_measured_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    a, reference = _write("a.npz", 40), _write("r.npz", 60)
    first = _judge(project, [a], reference).rows[0].numbers
    seen: list[int] = []
    call = _Colors.__call__
    monkeypatch.setattr(_Colors, "__call__", lambda self, images: seen.append(len(images)) or call(self, images))
    assert _judge(project, [a], reference).rows[0].numbers == first
    assert sum(seen) == 40
    _judge(project, [a], _write("r.npz", 61))
    assert sum(seen) == 40 + 40 + 61


def test_few_pictures_lead_with_what_is_valid_there(project: Project) -> None:
    judged = _judge(project, [_write("a.npz", 6)], _write("r.npz", 60), k=2)
    assert judged.leading[0] == "kid"
    assert "singular" in judged.why
    assert judged.n_real == 6


def test_features_that_are_not_finite(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = Seen(np.full((4, 3), np.nan, np.float32))
    monkeypatch.setattr(_Colors, "__call__", lambda _self, _images: nan)
    with pytest.raises(DataError, match="not finite"):
        _judge(project, [_write("a.npz", 4)], _write("r.npz", 4))
    assert not list(project.root.glob(".rcg/statistics/*"))


def test_choices_that_do_not_go_together(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    with pytest.raises(ConfigError, match="no such network"):
        Choice("resnet").config()
    with pytest.raises(ConfigError, match="needs its file"):
        Choice("inception").config()
    with pytest.raises(WeightsError, match="does not exist"):
        Choice("inception", file).config()
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="--model"):
        Choice("timm", file).config()


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.chdir(tmp_path)
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), "net.pth")
    a, reference = _write("a.npz", 8), _write("r.npz", 12)
    told = rcg(
        "evaluate",
        "--samples",
        a,
        "--samples",
        a,
        "--reference",
        reference,
        "--json",
        "out.json",
        "--bootstrap",
        "2",
        *("--network", "timm", "--model", "test_resnet", "--weights", "net.pth"),
    )
    found = json.loads(Path("out.json").read_text())
    one, other = found["rows"]
    assert one["numbers"] == other["numbers"]
    assert one["protocol"][:12] in told
    assert one["conditions"]["network"]["model"] == "test_resnet"
    assert {"fd", "fd_low", "fd_infinity", "kid", "mind", "precision", "coverage"} <= one["numbers"].keys()


def test_earlier_rows_stand_beside_new_ones_if_their_protocol_is_the_same(project: Project) -> None:
    a, b, reference = _write("a.npz", 40), _write("b.npz", 50), _write("r.npz", 60)
    earlier = _judge(project, [a], reference)
    Path("a.json").write_text(as_json(earlier))
    rows = _judge(project, [b], reference, n=40, beside=[Path("a.json")]).rows
    assert [row.name for row in rows] == [b, a]
    assert rows[1].numbers == earlier.rows[0].numbers
    with pytest.raises(ConfigError, match=r"n: 50 of b\.npz, 40 of a\.npz"):
        _judge(project, [b], reference, beside=[Path("a.json")])
    Path("a.json").write_text(as_json(earlier).replace('"n": 40', '"n": 50'))
    with pytest.raises(ArtifactError, match="edited by hand"):
        _judge(project, [b], reference, beside=[Path("a.json")])
    Path("a.json").write_text("[]")
    with pytest.raises(ArtifactError, match="not as it was written"):
        _judge(project, [b], reference, beside=[Path("a.json")])


def test_a_page_shows_pictures_numbers_and_their_protocol(project: Project) -> None:
    judged = _judge(project, [_write("a<b>.npz", 30), _write("c.npz", 30)], _write("r.npz", 60))
    told = page(judged)
    assert told == page(judged)
    assert told.count("data:image/png") == 3
    assert "a&lt;b&gt;.npz" in told
    assert "<b>.npz" not in told
    assert judged.rows[0].protocol.digest[:12] in told
    assert judged.rows[0].protocol.reference in told


def _draw(name: str, n: int, *, seed: int = 0, step: int = 1) -> str:
    """Pictures of 16 px with a lighter upper half, of any color, in blocks of `step` pixels."""
    rng = np.random.default_rng(seed)
    base = rng.normal(100, 30, (n, 1, 1, 3)) + np.linspace(60, 0, 16)[None, :, None, None]
    grain = rng.normal(0, 12, (n, 16 // step, 16 // step, 3)).repeat(step, 1).repeat(step, 2)
    np.savez(name, (base + grain).clip(0, 255).astype(np.uint8))
    return name


def test_the_judge_is_judged_and_blocks_and_sharpness_are_told(project: Project) -> None:
    reference = _draw("r.npz", 400)
    judged = _judge(
        project, [_draw("a.npz", 100, seed=1), _draw("b.npz", 100, seed=2, step=4)], reference, controls=True
    )
    fine, coarse = (row.numbers for row in judged.rows)
    assert fine["blockiness_ratio"] == pytest.approx(1, abs=0.05)
    assert coarse["blockiness_ratio"] > 2
    assert fine["equivalent_px"] <= 16
    assert judged.sight is not None
    assert not judged.sight.blind
    assert judged.sight.controls["noise"].fd > fine["control_fd"]
    assert {"kid", "blockiness_ratio", "equivalent_px"} <= set(columns(judged))
    assert "Can the judge see?" in page(judged)
    assert json.loads(as_json(judged))["controls"]["judge_blind"] == 0


def test_numbers_of_a_blind_judge_are_not_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = lambda _self, images: Seen(images[:, 0, 0].astype(np.float32))  # noqa: E731  (all but one pixel)
    monkeypatch.setattr(_Colors, "__call__", corner)
    judged = _judge(project, [_draw("a.npz", 100, seed=1)], _draw("r.npz", 400), controls=True)
    assert judged.sight is not None
    assert judged.sight.blind
    assert columns(judged) == ["blockiness_ratio"]
    assert any("judge is blind" in line for line in table(judged))
    assert "precision" not in "\n".join(table(judged)).partition("judge is blind")[0]
    assert "fid" in judged.rows[0].numbers, "the file has them, with the flag beside them"


def test_too_small_or_too_few_to_be_spoiled(project: Project) -> None:
    assert _judge(project, [_write("a.npz", 40)], _write("r.npz", 60), controls=True).sight is None
    assert _judge(project, [_draw("b.npz", 40)], _draw("few.npz", 7), controls=True).sight is None
