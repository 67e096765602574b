"""A set in batches of any size: the same features, moments and inception score as the set at once."""

from pathlib import Path

import numpy as np
import pytest

from components.errors import DataError
from components.metrics import measured
from components.metrics.inception_score import inception_score
from components.metrics.measured import measure
from components.metrics.networks.base import Identity, Seen

_IMAGES = np.random.default_rng(0).integers(0, 256, (23, 2, 2, 3), np.uint8)


class _Pixels:
    identity = Identity("pixels", "", "", "")

    def __call__(self, images: np.ndarray) -> Seen:
        x = images.reshape(len(images), -1).astype(np.float32) / 255
        return Seen(x[:, :4], x[:, 4:7], x[:, :3] / x[:, :3].sum(1, keepdims=True))

    def to(self, _device: object) -> "_Pixels":
        return self


@pytest.mark.parametrize("size", [1, 4, 23])
def test_batches_and_blocks_change_nothing(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "_BLOCK", 5)
    monkeypatch.setattr(measured, "INCEPTION_CHUNK", 10)
    done: list[int] = []
    batches = (_IMAGES[i : i + size] for i in range(0, 23, size))
    found = measure(batches, 23, _Pixels(), tmp_path, done.append)
    whole = _Pixels()(_IMAGES)
    assert whole.spatial is not None
    assert whole.probabilities is not None
    assert done[-1] == 23
    assert np.array_equal(found.features, whole.features)
    assert found.pooled.cov == pytest.approx(np.cov(whole.features.T.astype(np.float64)), rel=1e-10)
    assert found.spatial is not None
    assert found.spatial.cov == pytest.approx(np.cov(whole.spatial.T.astype(np.float64)), rel=1e-10)
    parts = [inception_score(whole.probabilities[i : i + 10]) for i in (0, 10, 20)]
    assert found.score == pytest.approx(np.mean(parts))


def test_fewer_pictures_than_were_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="23 pictures"):
        measure([_IMAGES], 24, _Pixels(), tmp_path, lambda _: None)
