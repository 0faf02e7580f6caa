"""Semantic segmentation: one class id a pixel, shown in a palette's colours, compared by mean IoU."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.images import Transform, decode_ids, encode_paletted_png
from benchmark.contracts.plugins import Condition, Images, Map, MapForm
from benchmark.scenes.palette import SEG_CLASSES, SEG_COLOURS

# palette name -> (class names, RGB colours, how many of the first classes are background)
PALETTES = {"scenes": (SEG_CLASSES, SEG_COLOURS, 2)}


@dataclass(frozen=True)
class Seg(Condition):
    """Class ids of a named palette.

    Map: uint16 (H, W), ids from 0 to the number of classes minus one.
    """

    palette: str = "scenes"

    annotator: ClassVar[str | None] = None
    headline: ClassVar[str] = "foreground_miou"

    def __post_init__(self) -> None:
        """Refuse an unknown palette."""
        if self.palette not in PALETTES:
            raise UserError(f'seg: no palette "{self.palette}"; {did_you_mean(self.palette, PALETTES)}')

    @property
    def referee(self) -> str:
        """The bundled segmenter of the scenes world."""
        return "scenes:seg"

    @property
    def colours(self) -> NDArray[np.uint8]:
        """The palette, uint8 (C, 3) RGB."""
        return np.array(PALETTES[self.palette][1], dtype=np.uint8)

    @property
    def num_classes(self) -> int:
        """The number of the palette's classes."""
        return len(self.colours)

    @property
    def form(self) -> MapForm:
        """Class ids."""
        high = self.num_classes - 1
        return MapForm("uint16", ("H", "W"), 0, high, "colours of the palette", ("red", "green", "blue"), "nearest")

    def _check(self, ids: NDArray[np.uint16]) -> None:
        highest = int(ids.max(initial=0))
        if highest >= len(self.colours):
            raise ValueError(f"class id {highest} outside palette {self.palette} of {len(self.colours)} classes")

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the ids resized and cropped by nearest neighbour: classes never mix."""
        self._check(map_.array)
        return Map(transform.apply(map_.array.astype(np.uint8), cv2.INTER_NEAREST_EXACT).astype(np.uint16))

    def encode(self, map_: Map) -> bytes:
        """Return a PNG of ids with the palette inside: any viewer shows the colours.

        Raises:
            ValueError: An id is outside the palette.
        """
        self._check(map_.array)
        return encode_paletted_png(map_.array.astype(np.uint8), self.colours)

    def decode(self, data: bytes) -> Map:
        """Return the ids of a paletted PNG."""
        return Map(decode_ids(data).astype(np.uint16))

    def render(self, map_: Map, size: int) -> Images:
        """Return the palette's colours."""
        ids = map_.array
        scaled = cv2.resize(ids, (size, size), interpolation=cv2.INTER_NEAREST_EXACT) if ids.shape[0] != size else ids
        picture: Images = self.colours[scaled]
        return picture

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return pixel counts (3C,): agreed, in the reference, predicted, for each class."""
        count = len(self.colours)
        self._check(reference.array)
        self._check(predicted.array)
        agreed = reference.array[reference.array == predicted.array]
        parts = [np.bincount(ids.ravel(), minlength=count) for ids in (agreed, reference.array, predicted.array)]
        return np.concatenate(parts).astype(np.float64)

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return mean IoU over classes that occur, over foreground classes alone, and pixel accuracy.

        The IoU of a class is its summed intersection over its summed union (one confusion matrix for all images).
        """
        agreed, reference, predicted = np.split(totals, 3, axis=-1)
        union = reference + predicted - agreed
        iou = np.divide(agreed, union, out=np.full_like(union, np.nan), where=union > 0)
        background = PALETTES[self.palette][2]
        return {
            "miou": _nanmean(iou),
            "foreground_miou": _nanmean(iou[..., background:]),
            "pixel_accuracy": agreed.sum(axis=-1) / reference.sum(axis=-1),
        }


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without NaN; 0 where nothing is left."""
    known = ~np.isnan(values)
    mean: NDArray[np.float64] = np.where(known, values, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    return mean
