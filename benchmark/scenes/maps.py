"""The world's condition maps: exact ones, from a render."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmark.numbers.inverse_depth import over_greatest
from benchmark.scenes.drawing import draw_segments, scribble
from benchmark.scenes.render import Render

ON = 0.5  # probability or coverage from which a pixel belongs to a line


def in_sides(keypoints: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Keypoints with x and y in units of the image's side."""
    return np.asarray(keypoints / [side, side, 1], dtype=np.float32)


_EXACT: dict[str, Callable[[Render], NDArray[np.generic]]] = {
    "seg": lambda render: render.seg,
    "depth": lambda render: render.depth,
    "relative_depth": lambda render: over_greatest(1.0 / render.depth),
    "normal": lambda render: render.normal,
    "softedge": lambda render: render.boundary,
    "lines": lambda render: draw_segments(render.segments, len(render.image)) >= 255 * ON,
    "scribble": lambda render: scribble(render.boundary),
    "pose": lambda render: in_sides(render.keypoints, len(render.image)),
}
CONDITIONS = tuple(_EXACT)


def exact(render: Render, condition: str) -> NDArray[np.generic]:
    """Return a condition's exact map of a render, as the condition defines its array."""
    return _EXACT[condition](render)
