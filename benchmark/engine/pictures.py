"""Lay images out in a labelled grid: what people look at."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Images = Sequence[NDArray[np.uint8]]
_GAP, _LABEL = 4, 104
_INK, _PAPER = (40, 40, 40), 255
# The rows of the strip beside a record, and the side of its images. Pages cut rows out of strips that were drawn long
# ago: another layout is another kind of file.
STRIP = ("condition", "reference", "generated", "no control")
STRIP_SIDE = 64


def strip(rows: Mapping[str, Images]) -> NDArray[np.uint8]:
    """Return the strip of a record."""
    return grid([(name, rows[name]) for name in STRIP], STRIP_SIDE)


def strip_corner(name: str) -> tuple[int, int]:
    """Return where in a strip the images of a row begin: pixels from the left and from the top."""
    return _LABEL + _GAP, _GAP + STRIP.index(name) * (STRIP_SIDE + _GAP)


def grid(rows: Sequence[tuple[str, Images]], side: int) -> NDArray[np.uint8]:
    """Return rows of equally many square images, each scaled to `side` pixels, with a label to the left."""
    count = max(len(images) for _, images in rows)
    height, width = len(rows) * (side + _GAP) + _GAP, _LABEL + count * (side + _GAP) + _GAP
    canvas = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    for i, (label, images) in enumerate(rows):
        top = _GAP + i * (side + _GAP)
        _write(canvas, label, top + side // 2)
        for j, image in enumerate(images):
            left = _LABEL + _GAP + j * (side + _GAP)
            canvas[top : top + side, left : left + side] = _scaled(image, side)
    return canvas


def _scaled(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    enlarged = image.shape[0] < side
    scaled = cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST if enlarged else cv2.INTER_AREA)
    return np.asarray(scaled, dtype=np.uint8)


def _write(canvas: NDArray[np.uint8], text: str, baseline: int) -> None:
    cv2.putText(canvas, text, (6, baseline + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
