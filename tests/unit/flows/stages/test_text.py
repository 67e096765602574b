"""The stage text: how captions are read, as metrics."""

import logging
from collections.abc import Sequence

import pytest
import torch

from components.base import Metrics
from components.text.base import Reading, TextEncoder, scaled
from components.text.model import TextModel
from flows.stages.text.run import describe


class Latin(TextEncoder):
    """Knows words of ASCII letters and no others."""

    dim, state_dim, max_tokens, files = 2, 2, 3, {}

    def read(self, texts: Sequence[str]) -> Reading:
        words = [text.split() for text in texts]
        pooled, states = scaled(torch.ones(len(texts), 2)), torch.ones(len(texts), 3, 2)
        return Reading(pooled, states, [len(w) for w in words], [sum(not x.isascii() for x in w) for w in words])


def measured(*captions: Sequence[str]) -> Metrics:
    return describe(TextModel(Latin(), states=False), captions)


@pytest.mark.parametrize(
    ("captions", "share", "warned"),
    [
        (["a red car", "the blue один"], 1 / 6, False),
        (["красный car", "синий car"], 0.5, True),
    ],
)
def test_the_share_of_unknown_tokens_is_told(
    captions: list[str], share: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert measured(captions)["unknown_share"] == pytest.approx(share)
    assert ("does not know 50 % of the captions' tokens" in caplog.text) is warned


def test_captions_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = measured(["one two three four", "one"], [], ["one"])
    assert (metrics["captioned"], metrics["distinct_captions"], metrics["cut_share"]) == (2, 2, 0.5)
    assert metrics["captioned_share"] == pytest.approx(2 / 3)
    assert measured([], []) == {"captioned": 0, "captioned_share": 0, "distinct_captions": 0}
    assert "no picture has a caption" in caplog.text
