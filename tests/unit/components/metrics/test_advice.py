"""What leads, and why: of few pictures what has no bias, of many everything; few labels are said, too."""

import pytest

from components.metrics.advice import advise
from components.metrics.names import MEANINGS, NAMES, shown


@pytest.mark.parametrize(
    ("n", "n_real", "dim", "leading"),
    [
        (800, 629, 64, ["kid", "precision", "recall"]),
        (50_000, 629, 64, ["kid", "precision", "recall"]),  # the smaller set decides
        (1000, 5000, 512, ["mind", "kid"]),
        (5000, None, 2048, ["mind", "kid"]),
        (1000, 1000, 64, []),
        (50_000, 10_000, 64, []),
    ],
)
def test_what_leads_follows_from_the_smaller_set(n: int, n_real: int | None, dim: int, leading: list[str]) -> None:
    found = advise(n, n_real, dim, k=3)
    assert found.leading == leading
    assert set(found.leading) <= NAMES.keys() == MEANINGS.keys()
    assert f"{min(n, n_real or n):,} pictures are {'few' if leading else 'enough'}" in found.why
    assert not found.remarks


def test_a_covariance_of_fewer_pictures_than_features_is_called_singular() -> None:
    assert "singular" in advise(100, 5000, 100, k=3).why
    assert "singular" not in advise(101, 5000, 100, k=3).why


def test_few_labels_and_few_real_pictures_are_said_once_each() -> None:
    assert advise(500, 400, 16, k=3, n_labels=100).remarks == []
    (labels,) = advise(500, 400, 16, k=3, n_labels=99).remarks
    assert labels.startswith("only 99 held-out pictures have labels")
    (real,) = advise(500, 25, 5, k=3).remarks
    assert real == "precision and recall of 25 real pictures move by 4% with each of them"
    assert advise(500, None, 5, k=3).remarks == []


def test_numbers_are_said_as_their_names_say_them() -> None:
    assert (shown("kid", 0.00123), shown("recall", 0.5), shown("fd", 12.3456)) == ("1.23", "0.500", "12.35")
