"""Each condition of the gate decides alone, at its limit and just beyond."""

import pytest

from flows.gate.decisions import Interval
from flows.gate.verdict import JUDGE, checks
from flows.pipeline.policy import GateParams

GATE = GateParams(
    seed=0,
    n=10,
    n_bootstrap=20,
    level=0.95,
    margin=0.1,
    margin_known=0.2,
    min_precision=0.5,
    min_recall=0.4,
    max_memorization=0.2,
)
GOOD = {"precision": 0.5, "recall": 0.4, "memorization_share": 0.2, "memorization_share_pixels": 0.2}


def _interval(high: float, limit: float = 0.1) -> Interval:
    return Interval(value=0.0, low=-0.1, high=high, limit=limit, n_real=100)


def _failed(gate: GateParams = GATE, *, first: bool = False, **changes: object) -> list[str]:
    differences = {"all": _interval(0.1), "known": _interval(0.2, 0.2)}
    differences |= {k: v for k, v in changes.items() if isinstance(v, Interval)}
    metrics = GOOD | {k: v for k, v in changes.items() if isinstance(v, float)}
    return [check.name for check in checks(gate, metrics, differences, first=first) if not check.passed]


def test_everything_at_its_limit_passes() -> None:
    assert _failed() == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("precision", {"precision": 0.499}),
        ("recall", {"recall": 0.399}),
        ("memorization_share", {"memorization_share": 0.201}),
        ("memorization_share_pixels", {"memorization_share_pixels": 0.201}),
        ("distance_all", {"all": _interval(0.1001)}),
        ("distance_known", {"known": _interval(0.2001, 0.2)}),
    ],
)
def test_one_condition_that_fails_is_named_alone(name: str, change: dict[str, object]) -> None:
    assert _failed(**change) == [name]


def test_first_model_is_judged_by_floors_alone() -> None:
    assert _failed(first=True, all=_interval(9.0)) == []
    assert _failed(first=True, recall=0.1) == ["recall"]


def test_what_cannot_be_compared_fails_unless_it_is_not_asked() -> None:
    missing = checks(GATE, GOOD, {"all": _interval(0.1)}, first=False)
    assert [check.name for check in missing if not check.passed] == ["distance_known"]
    assert "margin_known: null" in missing[-1].text
    unasked = GATE.model_copy(update={"margin_known": None})
    assert all(check.passed for check in checks(unasked, GOOD, {"all": _interval(0.1)}, first=False))


def test_a_blind_judge_is_the_only_reason() -> None:
    (found,) = checks(GATE, GOOD, {}, first=True, blind=["it takes noise for pictures"])
    assert (found.name, found.passed) == (JUDGE, False)
    assert "it takes noise for pictures" in found.text
    assert "evaluate.train.steps" in found.text


def test_a_floor_of_precision_is_not_met_where_noise_would_meet_it() -> None:
    fooled = GOOD | {"precision_blind": 1.0}
    assert _failed(first=True, precision_blind=1.0) == ["precision", "recall"]
    without = GATE.model_copy(update={"min_precision": 0.0, "min_recall": 0.0})
    assert all(check.passed for check in checks(without, fooled, {}, first=True))
