"""Structural similarity of two maps in [0, 1], on one scale (Wang et al. 2004) and on several (Wang et al. 2003)."""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_C1, _C2 = 0.01**2, 0.03**2
_WINDOW, _DEVIATION = 11, 1.5
_INSIDE = slice(_WINDOW // 2, -(_WINDOW // 2))  # where the window fits
_WEIGHTS = np.array(
    [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
)  # of the scales, finest first: Wang et al. 2003, who let them add up to 1.0001


def ssim(a: Array, b: Array) -> float:
    """Return the structural similarity of two maps in [0, 1].

    Gaussian window of 11 pixels and deviation 1.5, range 1, population variance, mean over the windows that fit inside.
    """
    luminance, structure = _terms(a, b)
    return float((luminance * structure)[_INSIDE, _INSIDE].mean())


def scales(side: int) -> int:
    """Return on how many scales maps of a side are compared: 5 as published from 176 pixels on, 3 from 44, else 0."""
    return next((count for count in (5, 3) if side >> (count - 1) >= _WINDOW), 0)


def ms_ssim(a: Array, b: Array, count: int) -> float:
    """Return the structural similarity of two maps in [0, 1] over scales, each half the one before.

    With 5 the published one; with fewer its first weights, made to add up to 1, under a name of its own. As in
    torchmetrics, which ControlNet++ uses, a negative mean counts as 0, and the coarsest scale is taken over the whole
    map, mirrored at its edges.
    """
    weights = _WEIGHTS if count == len(_WEIGHTS) else _WEIGHTS[:count] / _WEIGHTS[:count].sum()
    product = 1.0
    for scale, weight in enumerate(weights):
        luminance, structure = _terms(a, b)
        coarsest = scale == count - 1
        mean = float((luminance * structure).mean() if coarsest else structure[_INSIDE, _INSIDE].mean())
        product *= max(mean, 0.0) ** float(weight)
        a, b = _halved(a), _halved(b)
    return product


def _terms(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the luminance and the contrast-structure term of the window around every pixel."""
    mean_a, mean_b = _local(a), _local(b)
    var_a, var_b = _local(a * a) - mean_a**2, _local(b * b) - mean_b**2
    covariance = _local(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return luminance, structure


def _local(x: Array) -> Array:
    blurred: Array = cv2.GaussianBlur(x, (_WINDOW, _WINDOW), _DEVIATION)  # mirrored at the edges
    return blurred


def _halved(x: Array) -> Array:
    """Return means of 2 x 2 pixels, an odd last row or column left out."""
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    return np.asarray(x[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))
