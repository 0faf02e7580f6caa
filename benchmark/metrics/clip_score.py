"""CLIP score: the mean cosine of image and prompt vectors, as in Hessel et al. 2021 without its factor 2.5."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.metrics._spaces import Agreement


@dataclass(frozen=True)
class ClipScore(Agreement):
    """Mean over images of 100 cos(image, caption), in torchmetrics' units; negative cosines are kept."""

    scale: ClassVar[float] = 100.0
    name: ClassVar[str] = "clip_score"
