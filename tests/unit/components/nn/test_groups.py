"""Groups of rows: the same rows in the same order, whatever their number."""

import pytest
import torch
from torch import Tensor

from components.nn.groups import in_groups


@pytest.mark.parametrize(("n", "rows", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2]), (3, 0, [1, 1, 1])])
def test_rows_keep_their_order(n: int, rows: int, sizes: list[int]) -> None:
    seen = []

    def double(x: Tensor) -> Tensor:
        seen.append(len(x))
        return 2 * x

    x = torch.arange(4.0 * n).view(n, 4)
    assert torch.equal(in_groups(double, x, rows=rows), 2 * x)
    assert seen == sizes


def test_another_device_gets_the_whole_batch() -> None:
    seen = []
    in_groups(lambda x: seen.append(len(x)) or x, torch.empty(5, 2, device="meta"), rows=1)
    assert seen == [5]
