"""A condition score between its anchors: floor, ceiling, and where the run lies between them."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.records import Anchored
from benchmark.numbers import jackknife

Array = NDArray[np.float64]
Scores = Callable[[Array], dict[str, Array]]
ANCHORS = ("run", "real", "vae", "no_control", "shuffled")


def anchored(
    rows: Mapping[str, Array], scores: Scores, definition: dict[str, object], errors: frozenset[str] = frozenset()
) -> dict[str, Anchored]:
    """Return every score of a condition with its anchors.

    Args:
        rows: Additive comparison rows (N, K) of the same N samples for each name in ANCHORS.
        scores: The condition's `scores`: sums (..., K) to named values (...).
        definition: What the numbers depend on, kept with each.
        errors: Names of scores of which less is better; the normalised score grows with control for all.
    """
    names = list(scores(rows["run"].sum(axis=0)))
    return {name: _anchored(rows, scores, name, definition, name not in errors) for name in names}


def _anchored(
    rows: Mapping[str, Array], scores: Scores, name: str, definition: dict[str, object], more_is_better: bool
) -> Anchored:
    def statistic(total: Array) -> Array:
        return scores(total)[name]

    parts = {
        a: jackknife.additive(rows[a], statistic).score(f"{name}.{a}", more_is_better, definition) for a in ANCHORS
    }
    joint = np.concatenate([rows["run"], rows["vae"], rows["no_control"]], axis=1)

    def normalised(total: Array) -> Array:
        run, vae, floor = (statistic(part) for part in np.split(total, 3, axis=-1))
        with np.errstate(divide="ignore", invalid="ignore"):  # `_whole` looks at what comes of it
            return (run - floor) / (vae - floor)

    room = parts["vae"].value - parts["no_control"].value
    has_room = room > 0 if more_is_better else room < 0
    control = _whole(jackknife.additive(joint, normalised)) if has_room else None
    gain = _gain(rows, statistic, 1 if more_is_better else -1)
    return Anchored(
        **parts,
        normalised=control.score(f"{name}.normalised", True, definition) if control else None,
        gain=gain.score(f"{name}.gain", True, definition),
    )


def _whole(estimate: jackknife.Estimate) -> jackknife.Estimate | None:
    """Return an estimate, or None of one that rests on a single sample: without it there is no room at all."""
    return estimate if np.isfinite([estimate.value, estimate.stderr]).all() else None


def _gain(rows: Mapping[str, Array], statistic: Callable[[Array], Array], sign: int) -> jackknife.Estimate:
    """Return how much better the images fit their own maps than others', with the error of the paired difference."""

    def difference(total: Array) -> Array:
        own, foreign = np.split(total, 2, axis=-1)
        return sign * (statistic(own) - statistic(foreign))

    return jackknife.additive(np.concatenate([rows["run"], rows["shuffled"]], axis=1), difference)
