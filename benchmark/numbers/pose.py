"""Compare figures by their keypoints."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

SEEN = 2
_TOLERANCE = 0.1

# Spread of COCO's annotators for each joint, in OpenPose's order; the neck, which COCO lacks, as the shoulders.
_EYE, _EAR, _SHOULDER, _ELBOW, _WRIST, _HIP, _KNEE, _ANKLE = 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089
_ARM, _LEG = (_SHOULDER, _ELBOW, _WRIST), (_HIP, _KNEE, _ANKLE)
SIGMAS = np.array([0.026, _SHOULDER, *_ARM, *_ARM, *_LEG, *_LEG, _EYE, _EYE, _EAR, _EAR])


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


def similarity(reference: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, int]:
    """Return the summed object keypoint similarity of reference figures, and how many have a joint that is seen.

    OKS of COCO: the mean over seen joints of exp(-d^2 / (2 area (2 sigma)^2)); a joint that the found figure does not
    show counts 0. Figures are paired so that the sum is largest; one without a partner has 0. In place of COCO's
    segment area, which keypoints do not give, stands that of the box around all joints of the reference figure.

    Args:
        reference: (P, 18, 3), x, y and visibility (2 is seen).
        found: (Q, 18, 3), in the same unit.
    """
    figures = [figure for figure in reference.astype(np.float64) if (figure[:, 2] == SEEN).any()]
    if not figures or not len(found):
        return 0.0, len(figures)
    table = np.array([[_oks(figure, other) for other in found.astype(np.float64)] for figure in figures])
    return float(table[linear_sum_assignment(table, maximize=True)].sum()), len(figures)


def _oks(figure: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    area = max(float(np.prod(np.ptp(figure[:, :2], axis=0))), 1e-12)
    squares = np.square(figure[:, :2] - other[:, :2]).sum(axis=1)
    near = np.exp(-squares / (2 * area * (2 * SIGMAS) ** 2)) * (other[:, 2] == SEEN)
    return float(near[figure[:, 2] == SEEN].mean())
