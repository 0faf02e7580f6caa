"""Depth by any transformers checkpoint: DPT (Ranftl et al. 2021), Depth Anything, GLPN, ZoeDepth, DepthPro."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForDepthEstimation

from benchmark.annotators._checkpoint import Checkpoint
from benchmark.base.errors import UserError, did_you_mean

SCALES = ("relative", "metres")
NEAR, FAR = 1.0, 10.0  # metres that the ends of relative inverse depth are said to have
_LARGEST = np.float32(65.535)  # metres that a depth map can hold
_METRIC_FAMILIES = ("depth_pro", "glpn", "zoedepth")


@dataclass(frozen=True)
class TransformersDepth(Checkpoint):
    """Depth in metres, or in metres by convention where the checkpoint knows only relative inverse depth.

    Relative: the checkpoint's inverse depth has an unknown scale and shift. Its least and greatest value in an image
    are set to 1/10 and 1 per metre, and depth is the inverse: the nearest point is 1 m away, the farthest 10 m, in
    every image. The conditioning image is then the checkpoint's output stretched to black and white, as the ControlNet
    authors show it, and of the scores only `aligned_rmse`, which fits scale and shift, says something about the image:
    `absrel`, `rmse` and `delta_1.25` are of metres that nobody measured. Metres: values beyond 65.535 m become that.

    Attributes:
        scale: "relative" or "metres"; by default what the kind of model says (DPT is relative unless built on DINOv2,
            which may be either and has to be told; Depth Anything says it itself; DepthPro, GLPN, ZoeDepth are metric).
    """

    scale: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown scale."""
        if self.scale is not None and self.scale not in SCALES:
            raise UserError(f'transformers_depth: no scale "{self.scale}"; {did_you_mean(self.scale, SCALES)}')

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "depth"

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
        """Return depth, float32 (H, W)."""
        padded = {"source_sizes": sizes} if self._config.model_type == "zoedepth" else {}
        found = self._processor.post_process_depth_estimation(outputs, target_sizes=sizes, **padded)
        raw = [each["predicted_depth"].float().cpu().numpy() for each in found]
        return [canonical(each) if self._scale == "relative" else np.clip(each, 0, _LARGEST) for each in raw]


def _own_scale(config: Any) -> str | None:
    """Return what a kind of model says of its depth, or None."""
    if config.model_type in _METRIC_FAMILIES:
        return "metres"
    if config.model_type == "depth_anything":
        return "metres" if config.depth_estimation_type == "metric" else "relative"
    backbone = getattr(config, "backbone_config", None)
    dinov2 = backbone is not None and str(backbone.model_type).startswith("dinov2")
    return "relative" if config.model_type == "dpt" and not dinov2 else None


def canonical(inverse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return depth from 1 to 10, float32 (H, W), of relative inverse depth: the largest value becomes 1."""
    low, high = float(inverse.min()), float(inverse.max())
    share = (inverse.astype(np.float64) - low) / max(high - low, 1e-9)
    return (1.0 / (1 / FAR + share * (1 / NEAR - 1 / FAR))).astype(np.float32)
