"""Line art of the Informative Drawings network (Chan et al. 2022), from controlnet-aux."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmark.annotators._hub import Detector, Weights, back, device_of, fill, quiet
from benchmark.contracts.plugins import Images


@dataclass(frozen=True)
class Lineart(Detector):
    """Strength of drawn lines; the network draws black on white and is inverted. Shadows may become lines.

    Attributes:
        coarse: Fewer and rougher lines.
    """

    coarse: bool = False

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "lineart"

    @property
    def weights(self) -> Weights:
        """The file of the detailed or the coarse network."""
        return Weights(self.model, self.revision, "sk_model2.pth" if self.coarse else "sk_model.pth")

    @staticmethod
    def build(weights: Weights) -> nn.Module:
        """Return the generator with three residual blocks."""
        with quiet():
            from controlnet_aux.lineart import Generator
        return fill(Generator(3, 1, 3), weights.state(), weights)

    def read(self, network: nn.Module, images: Images) -> list[NDArray[Any]]:
        """Return levels of black on white, uint8 (H, W)."""
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().to(device_of(network)) / 255.0
        drawn = network(pixels)[:, 0].cpu().numpy()
        return [(255.0 * each).clip(0, 255).astype(np.uint8) for each in drawn]

    def finish(self, found: NDArray[Any], seen: Images, images: Images) -> NDArray[Any]:
        """Return strengths of white on black, float32 (H, W) in [0, 1]."""
        return (255 - back(found, images)) / np.float32(255)
