"""Figures: joints in OpenPose's order, bones of fixed length, angles that mean what they say, feet on the ground."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmark.scenes.figure import HEAD, KEYPOINTS, LIMBS, Pose, joints
from benchmark.scenes.world import Thing, draw_scene

Array = Any  # NDArray[np.float64]: NumPy's own types lose it in arithmetic
_SEEDS = range(40)
_BOTH = ("right", "left")
_STANDING = Pose(0, (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0))
# Lengths in statures.
_BONES = {
    ("pelvis", "neck"): 0.29,
    ("neck", "head"): 0.115,
    **{("neck", f"{side}_shoulder"): 0.115 for side in _BOTH},
    **{(f"{side}_shoulder", f"{side}_elbow"): 0.160 for side in _BOTH},
    **{(f"{side}_elbow", f"{side}_wrist"): 0.150 for side in _BOTH},
    **{("pelvis", f"{side}_hip"): 0.062 for side in _BOTH},
    **{(f"{side}_hip", f"{side}_knee"): 0.235 for side in _BOTH},
    **{(f"{side}_knee", f"{side}_ankle"): 0.225 for side in _BOTH},
    **{(f"{side}_ankle", f"{side}_toe"): (0.02**2 + 0.018**2 + 0.07**2) ** 0.5 for side in _BOTH},
    ("right_ear", "left_ear"): 2 * 0.062,
    ("right_eye", "left_eye"): 2 * 0.062 * 0.42,
    **{("head", f"{side}_ear"): 0.062 for side in _BOTH},
}


def _random_pose(seed: int) -> tuple[Pose, float]:
    """A pose from wider ranges than the world draws from, and a stature."""
    rng = np.random.default_rng(seed)

    def pair(low: float, high: float) -> tuple[float, float]:
        return float(rng.uniform(low, high)), float(rng.uniform(low, high))

    pose = Pose(
        lean=float(rng.uniform(-30, 30)),
        arm_out=pair(-20, 180),
        arm_forward=pair(-60, 120),
        elbow=pair(0, 140),
        elbow_out=pair(-60, 60),
        leg_out=pair(-10, 45),
        leg_forward=pair(-60, 80),
        knee=pair(0, 120),
    )
    return pose, float(rng.uniform(1, 3))


def _found(pose: Pose, stature: float = 1.0) -> dict[str, Array]:
    return {name: np.array(place) for name, place in joints(pose, stature).items()}


@cache
def _drawn() -> tuple[Thing, ...]:
    return tuple(thing for i in range(500) for thing in draw_scene(2, i).things if thing.pose)


def _direction(found: dict[str, Array], start: str, end: str) -> Array:
    return (found[end] - found[start]) / np.linalg.norm(found[end] - found[start])


def test_keypoints_are_in_the_order_of_openposes_coco_model() -> None:
    order = "nose neck"
    order += " right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist"
    order += " right_hip right_knee right_ankle left_hip left_knee left_ankle"
    order += " right_eye left_eye right_ear left_ear"
    assert tuple(order.split()) == KEYPOINTS
    assert len(KEYPOINTS) == 18


def test_limbs_join_neighbouring_joints_into_one_tree() -> None:
    named = {frozenset((KEYPOINTS[a], KEYPOINTS[b])) for a, b in LIMBS}
    arms_and_legs = {
        frozenset((f"{side}_{a}", f"{side}_{b}"))
        for side in _BOTH
        for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("eye", "ear"))
    }
    trunk = {frozenset(("neck", f"{side}_{part}")) for side in _BOTH for part in ("shoulder", "hip")}
    face = {frozenset(("neck", "nose")), *(frozenset(("nose", f"{side}_eye")) for side in _BOTH)}
    assert named == arms_and_legs | trunk | face
    assert len(LIMBS) == 17  # one fewer than joints: a tree


@pytest.mark.parametrize("seed", _SEEDS)
def test_bones_have_their_share_of_the_stature_in_every_pose(seed: int) -> None:
    pose, stature = _random_pose(seed)
    found = _found(pose, stature)
    lengths = {(a, b): float(np.linalg.norm(found[a] - found[b])) / stature for a, b in _BONES}
    assert lengths == pytest.approx(_BONES)
    assert set(found) == {"pelvis", "head", "right_toe", "left_toe", *KEYPOINTS}


@pytest.mark.parametrize("seed", _SEEDS)
def test_the_lower_foot_stands_on_the_ground_and_the_hips_above_the_origin(seed: int) -> None:
    pose, stature = _random_pose(seed)
    found = _found(pose, stature)
    ankles = [found[f"{side}_ankle"][1] / stature for side in _BOTH]
    assert min(ankles) == pytest.approx(0.045)
    soles = [found[f"{side}_{end}"][1] / stature - 0.028 for side in _BOTH for end in ("ankle", "toe")]
    assert min(soles) == pytest.approx(0.0, abs=0.002)
    assert found["pelvis"][[0, 2]] == pytest.approx([0, 0])
    assert (found["right_hip"] + found["left_hip"]) / 2 == pytest.approx(found["pelvis"])


@pytest.mark.parametrize("seed", _SEEDS)
def test_a_mirrored_pose_has_mirrored_joints(seed: int) -> None:
    pose, stature = _random_pose(seed)
    swapped = {name: tuple(reversed(value)) for name, value in vars(pose).items() if name != "lean"}
    found, mirrored = _found(pose, stature), _found(Pose(lean=-pose.lean, **swapped), stature)
    for name, place in found.items():
        other = name.replace("right", "L").replace("left", "right").replace("L", "left")
        assert mirrored[other] == pytest.approx(place * [-1, 1, 1])


def test_a_figure_that_stands_straight_is_as_tall_as_its_stature() -> None:
    found = _found(_STANDING)
    head_top = found["head"][1] + HEAD[1]
    assert head_top == pytest.approx(1.0, abs=0.02)
    assert found["neck"][1] == pytest.approx(0.045 + 0.225 + 0.235 + 0.29)
    for side, sign in (("right", -1), ("left", 1)):
        assert found[f"{side}_wrist"] == pytest.approx([sign * 0.115, 0.795 - 0.31, 0])
        assert found[f"{side}_ankle"] == pytest.approx([sign * 0.062, 0.045, 0])


def test_the_face_is_on_the_head_and_looks_forward() -> None:
    found = _found(_STANDING)
    for name in ("nose", "right_eye", "left_eye", "right_ear", "left_ear"):
        unit = (found[name] - found["head"]) / HEAD
        assert np.linalg.norm(unit) == pytest.approx(1.0, abs=0.03)
    for name in ("nose", "right_eye", "left_eye"):
        assert found[name][2] - found["head"][2] > 0.8 * HEAD[2]
    assert found["right_eye"][1] == found["left_eye"][1] > found["nose"][1]


_BENT: list[tuple[str, Pose, str, tuple[str, str], Callable[[float], list[float]]]] = [
    # what, pose, side, bone, its direction; `s` is -1 on the right, 1 on the left
    ("arm out", replace(_STANDING, arm_out=(90, 90)), "both", ("shoulder", "elbow"), lambda s: [s, 0, 0]),
    ("forearm follows", replace(_STANDING, arm_out=(90, 90)), "both", ("elbow", "wrist"), lambda s: [s, 0, 0]),
    ("arm up", replace(_STANDING, arm_out=(180, 180)), "both", ("shoulder", "wrist"), lambda s: [0, 1, 0]),
    ("arm forward", replace(_STANDING, arm_forward=(90, 90)), "both", ("shoulder", "elbow"), lambda s: [0, 0, 1]),
    ("arm back", replace(_STANDING, arm_forward=(-90, -90)), "both", ("shoulder", "elbow"), lambda s: [0, 0, -1]),
    ("one arm", replace(_STANDING, arm_out=(90, 0)), "left", ("shoulder", "wrist"), lambda s: [0, -1, 0]),
    ("elbow bends", replace(_STANDING, elbow=(90, 90)), "both", ("elbow", "wrist"), lambda s: [0, 0, 1]),
    ("elbow leaves the upper arm", replace(_STANDING, elbow=(90, 90)), "both", ("shoulder", "elbow"),
     lambda s: [0, -1, 0]),
    ("forearm out", replace(_STANDING, elbow_out=(90, 90)), "both", ("elbow", "wrist"), lambda s: [s, 0, 0]),
    ("leg out", replace(_STANDING, leg_out=(30, 30)), "both", ("hip", "knee"), lambda s: [s * 0.5, -(0.75**0.5), 0]),
    ("leg forward", replace(_STANDING, leg_forward=(90, 0)), "right", ("hip", "knee"), lambda s: [0, 0, 1]),
    ("knee bends back", replace(_STANDING, knee=(90, 0)), "right", ("knee", "ankle"), lambda s: [0, 0, -1]),
    ("knee of one leg", replace(_STANDING, knee=(90, 0)), "left", ("hip", "ankle"), lambda s: [0, -1, 0]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pose", "side", "bone", "expected"), [row[1:] for row in _BENT], ids=[row[0] for row in _BENT]
)
def test_angles_turn_limbs_as_they_say(
    pose: Pose, side: str, bone: tuple[str, str], expected: Callable[[float], list[float]]
) -> None:
    found = _found(pose, 1.7)
    for each, sign in (("right", -1.0), ("left", 1.0)):
        if side in (each, "both"):
            direction = _direction(found, f"{each}_{bone[0]}", f"{each}_{bone[1]}")
            assert direction == pytest.approx(expected(sign), abs=1e-12)


def test_a_lean_tips_the_trunk_to_the_left_and_leaves_the_legs() -> None:
    found, straight = _found(replace(_STANDING, lean=30)), _found(_STANDING)
    assert _direction(found, "pelvis", "neck") == pytest.approx([0.5, 0.75**0.5, 0])
    assert _direction(found, "right_shoulder", "left_shoulder") == pytest.approx([0.75**0.5, -0.5, 0])
    assert found["right_ankle"] == pytest.approx(straight["right_ankle"])
    assert found["nose"][0] > 0.14


@pytest.mark.parametrize(("yaw", "forward"), [(0, (0, 1)), (90, (1, 0)), (180, (0, -1)), (-30, (-0.5, 0.75**0.5))])
def test_a_figure_faces_where_its_yaw_says(yaw: float, forward: tuple[float, float]) -> None:
    figure = Thing("person", "red", "small", "matte", 1.8, 0.7, -0.4, np.radians(yaw), _STANDING)
    found = {name: np.array(place) for name, place in figure.joints.items()}
    gaze = (found["right_toe"] + found["left_toe"] - found["right_ankle"] - found["left_ankle"])[[0, 2]]
    assert gaze / np.linalg.norm(gaze) == pytest.approx(forward)
    x, z = forward
    assert _direction(found, "right_hip", "left_hip") == pytest.approx([z, 0, -x])  # left x up = forward, right-handed
    assert found["pelvis"][[0, 2]] == pytest.approx([0.7, -0.4])


def test_a_turn_keeps_heights_and_distances_of_drawn_figures() -> None:
    assert len(_drawn()) > 200
    for figure in _drawn():
        assert figure.pose is not None
        own = np.array(list(joints(figure.pose, figure.extent).values()))
        world = np.array(list(figure.joints.values()))
        assert world[:, 1] == pytest.approx(own[:, 1])
        centre = np.array([figure.x, 0, figure.z])
        assert np.linalg.norm(world - centre, axis=1) == pytest.approx(np.linalg.norm(own, axis=1))
        assert np.linalg.det((world - centre)[[1, 3, 6]]) == pytest.approx(np.linalg.det(own[[1, 3, 6]]))  # no mirror


def test_drawn_figures_stand_upright_face_the_camera_side_and_are_all_different() -> None:
    for figure in _drawn():
        found = figure.joints
        assert found["nose"][1] > found["neck"][1] > found["right_hip"][1] > found["right_knee"][1]
        assert abs(np.degrees(figure.yaw)) <= 75
        assert max(found["right_ankle"][1], found["left_ankle"][1]) < 0.2 * figure.extent
    assert len({figure.pose for figure in _drawn()}) == len(_drawn())
