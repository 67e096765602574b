"""From measured numbers to a verdict: the conditions of the gate, one by one. No I/O."""

from collections.abc import Iterator, Mapping, Sequence

from components.metrics.advice import FIX
from flows.gate.decisions import Check, Interval
from flows.pipeline.policy import GateParams

JUDGE = "judge"
"""Name of the check that fails where the judge cannot tell noise from pictures, or has not learned."""
_PARTS = {"all": "all held-out images", "known": "the held-out images that the champion's collection had too"}


def checks(
    gate: GateParams,
    metrics: Mapping[str, float],
    differences: Mapping[str, Interval],
    *,
    first: bool,
    blind: Sequence[str] = (),
) -> list[Check]:
    """Floors and ceiling of the challenger, then, unless it is the first model ever, the comparison.

    `blind`: why the judge is, and then that is the only check, for its numbers mean nothing. metrics["precision_blind"]
    is 1 where noise passes for real picture by picture, so that no floor of precision or recall is known to be met.
    """
    if blind:
        return [Check(name=JUDGE, passed=False, text=_blind(blind))]
    found = list(_absolute(gate, metrics))
    if first:
        return found
    found.append(_compared("all", differences.get("all"), gate.margin))
    if gate.margin_known is not None:
        found.append(_compared("known", differences.get("known"), gate.margin_known))
    return found


def _blind(reasons: Sequence[str]) -> str:
    return (
        f"the judge is blind, nothing is promoted on its numbers. Got: {'; '.join(reasons)}. Expected: a network that "
        f"tells noise and shuffled patches from held-out pictures, and has learned what it names. Fix: {FIX}"
    )


def _absolute(gate: GateParams, metrics: Mapping[str, float]) -> Iterator[Check]:
    for name, least in (("precision", gate.min_precision), ("recall", gate.min_recall)):
        value, fooled = metrics[name], bool(metrics.get("precision_blind")) and least > 0
        text = f"{name} {value:.3f}, at least {least:g} wanted"
        if fooled:
            text += f"; but noise would pass as well with this judge, so the floor proves nothing. {FIX}"
        yield Check(name=name, passed=value >= least and not fooled, text=text)
    for name, where in (("memorization_share", "features"), ("memorization_share_pixels", "pixels")):
        value = metrics[name]
        text = f"{value:.1%} of the images are suspiciously close to a training image in {where}, at most "
        yield Check(name=name, passed=value <= gate.max_memorization, text=f"{text}{gate.max_memorization:.1%} wanted")


def _compared(part: str, d: Interval | None, margin: float) -> Check:
    name = f"distance_{part}"
    if d is None:
        text = (
            f"cannot be compared on {_PARTS[part]}: there are too few of them. After a collection was started over, "
            "set gate.margin_known: null for one promotion"
        )
        return Check(name=name, passed=False, text=text)
    text = (
        f"Frechet distance {d.value:+.4g} against the champion ({d.low:+.4g} … {d.high:+.4g}) on {_PARTS[part]} "
        f"({d.n_real}); the interval may reach {d.limit:+.4g}, {margin:.0%} of the champion's"
    )
    return Check(name=name, passed=d.high <= d.limit, text=text)
