"""Inverse depth of unknown scale and shift, as networks of the kind of MiDaS estimate it (Ranftl et al. 2022)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def over_greatest(inverse: NDArray[Any]) -> NDArray[np.float32]:
    """Return inverse depth (H, W) over its greatest, float32 in [0, 1]: 1 is nearest; of none above 0 all is 0."""
    positive = np.maximum(inverse.astype(np.float64), 0)
    return (positive / max(float(positive.max()), 1e-12)).astype(np.float32)


def stretched(inverse: NDArray[Any]) -> NDArray[np.float64]:
    """Return inverse depth from 0, the farthest, to 1, the nearest; of a constant map nothing is left: all 0."""
    values = inverse.astype(np.float64)
    shares: NDArray[np.float64] = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return shares


def aligned_rmse(truth: NDArray[Any], guess: NDArray[Any]) -> float:
    """Return the root mean square between a stretched truth and a guess scaled and shifted to it by least squares."""
    wanted, given = stretched(truth).ravel(), guess.astype(np.float64).ravel()
    spread = given.var()
    slope = ((given - given.mean()) * (wanted - wanted.mean())).mean() / spread if spread > 1e-18 else 0.0
    return float(np.sqrt(((wanted.mean() + slope * (given - given.mean()) - wanted) ** 2).mean()))
