"""Splits: by content, near-duplicates together, and stable however the collection grows."""

import hashlib
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.collection.config import SplitConfig
from components.collection.duplicates import as_words, difference_hash, near_pairs
from components.collection.splits import LEFT_OUT, SPLITS, Splitter

CONFIG = SplitConfig(seed=0, val_share=0.2, test_share=0.3, near_bits=3)


def _hash(bits: int) -> bytes:
    return bits.to_bytes(16, "big")


def _bits_apart(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def _sha(i: object) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def _random_hashes(n: int, seed: int = 0) -> list[bytes]:
    return [row.tobytes() for row in np.random.default_rng(seed).integers(0, 256, (n, 16), np.uint8)]


# Hashes near a few centers, so that groups, chains and conflicts are common.
NEAR = st.builds(
    lambda center, flips: _hash((center * 0x1111_2222_4444_8888) ^ sum({1 << f for f in flips})),
    st.integers(0, 6),
    st.lists(st.integers(0, 9), max_size=6),
)
CHUNKS = st.lists(st.lists(NEAR, min_size=1, max_size=12), min_size=1, max_size=6)


def _assign(chunks: list[list[bytes]], config: SplitConfig = CONFIG) -> list[list[str]]:
    splitter = Splitter(config)
    return [splitter.assign([_sha((c, i)) for i in range(len(chunk))], chunk) for c, chunk in enumerate(chunks)]


@given(chunks=CHUNKS)
@settings(max_examples=150, deadline=None)
def test_no_two_near_pictures_are_in_different_splits(chunks: list[list[bytes]]) -> None:
    hashes = [h for chunk in chunks for h in chunk]
    splits = [s for names in _assign(chunks) for s in names]
    for i, a in enumerate(hashes):
        for j in range(i):
            if _bits_apart(a, hashes[j]) <= CONFIG.near_bits and LEFT_OUT not in (splits[i], splits[j]):
                assert splits[i] == splits[j]


@given(chunks=CHUNKS)
@settings(max_examples=100, deadline=None)
def test_new_chunks_move_nothing(chunks: list[list[bytes]]) -> None:
    everything = _assign(chunks)
    for n in range(1, len(chunks)):
        assert _assign(chunks[:n]) == everything[:n]


@given(chunks=CHUNKS)
@settings(max_examples=100, deadline=None)
def test_a_picture_is_left_out_only_when_it_is_near_two_splits(chunks: list[list[bytes]]) -> None:
    placed: list[tuple[bytes, str]] = []
    for chunk, names in zip(chunks, _assign(chunks), strict=True):
        placed += [(h, s) for h, s in zip(chunk, names, strict=True) if s != LEFT_OUT]
        for h, name in zip(chunk, names, strict=True):
            near = {s for other, s in placed if _bits_apart(h, other) <= CONFIG.near_bits}
            assert (name == LEFT_OUT) == (len(near) > 1)


def test_a_newcomer_joins_its_groups_split_and_a_bridge_is_left_out() -> None:
    splitter = Splitter(SplitConfig(seed=0, val_share=0.3, test_share=0.3, near_bits=2))
    far_apart = [_hash(0b1111 << (20 * i)) for i in range(6)]
    first = splitter.assign([_sha(i) for i in range(6)], far_apart)
    assert len(set(first)) == 3
    a = 0
    b = next(i for i in range(6) if first[i] != first[a])
    joins = _hash(int.from_bytes(far_apart[b], "big") ^ 1)
    assert splitter.assign([_sha("joins")], [joins]) == [first[b]]
    # a chain of newcomers, bit by bit from a (0) to b (8): they follow a until one is also near b, at 6
    bits = [int.from_bytes(far_apart[i], "big") for i in (a, b)]
    differing = [i for i in range(128) if (bits[0] ^ bits[1]) >> i & 1]
    chain = [bits[0]]
    for i in differing:
        chain.append(chain[-1] ^ (1 << i))
    names = splitter.assign([_sha(("chain", i)) for i in range(1, 8)], [_hash(h) for h in chain[1:8]])
    assert len(differing) == 8
    assert names == [first[a]] * 5 + [LEFT_OUT] * 2
    later = splitter.assign([_sha("later")], [_hash(chain[7])])
    assert later == [LEFT_OUT]  # still near both


def test_equal_pictures_share_their_fate_even_with_zero_bits() -> None:
    h = _random_hashes(1)[0]
    config = CONFIG.model_copy(update={"near_bits": 0})
    names = [name for chunk in _assign([[h] * 40, [h] * 40], config) for name in chunk]
    assert len(set(names)) == 1


def test_shares_and_independence_of_order() -> None:
    hashes = _random_hashes(4000)
    shas = [_sha(i) for i in range(4000)]
    names = Splitter(CONFIG).assign(shas, hashes)
    counts = Counter(names)
    assert counts["val"] / 4000 == pytest.approx(0.2, abs=0.02)
    assert counts["test"] / 4000 == pytest.approx(0.3, abs=0.02)
    assert Splitter(CONFIG).assign(shas[::-1], hashes[::-1]) == names[::-1]
    other = Splitter(CONFIG.model_copy(update={"seed": 1})).assign(shas, hashes)
    assert 0.3 < np.mean([a == b for a, b in zip(names, other, strict=True)]) < 0.5  # sum of squared shares: 0.38


def test_groups_are_spread_like_single_pictures() -> None:
    """The smallest of many digests is no uniform number; the split must not follow its size."""
    hashes = [h for h in _random_hashes(1500) for _ in range(4)]
    names = Splitter(CONFIG).assign([_sha(i) for i in range(6000)], hashes)
    assert Counter(names)["test"] / 6000 == pytest.approx(0.3, abs=0.04)


def test_a_wider_val_split_moves_no_test_picture() -> None:
    hashes, shas = _random_hashes(500), [_sha(i) for i in range(500)]
    narrow = Splitter(CONFIG).assign(shas, hashes)
    wide = Splitter(CONFIG.model_copy(update={"val_share": 0.4})).assign(shas, hashes)
    assert [n == "test" for n in narrow] == [w == "test" for w in wide]
    assert all(w == "val" for n, w in zip(narrow, wide, strict=True) if n == "val")


def test_an_empty_chunk_and_the_count_of_near_duplicates() -> None:
    splitter = Splitter(CONFIG)
    assert splitter.assign([], []) == []
    a, b = _random_hashes(2)
    splitter.assign([_sha(0), _sha(1), _sha(2)], [a, a, b])
    assert splitter.n_near == 2
    splitter.assign([_sha(3)], [b])
    assert splitter.n_near == 3
    assert set(SPLITS) == {"train", "val", "test"}


@given(n=st.integers(0, 40), m=st.integers(0, 40), bits=st.integers(0, 70), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_near_pairs_are_all_pairs_within_the_distance(n: int, m: int, bits: int, seed: int) -> None:
    a, b = _random_hashes(n, seed), _random_hashes(m, seed + 1)
    found = {(int(i), int(j)) for i, j in _pairs(a, b, bits)}
    assert found == {(i, j) for i in range(n) for j in range(m) if _bits_apart(a[i], b[j]) <= bits}


def test_near_pairs_across_blocks() -> None:
    a = _random_hashes(2500)
    found = list(_pairs(a[:600], a, 5))
    assert sorted(found) == [(i, i) for i in range(600)]


def _pairs(a: list[bytes], b: list[bytes], bits: int) -> list[tuple[int, int]]:
    blocks = near_pairs(as_words(a), as_words(b), bits)
    return [(int(i), int(j)) for rows, columns in blocks for i, j in zip(rows, columns, strict=True)]


def _scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def test_a_smaller_recompressed_copy_is_near_and_another_picture_is_far() -> None:
    for seed in range(8):
        original = _scene(seed)
        buffer = io.BytesIO()
        original.resize((101, 76)).save(buffer, "JPEG", quality=70)
        copy = Image.open(buffer).convert("RGB")
        assert _bits_apart(difference_hash(original), difference_hash(copy)) <= 6
        assert _bits_apart(difference_hash(original), difference_hash(_scene(seed + 100))) > 30


def test_the_hash_is_a_known_function() -> None:
    ramp = Image.fromarray(np.tile(np.arange(9, dtype=np.uint8) * 20, (9, 1))).convert("RGB")
    assert difference_hash(ramp) == b"\xff" * 8 + bytes(8)
    assert difference_hash(ramp.transpose(Image.Transpose.TRANSPOSE)) == bytes(8) + b"\xff" * 8
    assert difference_hash(Image.new("RGB", (50, 30), (7, 8, 9))) == bytes(16)


GROUPED = st.lists(
    st.lists(st.tuples(NEAR, st.one_of(st.none(), st.sampled_from("ABCDEFGH"))), min_size=1, max_size=12),
    min_size=1,
    max_size=6,
)


def _assign_grouped(chunks: list[list[tuple[bytes, str | None]]]) -> list[list[str]]:
    splitter = Splitter(CONFIG)
    return [
        splitter.assign([_sha((c, i)) for i in range(len(chunk))], [h for h, _ in chunk], [g for _, g in chunk])
        for c, chunk in enumerate(chunks)
    ]


@given(chunks=GROUPED)
@settings(max_examples=150, deadline=None)
def test_neither_near_pictures_nor_a_group_are_in_two_splits(chunks: list[list[tuple[bytes, str | None]]]) -> None:
    everything = _assign_grouped(chunks)
    placed = [
        (h, g, split)
        for chunk, names in zip(chunks, everything, strict=True)
        for (h, g), split in zip(chunk, names, strict=True)
        if split != LEFT_OUT
    ]
    for i, (h, g, split) in enumerate(placed):
        for other, other_g, other_split in placed[:i]:
            if _bits_apart(h, other) <= CONFIG.near_bits or (g is not None and g == other_g):
                assert split == other_split
    for n in range(1, len(chunks)):
        assert _assign_grouped(chunks[:n]) == everything[:n]


def test_a_group_keeps_its_split_when_it_is_drawn_anew_and_grows() -> None:
    hashes, groups = _random_hashes(120), [str(i % 40) for i in range(120)]
    first = Splitter(CONFIG).assign([_sha(i) for i in range(120)], hashes, groups)
    splits = dict(zip(groups, first, strict=True))
    assert set(splits.values()) == set(SPLITS)
    assert all(splits[group] == split for group, split in zip(groups, first, strict=True))
    redrawn = Splitter(CONFIG)
    for start in range(0, 120, 25):  # other bytes, other chunks, even one at a time
        shas = [_sha(("new", i)) for i in range(start, min(start + 25, 120))]
        part = slice(start, start + 25)
        names = redrawn.assign(shas, _random_hashes(120, 7)[part], groups[part])
        assert names == [splits[group] for group in groups[part]]


def test_a_picture_near_one_split_and_of_a_group_in_another_is_left_out() -> None:
    hashes = _random_hashes(12)
    splitter = Splitter(CONFIG)
    names = splitter.assign([_sha(i) for i in range(12)], hashes, [str(i) for i in range(12)])
    other = next(i for i in range(12) if names[i] != names[0])
    near = _hash(int.from_bytes(hashes[other], "big") ^ 1)
    assert splitter.assign([_sha("both")], [near], ["0"]) == [LEFT_OUT]
    assert splitter.assign([_sha("one")], [near], [str(other)]) == [names[other]]
    assert splitter.n_near == 2
