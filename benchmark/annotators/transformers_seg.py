"""Semantic segmentation by any transformers checkpoint: SegFormer, UPerNet, Mask2Former and their kin."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import (
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)

from benchmark.annotators._checkpoint import Checkpoint


@dataclass(frozen=True)
class TransformersSeg(Checkpoint):
    """Class ids in the checkpoint's own order, which must be that of the palette: only their number can be checked.

    For ADE20K and COCO-Stuff that holds for checkpoints of 150 and 182 classes without an "other" class.
    """

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "seg"

    @property
    def num_classes(self) -> int:
        """The number of the checkpoint's labels."""
        return int(self._config.num_labels)

    @property
    def _auto(self) -> Any:
        pixelwise = type(self._config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
        return AutoModelForSemanticSegmentation if pixelwise else AutoModelForUniversalSegmentation

    def _maps(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[NDArray[Any]]:
        """Return ids, uint16 (H, W): scores enlarged linearly, then the best class of each pixel."""
        found = self._processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [ids.cpu().numpy().astype(np.uint16) for ids in found]
