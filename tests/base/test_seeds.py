"""Streams: reproducible to the bit on any machine, independent by name, with the right distributions."""

import hashlib

import numpy as np
import pytest

from benchmark.base.seeds import SEED_NAMES, Stream, hash64

_MASK = (1 << 64) - 1


def _philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox 4x64-10 (Salmon et al. 2011), written from the paper."""
    (k0, k1), (a, b, c, d) = key, counter
    for _ in range(10):
        left, right = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (right >> 64) ^ b ^ k0, right & _MASK, (left >> 64) ^ d ^ k1, left & _MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _MASK, (k1 + 0xBB67AE8584CAA73B) & _MASK
    return a, b, c, d


@pytest.mark.parametrize(
    ("seed", "purpose", "index", "first"),
    [
        (0, "noise", 0, [0x2D9A971441C0B567, 0x4231E0F21450D5D4, 0x40621FACCD32342B]),
        (0, "noise", 1, [0xB5E9061DB924848E, 0x8187A79F1268382C]),
        (7, "order", 3, [0x46878933E2B5E5EE, 0x50962D3166966347]),
    ],
)
def test_first_raw_words_never_change(seed: int, purpose: str, index: int, first: list[int]) -> None:
    assert Stream(seed, purpose, index).raw(len(first)).tolist() == first


def test_raw_words_are_philox_of_the_hashed_name() -> None:
    digest = hashlib.sha256(b"5\0init").digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    expected = [*_philox(key, (1, 0, 9, 0)), *_philox(key, (2, 0, 9, 0))]  # NumPy counts before it draws
    assert Stream(5, "init", 9).raw(8).tolist() == expected


def test_calls_continue_the_stream() -> None:
    whole, pieces = Stream(1, "noise").raw(10), Stream(1, "noise")
    assert np.array_equal(np.concatenate([pieces.raw(3), pieces.raw(7)]), whole)


def test_every_seed_purpose_and_index_has_its_own_stream() -> None:
    names = [(seed, name, index) for seed in range(3) for name in SEED_NAMES for index in (0, 1, 2, 1 << 40)]
    words = {word for name in names for word in Stream(*name).raw(64).tolist()}
    assert len(words) == 64 * len(names)


def test_seed_and_purpose_do_not_run_together() -> None:
    assert Stream(1, "1x").raw(1)[0] != Stream(11, "x").raw(1)[0]


def test_uniform_has_the_moments_of_the_unit_interval() -> None:
    draws = Stream(0, "test").uniform(100_000)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert draws.mean() == pytest.approx(0.5, abs=0.004)
    assert draws.var() == pytest.approx(1 / 12, abs=0.001)


def test_between_stays_in_its_range_and_fills_it() -> None:
    stream = Stream(0, "test")
    draws = np.array([stream.between(-3.0, 5.0) for _ in range(2000)])
    assert -3.0 <= draws.min() < -2.9
    assert 4.9 < draws.max() < 5.0


def test_choice_takes_every_value_equally_often() -> None:
    stream = Stream(0, "test")
    counts = np.bincount([stream.choice(5) for _ in range(5000)], minlength=5)
    assert len(counts) == 5
    assert np.abs(counts - 1000).max() < 120


def test_normal_has_standard_moments() -> None:
    draws = Stream(0, "test").normal((200_000,)).astype(np.float64)
    moments = [draws.mean(), (draws**2).mean(), (draws**3).mean(), (draws**4).mean()]
    assert np.allclose(moments, [0, 1, 0, 3], atol=0.06)
    assert 0.00236 < (np.abs(draws) > 3).mean() < 0.00304  # 0.0027 for a Gaussian


def test_normal_fills_odd_shapes_with_independent_values() -> None:
    draws = Stream(0, "test").normal((3, 5, 7))
    assert draws.shape == (3, 5, 7)
    assert draws.dtype == np.float32
    assert len(np.unique(draws)) == draws.size


def test_normal_pairs_are_uncorrelated() -> None:
    first, second = Stream(0, "test").normal((2, 50_000))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 0.015


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_holds_every_position_once(n: int) -> None:
    assert sorted(Stream(0, "order").permutation(n).tolist()) == list(range(n))


def test_permutations_are_uniform() -> None:
    orders = [tuple(Stream(0, "order", i).permutation(3).tolist()) for i in range(3000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert max(abs(count - 500) for count in counts) < 100


def test_hash64_is_the_head_of_sha256() -> None:
    assert hash64("order", "a/b.jpg") == int(hashlib.sha256(b"order\0a/b.jpg").hexdigest()[:16], 16)
    assert hash64("order", "a") != hash64("subset", "a")
