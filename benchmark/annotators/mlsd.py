"""Straight lines of M-LSD (Gu et al. 2022), from controlnet-aux."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.annotators._hub import Detector, Weights, device_of, fill, quiet
from benchmark.contracts.plugins import Images

_MOST_LINES = 200
_PEAK = 3  # pixels a side in which one centre of a line is kept


@dataclass(frozen=True)
class Mlsd(Detector):
    """Lines drawn one pixel wide; it finds at most 200, and few on curved or natural ground.

    Scores that differ by rounding alone decide between neighbours, so images annotated in batches of another size may
    have a few other lines; in the same batches they have the same.

    Attributes:
        score: Confidence in [0, 1] that a line must exceed.
        length: Pixels, at half the detection size, that it must exceed.
    """

    score: float = 0.1
    length: float = 0.1

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "lines"

    @property
    def weights(self) -> Weights:
        """The file of the large network."""
        return Weights(self.model, self.revision, "mlsd_large_512_fp32.pth")

    @staticmethod
    def build(weights: Weights) -> nn.Module:
        """Return the large network."""
        with quiet():
            from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large
        return fill(MobileV2_MLSD_Large(), weights.state(), weights)

    def read(self, network: nn.Module, images: Images) -> list[NDArray[Any]]:
        """Return segments, float (L, 4): x and y of both ends in pixels of the detection size."""
        opaque = np.ones((*images.shape[:3], 1), np.float32)
        pixels = np.concatenate([images.astype(np.float32), opaque], axis=3).transpose(0, 3, 1, 2) / 127.5 - 1.0
        found = network(torch.from_numpy(pixels).to(device_of(network)))
        return [self._segments(found[i : i + 1]) for i in range(len(images))]

    def _segments(self, output: Tensor) -> NDArray[np.float64]:
        """Return the segments of one image in pixels of the detection size; the output has half of it."""
        with quiet():
            from controlnet_aux.mlsd.utils import deccode_output_score_and_ptss
        centres, scores, ends = deccode_output_score_and_ptss(output, _MOST_LINES, _PEAK)
        rows, columns = centres.T
        moved = ends[rows, columns]
        kept = (scores > self.score) & (np.linalg.norm(moved[:, :2] - moved[:, 2:], axis=1) > self.length)
        segments: NDArray[np.float64] = 2 * (np.stack([columns, rows, columns, rows], axis=1) + moved)[kept]
        return segments

    def finish(self, found: NDArray[Any], seen: Images, images: Images) -> NDArray[Any]:
        """Return the segments drawn at the images' own size, bool (H, W)."""
        height, width = images.shape[1:3]
        across, down = width / seen.shape[2], height / seen.shape[1]
        canvas = np.zeros((height, width), np.uint8)
        for x0, y0, x1, y1 in (found * [across, down, across, down]).astype(int).tolist():
            cv2.line(canvas, (x0, y0), (x1, y1), 255, 1)
        return canvas > 0
