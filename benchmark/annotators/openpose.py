"""Human pose of OpenPose's COCO body model (Cao et al. 2019), from controlnet-aux; non-commercial licence of CMU."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmark.annotators._hub import Detector, Weights, fill, quiet
from benchmark.contracts.plugins import Images, Map
from benchmark.numbers.pose import SEEN
from benchmark.scenes.figure import KEYPOINTS

# Names in the order of the network's 18 channels.
_ORDER = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
_TO_OURS = [_ORDER.index(name) for name in KEYPOINTS]


@dataclass(frozen=True)
class Openpose(Detector):
    """Figures with the joints that are found, all of them seen; small and crowded people are missed or joined.

    The network reads one image at a time, and finding peaks and limbs on the CPU takes longer than it does.

    Attributes:
        keypoints: Share of the 18 keypoints that must be found for a figure to count; a pair without such a figure is
            left out of a dataset (the people filter of the ControlNet paper: at least 30 %).
    """

    keypoints: float = 0.3

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "pose"

    @property
    def weights(self) -> Weights:
        """The file of the body model."""
        return Weights(self.model, self.revision, "body_pose_model.pth")

    @staticmethod
    def build(weights: Weights) -> nn.Module:
        """Return the body model; its file names layers without the stage they are in."""
        with quiet():
            from controlnet_aux.open_pose.body import bodypose_model
        net, state = bodypose_model(), weights.state()
        inner = {name: name.partition(".")[2] for name in net.state_dict()}
        return fill(net, {name: state[short] for name, short in inner.items() if short in state}, weights)

    def read(self, network: nn.Module, images: Images) -> list[NDArray[Any]]:
        """Return figures, float (P, 18, 3) in the network's order: x and y in pixels of the detection size, found."""
        with quiet():
            from controlnet_aux.open_pose.body import Body
        body = object.__new__(Body)  # its constructor would load the file again
        body.model = network
        figures = [body.format_body_result(*body(image[:, :, ::-1].copy())) for image in images]
        return [np.array([_joints(each.keypoints) for each in found]).reshape(-1, len(_ORDER), 3) for found in figures]

    def finish(self, found: NDArray[Any], seen: Images, images: Images) -> NDArray[Any]:
        """Return the figures that pass the filter, float32 (P, 18, 3), in units of the image's side.

        A joint that was not found lies in the middle of those that were: scores take a figure's size over all joints.
        """
        sides = np.array([seen.shape[2], seen.shape[1]])
        joints = found[:, _TO_OURS]
        shown = joints[..., 2:] == SEEN
        places = (joints[..., :2] + 0.5) / sides
        middle = np.where(shown, places, 0).sum(axis=1, keepdims=True) / np.maximum(shown.sum(axis=1, keepdims=True), 1)
        joints[..., :2] = np.where(shown, places, middle)
        kept = joints[shown[..., 0].mean(axis=1) >= self.keypoints]
        return np.asarray(kept, dtype=np.float32)

    def reject(self, map_: Map) -> str | None:
        """Return the reason where no figure passed the filter."""
        return None if len(map_.array) else f"nobody of whom {self.keypoints:.0%} of the keypoints are found"


def _joints(keypoints: list[Any]) -> list[tuple[float, float, int]]:
    """Return x, y and visibility of each keypoint; those that were not found are None."""
    return [(0.0, 0.0, 0) if each is None else (each.x, each.y, SEEN) for each in keypoints]
