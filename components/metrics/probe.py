"""How much a representation knows about labels it never saw: nearest neighbors and a linear probe."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.errors import ShapeError

_BLOCK = 1024  # rows per distance matrix: memory stays flat in the number of queries


def neighbors(
    queries: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], k: int, *, exclude_self: bool = False
) -> Int[Tensor, "n k"]:
    """Indices of the k rows of bank nearest to each query in Euclidean distance, nearest first.

    exclude_self: queries are the bank; a row is not its own neighbor. Raises: ShapeError unless bank has enough rows.
    """
    if len(bank) < k + exclude_self or queries.shape[1:] != bank.shape[1:]:
        raise ShapeError("too few rows to search, or of another width", got=bank.shape, expected=f"{k} or more rows")
    found = []
    for start in range(0, len(queries), _BLOCK):
        distance = torch.cdist(queries[start : start + _BLOCK].double(), bank.double())
        if exclude_self:
            own = torch.arange(len(distance))
            distance[own, own + start] = torch.inf
        found.append(distance.topk(k, largest=False).indices)
    return torch.cat(found) if found else torch.empty((0, k), dtype=torch.int64)


def knn_accuracy(
    train: Float[Tensor, "m d"],
    train_y: Int[Tensor, " m"],
    test: Float[Tensor, "n d"],
    test_y: Int[Tensor, " n"],
    k: int,
) -> float:
    """Share of test rows whose k nearest training rows vote for their label; of tied labels the nearest one wins."""
    nearest = train_y[neighbors(test, train, k)]  # (n, k)
    same = nearest[:, :, None] == nearest[:, None, :]
    votes = same.sum(2) * k - torch.arange(k)  # votes first, then the rank of the label's nearest row
    guess = nearest.gather(1, votes.argmax(1, keepdim=True))[:, 0]
    return float((guess == test_y).double().mean())


def linear_probe(
    x: Float[Tensor, "m d"], y: Int[Tensor, " m"], n_classes: int, *, weight_decay: float, iterations: int
) -> Callable[[Tensor], Tensor]:
    """Multinomial logistic regression fitted by L-BFGS from zero, as rows (n, d) -> classes (n,).

    Columns are scaled to unit variance.
    """
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    rows = (x - mean) / std
    weight = torch.zeros(x.shape[1], n_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(rows @ weight + bias, y) + weight_decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted, offset = weight.detach(), bias.detach()
    return lambda some: ((some - mean) / std @ fitted + offset).argmax(1)


def linear_probe_accuracy(
    train: Float[Tensor, "m d"],
    train_y: Int[Tensor, " m"],
    test: Float[Tensor, "n d"],
    test_y: Int[Tensor, " n"],
    *,
    weight_decay: float,
    iterations: int,
) -> float:
    """Accuracy of linear_probe()."""
    n_classes = int(max(train_y.max(), test_y.max())) + 1
    guess = linear_probe(train, train_y, n_classes, weight_decay=weight_decay, iterations=iterations)
    return float((guess(test) == test_y).double().mean())


def effective_rank(z: Float[Tensor, "n d"]) -> float:
    """exp of the entropy of the covariance's normalized eigenvalues: d when all directions are alike, 1 if one is used.

    Paper: Roy and Vetterli 2007, with eigenvalues of the covariance in place of singular values.
    """
    centered = (z - z.mean(0)).double()
    share = torch.linalg.eigvalsh(centered.T @ centered).clamp(min=0)
    share = share / share.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return float(torch.special.entr(share).sum().exp())
