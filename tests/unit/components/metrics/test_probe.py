import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from components.errors import ShapeError
from components.metrics.probe import effective_rank, knn_accuracy, linear_probe_accuracy, neighbors


def _blobs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    centers = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=generator)
    return centers[y] + 0.9 * torch.randn(n, 6, generator=generator), y


def test_neighbors_are_nearest_first() -> None:
    bank = torch.tensor([[0.0, 0], [1, 0], [0, 3], [9, 9]])
    assert neighbors(torch.tensor([[0.9, 0.0]]), bank, 3).tolist() == [[1, 0, 2]]
    assert neighbors(bank, bank, 1, exclude_self=True).tolist() == [[1], [0], [0], [2]]
    assert neighbors(bank[:0], bank, 2).shape == (0, 2)


def test_blocks_do_not_change_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    z, _ = _blobs(50, 1)
    whole = neighbors(z, z, 3, exclude_self=True)
    monkeypatch.setattr("components.metrics.probe._BLOCK", 7)
    assert torch.equal(neighbors(z, z, 3, exclude_self=True), whole)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 or more rows"):
        neighbors(torch.zeros(1, 2), torch.zeros(2, 2), 3)
    with pytest.raises(ShapeError):
        neighbors(torch.zeros(3, 2), torch.zeros(3, 2), 3, exclude_self=True)


@pytest.mark.parametrize("k", [1, 3])
def test_knn_agrees_with_an_independent_implementation(k: int) -> None:
    (x, y), (x_test, y_test) = _blobs(300, 1), _blobs(200, 2)
    theirs = KNeighborsClassifier(k).fit(x.numpy(), y.numpy()).predict(x_test.numpy())
    ours = knn_accuracy(x, y, x_test, y_test, k=k)
    assert ours == pytest.approx(np.mean(theirs == y_test.numpy()), abs=0.0 if k == 1 else 0.015)  # ties differ


def test_of_tied_labels_the_nearest_wins() -> None:
    bank, labels = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([7, 5, 5, 7])
    assert knn_accuracy(bank, labels, torch.zeros(1, 1), torch.tensor([7]), k=4) == 1.0
    assert knn_accuracy(bank, labels, torch.zeros(1, 1), torch.tensor([5]), k=3) == 1.0


def test_linear_probe_agrees_with_an_independent_implementation() -> None:
    (x, y), (x_test, y_test) = _blobs(300, 1), _blobs(200, 2)
    scale = torch.tensor([1.0, 10, 0.1, 1, 100, 1])
    ours = linear_probe_accuracy(x * scale, y, x_test * scale, y_test, weight_decay=1e-3, iterations=100)
    standard = (x - x.mean(0)) / x.std(0), (x_test - x.mean(0)) / x.std(0)
    # sklearn minimizes the sum of losses + |w|^2 / (2 C)
    model = LogisticRegression(C=1 / (2 * 1e-3 * len(x)), max_iter=1000).fit(standard[0].numpy(), y.numpy())
    assert ours == pytest.approx(float(model.score(standard[1].numpy(), y_test.numpy())), abs=0.0051)


def test_effective_rank_counts_directions() -> None:
    axes = torch.eye(5).repeat(2, 1)
    axes[5:] *= -1
    assert effective_rank(axes) == pytest.approx(5.0)
    assert effective_rank(axes[:, :1].expand(-1, 4)) == pytest.approx(1.0)
    assert effective_rank(axes * torch.tensor([1.0, 1, 0, 0, 0])) == pytest.approx(2.0)
