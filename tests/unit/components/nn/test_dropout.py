import numpy as np
import torch

from components.nn.dropout import RowDropout, uniform_hash
from components.rng import BatchRng


def test_a_share_is_dropped_and_the_rest_scaled() -> None:
    out = RowDropout(BatchRng(0, 4), 0.2)(torch.ones(4, 50, 500))
    assert set(out.unique().tolist()) == {0.0, 1.25}
    assert abs(float((out == 0).float().mean()) - 0.2) < 0.005


def test_every_call_and_row_has_its_own_mask() -> None:
    drop, x = RowDropout(BatchRng(0, 2), 0.5), torch.ones(2, 1000)
    first, second = drop(x) > 0, drop(x) > 0
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        assert abs(float((a == b).float().mean()) - 0.5) < 0.08


def test_a_row_is_dropped_alike_on_any_rank() -> None:
    x = torch.ones(4, 3, 7)
    whole = RowDropout(BatchRng(0, 4), 0.5)(x)
    part = RowDropout(BatchRng(0, 4, start=1, stop=3), 0.5)(x[1:3])
    assert torch.equal(part, whole[1:3])


def test_hash_is_splitmix64() -> None:
    """Against 64-bit unsigned integers, and the first output for seed 0 of the published generator."""
    counters = np.array([0, 1, 2, 12345, 2**62, 2**63 - 1], dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = counters * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    assert int(z[1]) == 0xE220A8397B1DCDAF
    expected = torch.tensor([float(v >> 40) / 2**24 for v in z.tolist()])
    assert torch.equal(uniform_hash(torch.from_numpy(counters.astype(np.int64))), expected)


def test_hash_is_uniform() -> None:
    u = uniform_hash(torch.arange(200_000))
    counts = torch.histc(u, 50, 0, 1)
    chi2 = float(((counts - 4000).square() / 4000).sum())
    assert chi2 < 90  # 49 degrees of freedom: mean 49, standard deviation 10
    assert abs(float(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1])) < 0.01
