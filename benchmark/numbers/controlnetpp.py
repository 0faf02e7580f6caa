"""The scores of ControlNet++ (Li et al., arXiv 2404.07987): as its published code computes them, and mended.

Rows are (sum, count) and add up over prompts; one holds all the images drawn for a prompt, as there. Segmentation needs
nothing of its own: with several images of a condition `miou` is pooled over them as there, and labels are never JPEG.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.numbers.inverse_depth import stretched
from benchmark.numbers.structure import ms_ssim

Array = NDArray[np.float64]
Maps = Sequence[NDArray[Any]]
READINGS = ("compat", "strict")
_SCALES, _SCALES_SIDE = 5, 176  # of MS-SSIM as published


class Rule(NamedTuple):
    """How a condition is scored.

    Attributes:
        name: Of the score.
        higher_is_better: Whether more of it is.
        row: From the map of a prompt, those read back from its images, and whether faults are kept, to (sum, count).
        faults: What `compat` keeps and `strict` mends.
        least_side: Pixels a side that it needs.
    """

    name: str
    higher_is_better: bool
    row: Callable[[NDArray[Any], Maps, bool], tuple[float, int]]
    faults: str
    least_side: int = 1


def rule(condition: str, side: int) -> Rule:
    """Return how ControlNet++ scores maps of a condition and a side.

    Raises:
        UserError: It has no score of its own for the condition, or none for so few pixels.
    """
    if condition not in _RULES:
        raise UserError(f"ControlNet++ has no score of its own for {condition}; {did_you_mean(condition, _RULES)}")
    found = _RULES[condition]
    if side < found.least_side:
        raise UserError(f"ControlNet++ scores {condition} from {found.least_side} pixels a side on, not at {side}")
    return found


def rows(condition: str, reading: str, truth: Maps, drawn: Sequence[Maps]) -> Array:
    """Return (N, 2) rows whose summed first column over the summed second is the score.

    Args:
        condition: As named here: canny, softedge (HED there), lineart, depth or relative_depth.
        reading: One of `READINGS`.
        truth: N canonical maps.
        drawn: Sets of N maps read back, as many as images were drawn for each prompt.
    """
    row = rule(condition, min(truth[0].shape)).row
    found = [row(map_, maps, reading == "compat") for map_, *maps in zip(truth, *drawn, strict=True)]
    return np.array(found, dtype=np.float64)


def _f1(truth: NDArray[Any], drawn: Maps, as_coded: bool) -> tuple[float, int]:
    """F1 in percent of the pixels of all images of a prompt together, without tolerance."""
    read = [drawn[0]] * len(drawn) if as_coded else drawn
    hits = sum(int((truth & map_).sum()) for map_ in read)
    marks = len(read) * int(truth.sum()) + sum(int(map_.sum()) for map_ in read)
    if marks == 0:
        return (0.0 if as_coded else 100.0), 1
    return 200.0 * hits / marks, 1


def _ms_ssim(truth: NDArray[Any], drawn: Maps, as_coded: bool) -> tuple[float, int]:
    """MS-SSIM of each image, whatever the name "SSIM" that the paper gives it."""
    return sum(ms_ssim(truth.astype(np.float64), map_.astype(np.float64), _SCALES) for map_ in drawn), len(drawn)


def _lineart(truth: NDArray[Any], drawn: Maps, as_coded: bool) -> tuple[float, int]:
    return _ms_ssim(truth, [inverted(map_) if as_coded else map_ for map_ in drawn], as_coded)


def inverted(strengths: NDArray[Any]) -> Array:
    """Return what `1 - levels` makes of the dark lines of strengths in [0, 1], where levels are bytes: it wraps.

    A solid line, of level 0, becomes 1 of 255, and one of level 1 becomes 0.
    """
    levels = (255 - np.rint(255 * strengths)).astype(np.uint8)
    return np.asarray((np.uint8(1) - levels) / 255.0, dtype=np.float64)


def _depth(truth: NDArray[Any], drawn: Maps, as_coded: bool) -> tuple[float, int]:
    """RMSE of each image on 0 to 255, of the inverse of depth in metres."""
    inverse = [1.0 / map_.astype(np.float64) for map_ in (truth, *drawn)]
    return _relative_depth(inverse[0], inverse[1:], as_coded)


def _relative_depth(truth: NDArray[Any], drawn: Maps, as_coded: bool) -> tuple[float, int]:
    """RMSE of each image on 0 to 255, of inverse depth."""
    label, drawn = 255 * stretched(truth), [map_.astype(np.float64) for map_ in drawn]
    if as_coded:
        label, read = np.trunc(label), [np.trunc(255 * one / max(float(one.max()), 1e-12)) for one in drawn]
    else:
        read = [255 * stretched(one) for one in drawn]
    return sum(float(np.sqrt(np.square(one - label).mean())) for one in read), len(read)


_STRETCH = "the label is stretched from its least to its greatest, the prediction from 0"
_RULES = {
    "canny": Rule(
        "f1", True, _f1, "the first image of a prompt stands for all; nothing found where nothing is counts 0"
    ),
    "softedge": Rule("ms_ssim", True, _ms_ssim, "none", _SCALES_SIDE),
    "lineart": Rule("ms_ssim", True, _lineart, "1 - levels on bytes wraps: solid lines turn black", _SCALES_SIDE),
    "depth": Rule("rmse", False, _depth, _STRETCH),
    "relative_depth": Rule("rmse", False, _relative_depth, _STRETCH),
}
