"""The CLIP score as the ControlNet paper and MLPerf print it: the raw cosine, a hundredth of `clip_score`."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.metrics._spaces import Agreement


@dataclass(frozen=True)
class ClipCosine(Agreement):
    """Mean over images of cos(image, caption); negative cosines are kept."""

    scale: ClassVar[float] = 1.0
    name: ClassVar[str] = "clip_cosine"
    unasked: ClassVar[bool] = False
