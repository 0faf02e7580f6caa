"""Draw lines and strokes from the world's truth."""

import cv2
import numpy as np
from numpy.typing import NDArray

_SUBPIXEL_BITS = 4
_OUTLINE, _STROKE_WIDTH, _STROKE = 0.9, 1.2, 0.25  # boundary strength; deviation in pixels of 64; threshold after blur


def draw_segments(segments: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Return uint8 (side, side): segments (L, 4) in pixels as antialiased lines, one pixel wide, white on black."""
    canvas = np.zeros((side, side), np.uint8)
    points = np.rint((segments.reshape(-1, 2, 2) - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(canvas, list(points), isClosed=False, color=255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return canvas


def scribble(boundary: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return thick rounded strokes along the outlines of objects: blurred soft edges above a threshold.

    After the scribbles of the ControlNet paper (section 3.5: synthesised from soft edges), without its random parts.
    """
    strong = (boundary >= _OUTLINE).astype(np.float32)
    blurred = cv2.GaussianBlur(strong, (0, 0), _STROKE_WIDTH * len(boundary) / 64)
    return np.asarray(blurred >= _STROKE)
