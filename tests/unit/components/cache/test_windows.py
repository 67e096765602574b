"""The order by window: each row once an epoch, the same for any number of workers, mixed as well as is said."""

import numpy as np
import pytest

from components.cache.config import Reading
from components.cache.windows import WindowOrder


@pytest.mark.parametrize(
    ("sizes", "batch_size", "lanes", "window"),
    [
        ([5, 0, 7, 3, 9], 4, 2, 2),
        ([5, 0, 7, 3, 9], 7, 128, 4),
        ([2], 5, 3, 4),
        ([50] * 20, 16, 4, 3),
        ([9, 1, 1], 5, 2, 2),
    ],
)
def test_an_epoch_has_each_row_once_and_a_batch_may_span_two(
    sizes: list[int], batch_size: int, lanes: int, window: int
) -> None:
    order = WindowOrder(np.array(sizes), Reading(lanes=lanes, window=window))
    n = sum(sizes)
    seen = np.concatenate(
        [order.indices(1, s, batch_size, slice(0, batch_size)) for s in range(3 * n // batch_size + 1)]
    )
    epochs = [seen[e * n : (e + 1) * n].tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert n < 4 or len({tuple(epoch) for epoch in epochs}) == 3


def test_rows_come_from_the_shards_that_were_announced() -> None:
    sizes = np.arange(3, 33)
    order, ends = WindowOrder(sizes, Reading(lanes=3, window=4)), np.cumsum(sizes)
    for step in range(0, 120, 7):
        rows = order.indices(0, step, 10, slice(2, 7))
        assert set(np.searchsorted(ends, rows, side="right")) <= set(
            order.shards(0, range(step, step + 1), 10, slice(2, 7))
        )


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_worker_reads_the_shards_of_its_lanes(world_size: int) -> None:
    order = WindowOrder(np.full(64, 40), Reading(lanes=4, window=2))
    steps = range(2560 // 32)
    read = []
    for rank in range(world_size):
        rows = slice(32 * rank // world_size, 32 * (rank + 1) // world_size)
        at_once = [len(order.shards(0, [step], 32, rows)) for step in steps]
        assert max(at_once) <= 4 // world_size * (2 + 1)  # a step at the border of two buckets touches both
        read.append(set(order.shards(0, steps, 32, rows)))
    lane = 64 // world_size
    assert all(lane <= len(shards) <= lane + 4 for shards in read)


def test_batches_vary_by_as_much_as_is_said() -> None:
    """Worst case: all rows of a shard are alike. docs/scale.md: 1 + b / (lanes window) times a full shuffle's."""
    lanes, window, b = 8, 4, 64
    order = WindowOrder(np.full(256, 64), Reading(lanes=lanes, window=window))
    means = [order.indices(s, step, b, slice(0, b)) // 64 for s in range(2) for step in range(256)]
    ratio = np.var([m.mean() for m in means]) / (np.var(np.arange(256)) / b)
    assert 0.5 < ratio < 1 + b / (lanes * window)


def test_epochs_are_as_independent_as_full_shuffles() -> None:
    order = WindowOrder(np.full(200, 20), Reading(lanes=4, window=4))
    first, second = (
        np.argsort(np.concatenate([order.indices(0, s, 40, slice(0, 40)) for s in range(e * 100, e * 100 + 100)]))
        for e in range(2)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(200)
