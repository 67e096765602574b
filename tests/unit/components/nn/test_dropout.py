import numpy as np
import torch

from components.nn.dropout import RowDropout, hash32, splitmix64
from components.rng import BatchRng


def test_a_share_is_dropped_and_the_rest_scaled() -> None:
    out = RowDropout(BatchRng(0, 4), 0.2)(torch.ones(4, 50, 500), 1)
    assert set(out.unique().tolist()) == {0.0, 1.25}
    assert abs(float((out == 0).float().mean()) - 0.2) < 0.005


def test_every_call_and_row_has_its_own_mask() -> None:
    drop, x = RowDropout(BatchRng(0, 2), 0.5), torch.ones(2, 1000)
    first, second = drop(x, 1) > 0, drop(x, 2) > 0
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        assert abs(float((a == b).float().mean()) - 0.5) < 0.08


def test_masks_behind_the_first_n_go_on_counting() -> None:
    drop, x = RowDropout(BatchRng(0, 2), 0.5), torch.ones(2, 1000)
    assert torch.equal(drop.after(3)(x, 2), drop(x, 5))


def test_a_row_is_dropped_alike_on_any_rank() -> None:
    x = torch.ones(4, 3, 7)
    whole = RowDropout(BatchRng(0, 4), 0.5)(x, 1)
    part = RowDropout(BatchRng(0, 4, start=1, stop=3), 0.5)(x[1:3], 1)
    assert torch.equal(part, whole[1:3])


def test_an_odd_number_of_elements() -> None:
    out = RowDropout(BatchRng(0, 3), 0.5)(torch.ones(3, 7, 3), 1)
    assert out.shape == (3, 7, 3)
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_keys_are_splitmix64() -> None:
    """Against 64-bit unsigned integers, and the first output for seed 0 of the published generator."""
    counters = np.array([0, 1, 2, 12345, 2**62, 2**63 - 1], dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = counters * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    assert int(z[1]) == 0xE220A8397B1DCDAF
    assert splitmix64(torch.from_numpy(counters.astype(np.int64))).tolist() == z.astype(np.int64).tolist()


def test_hash_is_lowbias32() -> None:
    """Against unsigned integers of any size."""
    expected = []
    for x in (0, 1, 12345, 2**31, 2**32 - 1):
        y = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        z = ((y ^ (y >> 15)) * 0x846CA68B) % 2**32
        expected.append(z ^ (z >> 16))
    numbers = np.array([0, 1, 12345, 2**31, 2**32 - 1], dtype=np.uint32).astype(np.int32)
    ours = hash32(torch.from_numpy(numbers)).numpy().astype(np.uint32)
    assert ours.tolist() == expected


def test_masks_are_uniform_and_uncorrelated() -> None:
    """Both halves of each hash, neighbors, rows and calls."""
    kept = torch.stack([RowDropout(BatchRng(seed, 2), 0.5)(torch.ones(2, 100_000), 1) > 0 for seed in range(4)])
    rows = kept.flatten(0, 1).double()
    assert float((rows.mean(1) - 0.5).abs().max()) < 0.008
    correlated = torch.corrcoef(torch.cat([rows, rows.roll(1, 1), rows.roll(2, 1)]))
    assert float((correlated - torch.eye(len(correlated))).abs().max()) < 0.016
    u = hash32(torch.arange(200_000, dtype=torch.int32)).view(torch.int16).float()
    counts = torch.histc(u, 50, -32768, 32767)
    chi2 = float(((counts - 8000).square() / 8000).sum())
    assert chi2 < 90  # 49 degrees of freedom: mean 49, standard deviation 10
