"""Several images of one sample are one observation: intervals over samples cover, whatever they share."""

import numpy as np
import pytest

from benchmark import registry
from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.observation import averaged

_N, _WIDTH, _SETS = 80, 6, 3
_KEYS = tuple(f"{i:04d}" for i in range(_N))


def _scored(name: str, seed: int) -> Score:
    """Return the mean score of three sets of vectors that owe nine tenths of their variance to their samples."""
    rng, metric = np.random.default_rng(seed), registry.make(Metric, name)
    shared, text = rng.normal(size=(_N, _WIDTH)), np.eye(1, _WIDTH).repeat(_N, axis=0)
    reference = {"scenes": np.random.default_rng(99).normal(size=(_N, _WIDTH)), "clip": shared, "clip_text": text}
    sets = [np.sqrt(0.9) * shared + np.sqrt(0.1) * rng.normal(size=shared.shape) + 0.3 for _ in range(_SETS)]
    tables = [Table(_KEYS, {"scenes": x, "clip": x, "clip_text": text}) for x in sets]
    (score,) = averaged([metric.score(table, Table(_KEYS, reference)) for table in tables])
    return score


def _coverage(name: str, repeats: int) -> float:
    scores = [_scored(name, seed) for seed in range(repeats)]
    truth = np.mean([score.estimate for score in scores])  # the estimates are unbiased
    return float(np.mean([score.low <= truth <= score.high for score in scores]))


def test_the_error_of_a_mean_over_several_images_is_that_of_its_samples() -> None:
    """Of images taken as independent it would be 1.67 times too small."""
    scores = [_scored("clip_score", seed) for seed in range(80)]
    expected = 100 * np.sqrt((0.9 + 0.1 / _SETS) / _N)
    assert np.sqrt(np.mean([score.stderr**2 for score in scores])) == pytest.approx(expected, rel=0.04)
    assert {(score.n, score.definition["sets"]) for score in scores} == {(_N, _SETS)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip_score", "kid", "fd"])
def test_intervals_over_several_images_cover(name: str) -> None:
    assert _coverage(name, 500) == pytest.approx(0.945, abs=0.035)
