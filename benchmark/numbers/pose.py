"""Compare figures by their keypoints."""

import numpy as np
from numpy.typing import NDArray

SEEN = 2
_TOLERANCE = 0.1


def keypoint_hits(reference: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[int, int]:
    """Return how many seen joints of reference figures are found, and how many there are (PCK, Yang & Ramanan 2013).

    A joint is found where the figure that agrees best has the same joint, seen, within a tenth of the reference
    figure's height; the height is that of its keypoints, seen or not.

    Args:
        reference: (P, 18, 3), x, y and visibility (2 is seen).
        found: (Q, 18, 3), in the same unit.
    """
    right, total = 0, 0
    for figure in reference.astype(np.float64):
        seen = figure[:, 2] == SEEN
        total += int(seen.sum())
        if len(found):
            distance = np.linalg.norm(found[:, :, :2] - figure[None, :, :2], axis=-1)
            met = (distance <= _TOLERANCE * np.ptp(figure[:, 1])) & (found[:, :, 2] == SEEN) & seen
            right += int(met.sum(axis=1).max())
    return right, total
