"""From measured numbers to a verdict: the conditions of the gate, one by one. No I/O."""

from collections.abc import Iterator, Mapping

from flows.gate.decisions import Check, Interval
from flows.pipeline.policy import GateParams

_PARTS = {"all": "all held-out images", "known": "the held-out images that the champion's collection had too"}


def checks(
    gate: GateParams, metrics: Mapping[str, float], differences: Mapping[str, Interval], *, first: bool
) -> list[Check]:
    """Floors and ceiling of the challenger, then, unless it is the first model ever, the comparison."""
    found = list(_absolute(gate, metrics))
    if first:
        return found
    found.append(_compared("all", differences.get("all"), gate.margin))
    if gate.margin_known is not None:
        found.append(_compared("known", differences.get("known"), gate.margin_known))
    return found


def _absolute(gate: GateParams, metrics: Mapping[str, float]) -> Iterator[Check]:
    for name, least in (("precision", gate.min_precision), ("recall", gate.min_recall)):
        value = metrics[name]
        yield Check(name=name, passed=value >= least, text=f"{name} {value:.3f}, at least {least:g} wanted")
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
