"""How inverse depth is shown."""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.plugins import Images


def shown(inverse: NDArray[np.float32], size: int) -> Images:
    """Return inverse depth (H, W) stretched to the full range: the nearest point white, the farthest black."""
    # in single precision, unlike `stretched` of numbers: what a model sees must keep its bits
    low, high = float(inverse.min()), float(inverse.max())
    grey = np.rint(255 * (inverse - low) / max(high - low, 1e-9)).astype(np.uint8)
    scaled = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR) if grey.shape[0] != size else grey
    return np.repeat(scaled[:, :, None], 3, axis=2)
