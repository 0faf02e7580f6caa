"""Paired differences: the t test for means, and for everything else intervals that cover and errors that are true."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmark import registry
from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.numbers import jackknife
from benchmark.numbers.anchors import ANCHORS, anchored
from benchmark.numbers.frechet import Gaussian, frechet_distance
from benchmark.numbers.pairing import Difference, paired

Array = NDArray[np.float64]


def _pair(n: int, seed: int, shift: float = 0.1) -> tuple[Array, Array]:
    """Return two sets of values that share most of what their samples are."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n)
    return shared + shift + 0.3 * rng.normal(size=n), shared + 0.3 * rng.normal(size=n)


def _of_scores(a: Score, b: Score) -> Difference:
    return paired(a.estimate - b.estimate, np.array(a.influence), np.array(b.influence))


@pytest.mark.parametrize("n", [2, 5, 300])
def test_of_means_it_is_the_paired_t_test(n: int) -> None:
    a, b = _pair(n, 0)
    means = [jackknife.mean(values) for values in (a, b)]
    found = paired(means[0].value - means[1].value, *(mean.influence for mean in means))
    test = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.value / found.stderr == pytest.approx(test.statistic)
    assert found.n == n


@pytest.mark.parametrize("n", [24, 256])
def test_the_detectable_difference_is_found_four_times_of_five(n: int) -> None:
    a, b = _pair(n, 1)
    found = paired(float((a - b).mean()), a, b)
    limit, centre = stats.t.ppf(0.975, n - 1), found.detectable / found.stderr
    power = stats.nct.sf(limit, n - 1, centre) + stats.nct.cdf(-limit, n - 1, centre)
    assert power == pytest.approx(0.8, abs=0.01)


def test_a_difference_of_a_score_to_itself_is_nothing_and_a_shift_of_all_is_certain() -> None:
    a, _ = _pair(10, 0)
    same, shifted = paired(0.0, a, a), paired(0.5, a, a)
    assert (same.value, same.stderr, same.detectable, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert (shifted.low, shifted.high, shifted.p) == (0.5, 0.5, 0.0)


def test_of_ratios_it_is_the_jackknife_of_their_difference() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.gamma(2.0, size=(40, 2)) for _ in range(2)]

    def ratio(total: Array) -> Array:
        quotient: Array = total[..., 0] / total[..., 1]
        return quotient

    each = [jackknife.additive(one, ratio) for one in rows]
    kept = [np.delete(np.arange(40), i) for i in range(40)]
    left_out = [float(ratio(rows[0][k].sum(axis=0)) - ratio(rows[1][k].sum(axis=0))) for k in kept]
    found = paired(each[0].value - each[1].value, *(one.influence for one in each))
    assert found.stderr == pytest.approx(np.sqrt(39 * np.var(left_out)))


def _anchored_pair(seed: int) -> tuple[Score, Score]:
    """Return the normalised control of two runs on the same 60 samples, each a ratio of sums; A's truth is 0.1 more."""
    rng = np.random.default_rng(seed)
    pixels, ease = rng.gamma(4.0, size=60), 0.1 * rng.normal(size=60)
    scores = []
    for level in (0.7, 0.6):
        levels = {"run": level, "real": 1.0, "vae": 0.9, "no_control": 0.2, "shuffled": 0.1}
        share = {name: levels[name] + ease + 0.05 * rng.normal(size=60) for name in ("run", "real", "shuffled")}
        share |= {name: np.full(60, levels[name]) for name in ("vae", "no_control")}
        rows = {name: np.stack([share[name] * pixels, pixels], axis=1) for name in ANCHORS}
        score = anchored(rows, lambda total: {"share": total[..., 0] / total[..., 1]}, {})["share"].normalised
        assert score is not None
        scores.append(score)
    return scores[0], scores[1]


_WIDTH, _N = 8, 160
_KEYS = tuple(f"{i:04d}" for i in range(_N))
_REFERENCE = np.random.default_rng(99).normal(size=(_N, _WIDTH))
_SPREADS = (np.linspace(0.6, 1.5, _WIDTH), np.linspace(0.8, 1.3, _WIDTH))
_SHIFTS = (0.3, 0.2)


def _vectors(seed: int, n: int = _N) -> tuple[Array, Array]:
    """Return vectors of two runs on the same samples: four fifths of their variance is the samples'."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, _WIDTH))
    own = [np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.normal(size=(n, _WIDTH)) for _ in range(2)]
    return own[0] * _SPREADS[0] + _SHIFTS[0], own[1] * _SPREADS[1] + _SHIFTS[1]


def _metric_pair(name: str) -> Callable[[int], tuple[Score, Score]]:
    def scores(seed: int) -> tuple[Score, Score]:
        metric = registry.make(Metric, name)
        found = [
            metric.score(Table(_KEYS, {"scenes": x}), Table(_KEYS, {"scenes": _REFERENCE}))[0] for x in _vectors(seed)
        ]
        return found[0], found[1]

    return scores


def _frechet_truth() -> float:
    """Return the difference of the distances of the Gaussians that are drawn from, by their own moments."""
    fixed = Gaussian.fit(_REFERENCE)
    sides = [Gaussian(np.full(_WIDTH, m), np.diag(s**2), _N) for m, s in zip(_SHIFTS, _SPREADS, strict=True)]
    return frechet_distance(sides[0], fixed) - frechet_distance(sides[1], fixed)


def _check_coverage(pair: Callable[[int], tuple[Score, Score]], truth: float | None, repeats: int) -> None:
    """Hold an interval to its 95 %, its error to the spread of the differences, and pairing to being worth it.

    Where no truth is given the estimates are unbiased, and their mean stands for it.
    """
    scores = [pair(seed) for seed in range(repeats)]
    found = [_of_scores(a, b) for a, b in scores]
    values = np.array([one.value for one in found])
    aim = float(values.mean()) if truth is None else truth
    assert np.mean([one.low <= aim <= one.high for one in found]) == pytest.approx(0.95, abs=0.035)
    errors = np.array([one.stderr for one in found])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(ddof=1), rel=0.12)
    assert errors.mean() < 0.75 * np.mean([np.hypot(a.stderr, b.stderr) for a, b in scores])


def test_intervals_cover_for_ratios_of_sums_between_their_anchors() -> None:
    _check_coverage(_anchored_pair, 0.1 / 0.7, 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fd", "kid", "diversity"])
def test_intervals_cover_for_distances(name: str) -> None:
    _check_coverage(_metric_pair(name), _frechet_truth() if name == "fd" else None, 500)
