"""What the engine's tests share: renders of the bundled world."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.scenes.splits import example


@pytest.fixture(scope="session")
def renders() -> NDArray[np.uint8]:
    """Return 16 test images, uint8 (16, 64, 64, 3)."""
    return np.stack([example(0, "test", i, 64).render.image for i in range(16)])
