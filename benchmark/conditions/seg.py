"""Semantic segmentation: one class id a pixel, shown in a palette's colours, compared by mean IoU."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.images import (
    BadImage,
    Transform,
    decode_ids,
    decode_levels,
    decode_own_ids,
    encode_paletted_png,
)
from benchmark.conditions._palettes import PALETTES, Palette
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm

_UNLABELLED = 255  # in label maps of 8 bits


@dataclass(frozen=True)
class Seg(Condition):
    """Class ids of a named palette: scenes, ade20k (150 classes) or cocostuff (182).

    Map: uint16 (H, W), ids from 0 to the number of classes minus one; in ade20k and cocostuff one more means
    unlabelled, shown black and left out of every score.
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
        """The bundled segmenter of the scenes world.

        Raises:
            UserError: The palette is another, whose classes it does not know.
        """
        if self.palette != "scenes":
            raise UserError(
                f"no bundled referee knows the classes of palette {self.palette}; give --referee, such as "
                "transformers_seg:ID, or in training --probe-every 0"
            )
        return "scenes:seg"

    @property
    def _palette(self) -> Palette:
        return PALETTES[self.palette]

    @property
    def colours(self) -> NDArray[np.uint8]:
        """The palette, uint8 (C, 3) RGB."""
        return self._palette.colours

    @property
    def num_classes(self) -> int:
        """The number of the palette's classes, without the id of what is unlabelled."""
        return len(self._palette.classes)

    @property
    def form(self) -> MapForm:
        """Class ids."""
        high = len(self.colours) - 1
        return MapForm("uint16", ("H", "W"), 0, high, "colours of the palette", ("red", "green", "blue"), "nearest")

    def _check(self, ids: NDArray[np.uint16]) -> None:
        highest = int(ids.max(initial=0))
        if highest >= len(self.colours):
            raise ValueError(f"class id {highest} outside palette {self.palette} of {len(self.colours)} classes")

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the ids of label numbers (an array or a grey picture), or of a picture in the palette's colours.

        Raises:
            BadImage: A label or a colour that the palette lacks, or a colour that two classes share.
        """
        if not isinstance(cell, bytes):
            return Map(self._of_labels(cell, first_label))
        own = decode_own_ids(cell, self.colours)
        if own is not None:
            if int(own.max(initial=0)) >= len(self.colours):
                raise BadImage(f"class id {own.max()} beyond the {len(self.colours)} of palette {self.palette}")
            return Map(own.astype(np.uint16))
        levels = decode_levels(cell)
        return Map(self._of_labels(levels, first_label) if levels.ndim == 2 else self._of_colours(levels))

    def _of_labels(self, labels: NDArray[np.integer], first_label: int) -> NDArray[np.uint16]:
        if labels.ndim != 2 or labels.dtype.kind not in "ui":
            raise BadImage(f"{labels.dtype} values of shape {labels.shape} are no map of labels")
        classes = len(self._palette.classes)
        wide = labels.astype(np.uint64 if labels.dtype.kind == "u" else np.int64)
        cut = np.maximum(np.minimum(wide, 2**62).astype(np.int64), -(2**62))  # or the ends would run over
        ids = cut - first_label
        unlabelled = (ids < 0) | (labels == _UNLABELLED)
        foreign = (ids >= classes) & ~unlabelled
        if foreign.any():
            raise BadImage(f"{foreign.sum()} pixels of labels beyond the {classes} classes of palette {self.palette}")
        if unlabelled.any() and not self._palette.has_unlabelled:
            raise BadImage(f"{unlabelled.sum()} unlabelled pixels; palette {self.palette} has no id for them")
        return np.where(unlabelled, classes, ids).astype(np.uint16)

    def _of_colours(self, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Return the ids of (H, W, 3) colours; never the nearest colour's, which would make classes up."""
        known, ids = np.unique(_packed(self.colours), return_index=True)
        colours, inverse, counts = np.unique(_packed(picture), return_inverse=True, return_counts=True)
        foreign = ~np.isin(colours, known)
        if foreign.any():
            raise BadImage(
                f"{counts[foreign].sum()} pixels in {foreign.sum()} colours that palette {self.palette} lacks, such as "
                f"{_shown(colours[foreign][0])}; a lossy or scaled picture cannot be read back"
            )
        for colour, count in zip(colours, counts, strict=True):
            shared = np.flatnonzero(_packed(self.colours) == colour)
            if len(shared) > 1:
                classes = " and ".join(map(str, shared))
                raise BadImage(
                    f"{count} pixels of {_shown(colour)}, which classes {classes} of palette {self.palette} share; "
                    f"give a column of label numbers"
                )
        return ids[np.searchsorted(known, colours)][inverse].reshape(picture.shape[:2]).astype(np.uint16)

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
        """Return pixel counts (3C,): agreed, in the reference, predicted, for each class; labelled pixels alone."""
        count = len(self._palette.classes)
        self._check(reference.array)
        self._check(predicted.array)
        labelled = reference.array < count
        truth, guess = reference.array[labelled], predicted.array[labelled]
        parts = [np.bincount(ids, minlength=count)[:count] for ids in (truth[truth == guess], truth, guess)]
        return np.concatenate(parts).astype(np.float64)

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return mean IoU over classes that occur, over foreground classes alone, and accuracies.

        The IoU of a class is its summed intersection over its summed union (one confusion matrix for all images); its
        accuracy, over its summed pixels in the reference. Classes that the reference lacks have no accuracy.
        """
        agreed, reference, predicted = np.split(totals, 3, axis=-1)
        union = reference + predicted - agreed
        iou = np.divide(agreed, union, out=np.full_like(union, np.nan), where=union > 0)
        accuracy = np.divide(agreed, reference, out=np.full_like(reference, np.nan), where=reference > 0)
        background = self._palette.background
        return {
            "miou": _nanmean(iou),
            "foreground_miou": _nanmean(iou[..., background:]),
            "pixel_accuracy": agreed.sum(axis=-1) / reference.sum(axis=-1),
            "mean_accuracy": _nanmean(accuracy),
        }


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without NaN; 0 where nothing is left."""
    known = ~np.isnan(values)
    mean: NDArray[np.float64] = np.where(known, values, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    return mean


def _packed(colours: NDArray[np.unsignedinteger]) -> NDArray[np.uint32]:
    """Return (N,) whole numbers of (..., 3) RGB colours of 8 bits."""
    red, green, blue = colours.reshape(-1, 3).astype(np.uint32).T
    packed: NDArray[np.uint32] = (red << 16 | green << 8 | blue).astype(np.uint32)
    return packed


def _shown(packed: np.uint32) -> str:
    red, green, blue = int(packed).to_bytes(3, "big")
    return f"({red}, {green}, {blue})"
