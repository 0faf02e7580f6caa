"""Cells of condition columns made to harm: a map of the condition's form, or a row that fails, for every condition."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmark import registry
from benchmark.base.images import BadImage, Transform, encode_paletted_png, encode_png
from benchmark.contracts.cells import as_cell
from benchmark.contracts.plugins import Cell, Condition
from benchmark.scenes.figure import KEYPOINTS

SIDE = 16  # SSIM needs 11
quick = settings(deadline=None, max_examples=60)
NAMES = registry.names(Condition)


def taken(condition: Condition, cell: Cell) -> bool:
    """Read a cell as a build does; return whether it gave a map that can be stored and shown."""
    try:
        map_ = condition.warp(condition.parse(cell), Transform(SIDE, SIDE, SIDE))
    except BadImage:
        return False
    if condition.check(map_, SIDE) is not None:
        return False
    stored = condition.decode(condition.encode(map_))
    assert condition.render(stored, SIDE).shape == (SIDE, SIDE, 3)
    assert np.isfinite(condition.compare(map_, stored)).all()
    return True


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.binary()
NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4), max_leaves=10)
LABELS = st.sampled_from([np.uint8, np.int8, np.uint16, np.int64, np.uint64, np.float32, np.bool_]).flatmap(
    lambda dtype: arrays.arrays(dtype, st.sampled_from([(SIDE, SIDE), (SIDE, SIDE, 3), (0, 0), (2, 3), (SIDE,)]))
)


@pytest.mark.parametrize("name", NAMES)
@example(as_cell([[[None], [None]], [[None], [""]]]))
@given(cell=st.binary(max_size=60) | NESTED.map(as_cell) | LABELS)
@quick
def test_any_cell_is_a_map_or_a_fault(name: str, cell: Cell) -> None:
    taken(registry.make(Condition, name), cell)


@example(np.full((SIDE, SIDE), -(2**63), np.int64), 300)
@given(labels=arrays.arrays(np.uint64, (SIDE, SIDE)) | arrays.arrays(np.int64, (SIDE, SIDE)), first=st.integers(0, 300))
@quick
def test_labels_are_ids_exactly_or_the_row_fails(labels: NDArray[Any], first: int) -> None:
    """Against Python's own whole numbers, which do not run over."""
    whole = [int(label) for label in labels.ravel()]
    wanted = [150 if label < first or label == 255 else label - first for label in whole]
    seg = registry.make(Condition, "seg,palette=ade20k")
    if any(first + 150 <= label != 255 for label in whole):
        with pytest.raises(BadImage):
            seg.parse(labels, first)
    else:
        assert seg.parse(labels, first).array.ravel().tolist() == wanted


@given(ids=arrays.arrays(np.uint8, (SIDE, SIDE)))
@quick
def test_a_picture_in_the_palette_with_ids_beyond_it_fails(ids: NDArray[np.uint8]) -> None:
    seg = registry.make(Condition, "seg")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(seg.colours)] = seg.colours  # type: ignore[attr-defined]
    assert taken(seg, encode_paletted_png(ids, colours)) == (ids.max() < len(seg.colours))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@quick
def test_a_damaged_picture_is_a_map_or_a_fault(name: str, data: st.DataObject) -> None:
    grey = np.zeros((SIDE, SIDE), np.uint8)
    cell = bytearray(encode_png(grey if name != "normal" else np.dstack([grey + 128, grey + 128, grey + 255])))
    for place in data.draw(st.lists(st.integers(0, len(cell) - 1), max_size=3)):
        cell[place] = data.draw(st.integers(0, 255))
    taken(registry.make(Condition, name), bytes(cell[: data.draw(st.integers(1, len(cell)))]))


def drawing(text: str, zipped: bool = False) -> bytes:
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("keypoints", text, zip=zipped)
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


JOINTS = st.lists(st.floats(width=32) | st.floats() | st.sampled_from([0, 1, 2]), min_size=3, max_size=3)
FIGURES = st.lists(st.lists(JOINTS, min_size=len(KEYPOINTS), max_size=len(KEYPOINTS)), max_size=2)


@given(text=st.text(max_size=20) | NESTED.map(repr) | FIGURES.map(json.dumps))
@quick
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_any_keypoints_are_figures_or_a_fault(text: str) -> None:
    taken(registry.make(Condition, "pose"), drawing(text))


@pytest.mark.parametrize("text", ["[" * 50_000, "9" * 50_000, "", "{}", '"x"', "[[[NaN, 0, 2]]]", "[1, 2]", "null"])
def test_keypoints_that_are_none_fail_their_row(text: str) -> None:
    assert not taken(registry.make(Condition, "pose"), drawing(text))


def test_keypoints_that_unpack_to_a_hundred_megabytes_fail_their_row() -> None:
    assert not taken(registry.make(Condition, "pose"), drawing(" " * 100_000_000, zipped=True))


@pytest.mark.parametrize("far", [1e7, float("inf"), float("nan")])
def test_a_joint_that_no_picture_could_show_fails_its_row(far: float) -> None:
    figure = np.zeros((1, len(KEYPOINTS), 3))
    figure[0, 3] = far, 0.5, 0
    assert not taken(registry.make(Condition, "pose"), drawing(json.dumps(figure.tolist())))
