"""Searching for hashes that are nearly equal, against comparing every pair."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.numbers.duplicates import MAX_DISTANCE, first_equal, first_kept, first_near, first_same, near_pairs


def distances(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Every pair's number of differing bits, counted on text."""
    return np.array([[bin(int(a) ^ int(b)).count("1") for b in hashes] for a in hashes])


def clustered(count: int, seed: int) -> NDArray[np.uint64]:
    """Hashes around a few centres, 0 to 10 bits away, with repetitions."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, max(1, count // 10), dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), count)]
    for i in range(count):
        for bit in rng.integers(0, 64, rng.integers(0, 11)):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    return hashes


@pytest.mark.parametrize("distance", [0, 1, 3, 4, MAX_DISTANCE])
def test_every_near_pair_is_found_once_and_no_other(distance: int) -> None:
    hashes = np.unique(clustered(250, distance))
    found = [
        tuple(sorted(pair)) for one, other in near_pairs(hashes, distance) for pair in zip(one, other, strict=True)
    ]
    near = np.argwhere(np.triu(distances(hashes) <= distance, 1))
    assert sorted(found) == sorted(map(tuple, near.tolist()))
    assert len(near) or distance == 0


def test_hashes_that_share_all_blocks_but_one_are_compared_all_with_all() -> None:
    hashes = np.arange(64, dtype=np.uint64)
    found = sum(len(one) for one, _ in near_pairs(hashes, 2))
    assert found == (np.triu(distances(hashes) <= 2, 1)).sum()


@pytest.mark.parametrize("distance", [0, 4])
def test_the_first_near_hash_is_the_first_of_all_near_ones(distance: int) -> None:
    hashes = clustered(250, 7)
    np.testing.assert_array_equal(first_near(hashes, distance), (distances(hashes) <= distance).argmax(axis=1))


@pytest.mark.parametrize("distance", [0, 4])
def test_no_two_kept_hashes_are_near_and_each_other_one_is_near_a_kept_one(distance: int) -> None:
    hashes = clustered(250, 8)
    keeper, near = first_kept(hashes, distance), distances(hashes) <= distance
    kept = keeper == np.arange(len(hashes))
    assert near[np.ix_(kept, kept)].sum() == kept.sum()
    assert kept[keeper].all()
    # Each is near its keeper, or has the hash of one that is.
    assert near[np.arange(len(hashes)), keeper].all()
    assert (keeper <= np.arange(len(hashes))).all()
    assert 0 < kept.sum() < len(hashes)


def test_a_chain_of_small_steps_keeps_every_link_that_is_far_enough() -> None:
    chain = np.array([(1 << i) - 1 for i in range(13)], dtype=np.uint64)  # each step sets one more bit
    assert first_kept(chain, 4).tolist() == [0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10, 10]


def test_equal_values_point_to_the_first_of_them() -> None:
    assert first_equal(np.array([b"b", b"a", b"b", b"c", b"a"])).tolist() == [0, 1, 0, 3, 1]


def test_nothing_is_alike_in_an_empty_set() -> None:
    none = np.zeros(0, dtype=np.uint64)
    assert len(first_near(none, 4)) == len(first_kept(none, 4)) == 0


def test_time_grows_almost_as_the_number_of_rows() -> None:
    def seconds(count: int) -> float:
        hashes = np.random.default_rng(0).integers(0, 2**63, count, dtype=np.uint64)
        hashes[-1] = hashes[0] ^ np.uint64(0b1111 << 20)
        begun = time.process_time()
        assert first_near(hashes, 4)[-1] == 0
        return time.process_time() - begun

    seconds(1000)
    assert seconds(100_000) < 40 * seconds(10_000)  # all pairs would take a hundred times as long


@pytest.mark.parametrize("alike", [8, 16, 31])
def test_digests_that_share_their_first_bits_are_not_taken_for_equal(alike: int) -> None:
    rng = np.random.default_rng(alike)
    digests = [rng.bytes(32) for _ in range(50)]
    digests += [digests[i] for i in (3, 3, 7)] + [digests[5][:alike] + b"\0" * (32 - alike)]
    found = first_same(np.array(digests, dtype="S32"))
    assert found.tolist() == [*range(50), 3, 3, 7, 53]
