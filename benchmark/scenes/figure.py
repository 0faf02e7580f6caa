"""Jointed human figures: 18 joints from a handful of angles, in metres, with the feet on the ground.

The body's own axes are left (+x), up (+y) and forward (+z): a figure that faces the camera has its left hand on the
right of the image. Keypoints are in the order of OpenPose's COCO model.
"""

from dataclasses import dataclass
from math import cos, radians, sin, sqrt

Vector = tuple[float, float, float]

KEYPOINTS = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
# Pairs of keypoints that a drawing joins, as OpenPose does.
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)

# Lengths in statures.
_SHOULDER_HEIGHT, _HIP_TO_NECK = 0.80, 0.29
_SHOULDER, _HIP = 0.115, 0.062
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.160, 0.150, 0.235, 0.225
_ANKLE_HEIGHT, _HEAD_RISE = 0.045, 0.115
HEAD = (0.062, 0.082, 0.070)  # half axes of the head


@dataclass(frozen=True)
class Pose:
    """Angles in degrees; for arms and legs (right, left): away from the body, forward, and the bend of the joint."""

    lean: float
    arm_out: tuple[float, float]
    arm_forward: tuple[float, float]
    elbow: tuple[float, float]
    elbow_out: tuple[float, float]
    leg_out: tuple[float, float]
    leg_forward: tuple[float, float]
    knee: tuple[float, float]


def joints(pose: Pose, stature: float) -> dict[str, Vector]:
    """Return the joints of a standing figure in its own axes, origin on the ground between the hips.

    Besides the keypoints: ``pelvis``, ``head`` (its centre), and ``right_toe``, ``left_toe``.
    """
    found: dict[str, Vector] = {"pelvis": (0.0, 0.0, 0.0)}
    _legs(found, pose)
    lowest = min(found["right_ankle"][1], found["left_ankle"][1]) - _ANKLE_HEIGHT
    _torso(found, pose)
    _arms(found, pose)
    _face(found)
    return {name: (x * stature, (y - lowest) * stature, z * stature) for name, (x, y, z) in found.items()}


def _legs(found: dict[str, Vector], pose: Pose) -> None:
    for i, (side, sign) in enumerate((("right", -1.0), ("left", 1.0))):
        hip = (sign * _HIP, 0.0, 0.0)
        knee = _step(hip, _limb(sign, pose.leg_out[i], pose.leg_forward[i]), _THIGH)
        ankle = _step(knee, _limb(sign, pose.leg_out[i] / 2, pose.leg_forward[i] - pose.knee[i]), _SHIN)
        found[f"{side}_hip"], found[f"{side}_knee"], found[f"{side}_ankle"] = hip, knee, ankle
        found[f"{side}_toe"] = (ankle[0] + 0.02 * sign, ankle[1] - 0.018, ankle[2] + 0.07)


def _torso(found: dict[str, Vector], pose: Pose) -> None:
    tilt = radians(pose.lean)
    found["neck"] = (_HIP_TO_NECK * sin(tilt), _HIP_TO_NECK * cos(tilt), 0.0)
    found["head"] = _step(found["neck"], (sin(tilt), cos(tilt), 0.12), _HEAD_RISE)
    for side, sign in (("right", -1.0), ("left", 1.0)):
        found[f"{side}_shoulder"] = _step(found["neck"], (cos(tilt), -sin(tilt), 0.0), sign * _SHOULDER)


def _arms(found: dict[str, Vector], pose: Pose) -> None:
    for i, (side, sign) in enumerate((("right", -1.0), ("left", 1.0))):
        out, forward = pose.arm_out[i], pose.arm_forward[i]
        elbow = _step(found[f"{side}_shoulder"], _limb(sign, out, forward), _UPPER_ARM)
        wrist = _step(elbow, _limb(sign, out + pose.elbow_out[i], forward + pose.elbow[i]), _FOREARM)
        found[f"{side}_elbow"], found[f"{side}_wrist"] = elbow, wrist


def _face(found: dict[str, Vector]) -> None:
    x, y, z = found["head"]
    width, height, depth = HEAD
    found["nose"] = (x, y - 0.1 * height, z + depth)
    for side, sign in (("right", -1.0), ("left", 1.0)):
        found[f"{side}_eye"] = (x + sign * 0.42 * width, y + 0.25 * height, z + 0.85 * depth)
        found[f"{side}_ear"] = (x + sign * width, y, z)


def _limb(sign: float, out: float, forward: float) -> Vector:
    """Unit direction of a limb that hangs down, turned outwards and then forward."""
    a, b = radians(out), radians(forward)
    return sign * sin(a), -cos(a) * cos(b), abs(cos(a)) * sin(b)


def _step(start: Vector, direction: Vector, length: float) -> Vector:
    x, y, z = direction
    k = length / sqrt(x * x + y * y + z * z)
    return start[0] + k * x, start[1] + k * y, start[2] + k * z
