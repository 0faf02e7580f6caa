"""Networks that find soft edges, for the annotators that store them and the one that makes scribbles of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.annotators._hub import Detector, Weights, back, device_of, fill, quiet
from benchmark.contracts.plugins import Images

_STEPS = 2  # "safe" strengths are 0, 1/2 and 1


def _hed(weights: Weights) -> nn.Module:
    with quiet():
        from controlnet_aux.hed import ControlNetHED_Apache2
    return fill(ControlNetHED_Apache2(), weights.state(), weights)


def _hed_strengths(network: nn.Module, images: Images) -> list[NDArray[np.float64]]:
    """Return the logistic of the mean of five side outputs, each enlarged to the image."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().to(device_of(network))
    sides = [side[:, 0].float().cpu().numpy() for side in network(pixels)]
    size = images.shape[2], images.shape[1]
    merged = [[cv2.resize(side[i], size, interpolation=cv2.INTER_LINEAR) for side in sides] for i in range(len(images))]
    return [1 / (1 + np.exp(-np.mean(np.stack(each, axis=2), axis=2).astype(np.float64))) for each in merged]


def _pidinet(weights: Weights) -> nn.Module:
    with quiet():
        from controlnet_aux.pidi.model import pidinet
    return fill(pidinet(), weights.state().get("state_dict", {}), weights)


def _pidinet_strengths(network: nn.Module, images: Images) -> list[NDArray[np.float64]]:
    """Return the last of the network's outputs; it was trained on blue, green, red."""
    pixels = images[..., ::-1].transpose(0, 3, 1, 2).copy()
    found: Tensor = network(torch.from_numpy(pixels).float().to(device_of(network)) / 255.0)[-1]
    return list(found[:, 0].float().cpu().numpy())


class EdgeNetwork(NamedTuple):
    """A network of soft edges: its file in the hub, how it is made, and how it reads images at detection size."""

    file: str
    build: Callable[[Weights], nn.Module]
    strengths: Callable[[nn.Module, Images], list[NDArray[np.float64]]]


EDGE_NETWORKS = {
    "hed": EdgeNetwork("ControlNetHED.pth", _hed, _hed_strengths),
    "pidinet": EdgeNetwork("table5_pidinet.pth", _pidinet, _pidinet_strengths),
}


@dataclass(frozen=True)
class SoftEdges(Detector):
    """Strength of boundaries from one of the networks.

    Attributes:
        safe: Keep three strengths only, 0, 1/2 and 1. Unquantised soft edges hide a grey copy of the image from which a
            ControlNet learns to read what no user will draw (ControlNet 1.1).
    """

    safe: bool = True

    kind: ClassVar[str]

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "softedge"

    @property
    def weights(self) -> Weights:
        """The file of the network's kind."""
        return Weights(self.model, self.revision, EDGE_NETWORKS[self.kind].file)

    @classmethod
    def build(cls, weights: Weights) -> nn.Module:
        """Return the network of the kind."""
        return EDGE_NETWORKS[cls.kind].build(weights)

    def read(self, network: nn.Module, images: Images) -> list[NDArray[Any]]:
        """Return levels, uint8 (H, W), cut off below as controlnet-aux does."""
        found = EDGE_NETWORKS[self.kind].strengths(network, images)
        return [(255.0 * (safe(each) if self.safe else each)).clip(0, 255).astype(np.uint8) for each in found]

    def finish(self, found: NDArray[Any], seen: Images, images: Images) -> NDArray[Any]:
        """Return strengths, float32 (H, W) in [0, 1]."""
        return back(found, images) / np.float32(255)


def safe(strength: NDArray[Any]) -> NDArray[np.float32]:
    """Return strengths in [0, 1] rounded down to thirds and shown as 0, 1/2 and 1 (`safe_step` of ControlNet 1.1)."""
    thirds = np.floor(strength.astype(np.float32) * np.float32(_STEPS + 1))
    shown: NDArray[np.float32] = np.minimum(thirds / np.float32(_STEPS), np.float32(1))
    return shown
