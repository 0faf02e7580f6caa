"""Depth by any transformers checkpoint: DPT (Ranftl et al. 2021), Depth Anything, GLPN, ZoeDepth, DepthPro."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForDepthEstimation

from benchmark.annotators._checkpoint import Checkpoint
from benchmark.base.errors import UserError, did_you_mean
from benchmark.numbers.inverse_depth import over_greatest

SCALES = ("relative", "metres")
_LEAST = 1e-3  # metres; a depth of none could not be divided by
_LARGEST = np.float32(65.535)  # metres that a depth map can hold
_METRIC_FAMILIES = ("depth_pro", "glpn", "zoedepth")


@dataclass(frozen=True)
class TransformersDepth(Checkpoint):
    """Maps of `depth` where the checkpoint knows metres, of `relative_depth` where it does not.

    Metres: values beyond 65.535 m become that, those below a millimetre a millimetre. Relative: the checkpoint's output
    over its greatest; the conditioning image is that output stretched to black and white, as the ControlNet authors
    show it.
    """

    scale: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown scale."""
        if self.scale is not None and self.scale not in SCALES:
            raise UserError(f'transformers_depth: no scale "{self.scale}"; {did_you_mean(self.scale, SCALES)}')

    @property
    def condition(self) -> str:
        """The condition it makes maps of: `depth` is in metres."""
        return "relative_depth" if self._scale == "relative" else "depth"

    def identity(self) -> dict[str, str]:
        """Return what pins the checkpoint, and the scale its depth is read in."""
        return {**super().identity(), "scale": self._scale}

    @property
    def _scale(self) -> str:
        told = self.scale or _own_scale(self._config)
        if told is None:
            raise UserError(f"{self.model} does not say what its depth is; add scale=relative or scale=metres")
        return told

    @property
    def _auto(self) -> Any:
        return AutoModelForDepthEstimation

    def _maps(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[NDArray[Any]]:
        """Return metres, or inverse depth over its greatest, float32 (H, W)."""
        padded = {"source_sizes": sizes} if self._config.model_type == "zoedepth" else {}
        found = self._processor.post_process_depth_estimation(outputs, target_sizes=sizes, **padded)
        raw = [each["predicted_depth"].float().cpu().numpy() for each in found]
        return [over_greatest(each) if self._scale == "relative" else np.clip(each, _LEAST, _LARGEST) for each in raw]


def _own_scale(config: Any) -> str | None:
    """Return what a kind of model says of its depth, or None."""
    if config.model_type in _METRIC_FAMILIES:
        return "metres"
    if config.model_type == "depth_anything":
        return "metres" if config.depth_estimation_type == "metric" else "relative"
    backbone = getattr(config, "backbone_config", None)
    dinov2 = backbone is not None and str(backbone.model_type).startswith("dinov2")
    return "relative" if config.model_type == "dpt" and not dinov2 else None
