"""Surface normals of NormalBae (Bae et al. 2021), trained on ScanNet, from controlnet-aux."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.transforms.functional import normalize

from benchmark.annotators._hub import Detector, Weights, back, device_of, fill, quiet
from benchmark.contracts.plugins import Images

_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_TO_OURS = np.array([-1, 1, 1], np.float32)  # ScanNet's x points left: "blue is front, red is left, green is top"


@dataclass(frozen=True)
class Normalbae(Detector):
    """Normals in our axes, x right, y up, z to the viewer; indoor scenes are what it knows.

    controlnet-aux shows ScanNet's axes, in which x points left, so its red is the complement of ours.
    """

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "normal"

    @property
    def weights(self) -> Weights:
        """The file of the network trained on ScanNet."""
        return Weights(self.model, self.revision, "scannet.pt")

    @staticmethod
    def build(weights: Weights) -> nn.Module:
        """Return the network as controlnet-aux sets it up."""
        with quiet():
            from controlnet_aux.normalbae import NNET
        settings = SimpleNamespace(
            mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
        )
        return fill(NNET(settings), weights.state().get("model", {}), weights)

    def read(self, network: nn.Module, images: Images) -> list[NDArray[Any]]:
        """Return normals in ScanNet's axes, float32 (H, W, 3)."""
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().to(device_of(network)) / 255.0
        found = network(normalize(pixels, _MEAN, _DEVIATION))[0][-1][:, :3]
        return list(found.permute(0, 2, 3, 1).float().cpu().numpy())

    def finish(self, found: NDArray[Any], seen: Images, images: Images) -> NDArray[Any]:
        """Return unit normals in our axes, float32 (H, W, 3)."""
        turned = back(found, images) * _TO_OURS
        return np.asarray(turned / np.maximum(np.linalg.norm(turned, axis=-1, keepdims=True), 1e-6), dtype=np.float32)
