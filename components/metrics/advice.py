"""What a person has to know before the numbers: what is missing for them to mean anything, and what would mend it."""

from dataclasses import dataclass

from components.errors import ConfigError

FIX = (
    "name a network from a file in evaluate.features, hold more pictures out, or, where it is trained here, raise "
    "evaluate.train.steps, width and pixels, or set evaluate.features.task: self, which needs no labels"
)
"""What makes a judge see."""
_FEW, _PER_FEATURE = 1000, 10
"""Pictures from which on the sliced distance ranks generators as FID does with 50,000 (2605.06797), and pictures for
each feature from which on a covariance is more than bias."""
FEW_LABELS = 100
"""Labeled held-out pictures below which no accuracy says much."""


@dataclass(frozen=True)
class Advice:
    """How to read the numbers of so many pictures."""

    leading: list[str]
    """Names of the numbers to read first; none: all are sound."""
    why: str
    remarks: list[str]
    """What so few pictures or labels cannot say, a clause each."""


def advise(n: int, n_real: int | None, dim: int, *, k: int, n_labels: int | None = None) -> Advice:
    """For n pictures against n_real ones (None: statistics alone) in `dim` features, k neighbors, n_labels labels.

    `n_labels`: labeled held-out pictures of a network that names labels; None where there is none.
    """
    fewest = n if n_real is None else min(n, n_real)
    remarks = []
    if n_real is not None and n_real <= 10 * k:
        remarks.append(f"precision and recall of {n_real} real pictures move by {1 / n_real:.0%} with each of them")
    if n_labels is not None and n_labels < FEW_LABELS:
        remarks.append(
            f"only {n_labels} held-out pictures have labels: accuracy, inception score and shares of classes say little"
        )
    if fewest >= _PER_FEATURE * dim and fewest >= _FEW:
        return Advice([], f"{fewest:,} pictures are enough for a covariance of {dim:,} features", remarks)
    bias = f"the Frechet distance of {dim:,} features"
    bias += (
        " has a singular covariance and is mostly bias"
        if fewest <= dim
        else " carries a bias that real pictures have, too"
    )
    if fewest < _FEW:
        leading, first = ["kid", "precision", "recall"], "KID, which is unbiased at any number, comes first"
    else:
        leading, first = ["mind", "kid"], "the sliced distance (MIND) and KID come first"
    return Advice(leading, f"{fewest:,} pictures are few: {first}; {bias}", remarks)


def check_width(dim: int, n_held_out: int) -> None:
    """Raises: ConfigError when the features are too many for a covariance over the held-out images."""
    if dim > n_held_out // 5:
        raise ConfigError(
            "too many features for so few held-out images: the Frechet distance would measure noise",
            got=f"evaluate.features.dim {dim} with {n_held_out} held-out images",
            expected=f"at most {n_held_out // 5}, a fifth of them",
            fix=f"set evaluate.features.dim: {n_held_out // 5}, or hold more images out"
            if n_held_out >= 10
            else "hold more images out (collect.splits)",
        )
