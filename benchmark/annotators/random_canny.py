"""Canny edges at thresholds of chance, as the ControlNet paper trains (its range is not given)."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from benchmark.base.errors import UserError
from benchmark.base.seeds import Stream, hash64
from benchmark.contracts.plugins import Annotator, Images, Map


@dataclass(frozen=True)
class RandomCanny(Annotator):
    """`cv2.Canny` with two thresholds drawn by the sample's key, each evenly from its range (0 to 255, both included).

    By default the ranges lie around 100 and 200, the fixed thresholds of the authors' code, and do not overlap.
    """

    low_from: int = 50
    low_to: int = 150
    high_from: int = 150
    high_to: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or cross."""
        if not 0 <= self.low_from <= self.low_to <= self.high_from <= self.high_to:
            raise UserError("random_canny needs 0 <= low_from <= low_to <= high_from <= high_to")

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "canny"

    def thresholds(self, key: str) -> tuple[int, int]:
        """Return the lower and the higher threshold of a sample."""
        stream = Stream(self.seed, "canny", hash64("canny", key))
        low = self.low_from + stream.choice(self.low_to - self.low_from + 1)
        return low, self.high_from + stream.choice(self.high_to - self.high_from + 1)

    def annotate(self, images: Images) -> list[Map]:
        """Return maps at the middle of both ranges: without keys there is no chance."""
        low, high = (self.low_from + self.low_to) // 2, (self.high_from + self.high_to) // 2
        return [Map(cv2.Canny(image, low, high) > 0) for image in images]

    def annotate_samples(self, images: Images, keys: Sequence[str]) -> list[Map]:
        """Return one bool (H, W) edge map for each image, at the thresholds of its key."""
        return [Map(cv2.Canny(image, *self.thresholds(key)) > 0) for image, key in zip(images, keys, strict=True)]
