"""Find rows that are alike among millions: equal values, and 64-bit hashes that differ in a few bits."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Hashes = NDArray[np.uint64]
MAX_DISTANCE = 8
_AGREEING = 3
_BITS = 64


def first_equal(values: NDArray[np.generic]) -> Places:
    """Return for each of N values the place of the first that equals it: its own where there is none before."""
    _, first, kind = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(first[kind], dtype=np.int64)


def first_same(digests: NDArray[np.bytes_]) -> Places:
    """Return what `first_equal` does for digests of 32 bytes, in a third of the memory: by the first 64 bits alone.

    Where two digests share these and are not equal, as once in ten million sets of a million, all bytes are sorted.
    """
    first = first_equal(digests.view(np.uint64).reshape(-1, 4)[:, 0])
    return first if (digests[first] == digests).all() else first_equal(digests)


def first_near(hashes: Hashes, distance: int) -> Places:
    """Return for each of N hashes the first place whose hash differs in at most `distance` bits: at most its own."""
    distinct, first, kind = np.unique(hashes, return_index=True, return_inverse=True)
    nearest = first.copy()
    for one, other in near_pairs(distinct, distance):
        np.minimum.at(nearest, one, first[other])
        np.minimum.at(nearest, other, first[one])
    return nearest[kind].astype(np.int64)


def first_kept(hashes: Hashes, distance: int) -> Places:
    """Return for each of N hashes the first place it is alike, of those that are kept: its own where it is kept.

    In their order, each hash is kept unless a kept one differs in at most `distance` bits. So no two that are kept are
    alike, and a long chain of small steps keeps a link wherever the steps add up.
    """
    distinct, first, kind = np.unique(hashes, return_index=True, return_inverse=True)
    pairs = [np.stack([first[one], first[other]], axis=1) for one, other in near_pairs(distinct, distance)]
    earlier_later = np.sort(np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs]), axis=1)
    keeper = np.arange(len(hashes))
    for earlier, later in earlier_later[np.lexsort(earlier_later.T)].tolist():
        if keeper[later] == later and keeper[earlier] == earlier:
            keeper[later] = earlier
    return keeper[first[kind]].astype(np.int64)


def near_pairs(hashes: Hashes, distance: int) -> Iterator[tuple[Places, Places]]:
    """Yield, in pieces, the places of both members of every pair that differs in at most `distance` bits, each once.

    The bits are cut into distance + 3 blocks. At most `distance` of them hold a difference, so that three agree whole:
    sorting by each choice of three blocks brings every such pair together, and for hashes that are spread out hardly
    another (Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling", 2007). Memory is a few times that of
    the hashes; time grows with n log n and with the pairs that share three blocks.

    Args:
        hashes: (N,), no two equal.
        distance: From 0 to MAX_DISTANCE bits.
    """
    cuts = np.array_split(np.arange(_BITS, dtype=np.uint64), distance + _AGREEING)
    blocks = [np.bitwise_or.reduce(np.uint64(1) << bits) for bits in cuts]
    for chosen in combinations(range(len(blocks)), _AGREEING):
        earlier = [blocks[i] for i in range(chosen[-1]) if i not in chosen]
        mask = np.bitwise_or.reduce(np.array([blocks[i] for i in chosen]))
        for one, other in _pairs_that_share(hashes, mask):
            differing = hashes[one] ^ hashes[other]
            wanted = np.bitwise_count(differing) <= distance
            for block in earlier:  # a pair that agrees in an earlier block is found by another choice
                wanted &= (differing & block) != 0
            yield one[wanted], other[wanted]


def _pairs_that_share(hashes: Hashes, mask: np.uint64) -> Iterator[tuple[Places, Places]]:
    """Pair every hash with those that agree with it under a mask: by sorting, one step apart, then two, and so on."""
    keys = hashes & mask
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    alive, step = np.arange(len(hashes)), 0
    while True:
        step += 1
        alive = alive[alive + step < len(keys)]
        alive = alive[keys[alive] == keys[alive + step]]
        if not len(alive):
            return
        yield order[alive], order[alive + step]
