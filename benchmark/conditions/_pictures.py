"""What reading maps off pictures shares: grey levels of a cell, and the check that marks are bright on black."""

import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import BadImage, decode_levels
from benchmark.contracts.plugins import Cell


def grey_levels(cell: Cell) -> NDArray[np.uint8]:
    """Return the levels (H, W), 0 to 255, of a grey picture, stored as grey or as RGB with equal channels.

    Raises:
        BadImage: The cell is no picture, or has colours or 16 bits.
    """
    levels = any_grey_levels(cell)
    if levels.dtype != np.uint8:
        raise BadImage("a picture of 16 bits, where 8 are meant")
    return levels.astype(np.uint8, copy=False)


def any_grey_levels(cell: Cell) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the levels (H, W) of a grey picture of 8 or 16 bits."""
    if not isinstance(cell, bytes):
        raise BadImage(f"an array of shape {cell.shape}, where a picture is meant")
    levels = decode_levels(cell)
    if levels.ndim == 3:
        coloured = int((levels != levels[..., :1]).any(axis=-1).sum())
        if coloured:
            raise BadImage(f"{coloured} pixels with a colour, where grey is meant")
        levels = levels[..., 0]
    return levels


def refuse_bright(levels: NDArray[np.uint8]) -> None:
    """Refuse a picture that is brighter than half on average: then its marks are black on white."""
    if levels.mean() > 127.5:
        raise BadImage("more white than black: the picture seems inverted, marks must be bright on black")
