"""A rendered pool of scenes in arrays on disk: what the bundled models are trained on."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.base.console import track
from benchmark.base.files import replace_file
from benchmark.scenes.captions import tags
from benchmark.scenes.drawing import draw_segments
from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.palette import COLOURS
from benchmark.scenes.splits import Example, example
from benchmark.scenes.world import MAX_OBJECTS

_BLOCK = 500


@dataclass(frozen=True)
class Truth:
    """Images and truth of N scenes of side R.

    Attributes:
        images: uint8 (N, R, R, 3).
        seg: uint8 (N, R, R), class ids.
        colour: uint8 (N, R, R), 0 for the stage, 1 + index into `palette.COLOURS` for an object and all its pixels.
        depth: float16 (N, R, R), metres.
        normal: int8 (N, R, R, 3), unit vectors times 127.
        boundary: uint8 (N, R, R), strength times 255.
        lines: uint8 (N, R, R), straight edges one pixel wide, antialiased, 255 on a line.
        keypoints: float16 (N, 5, 18, 3), padded with zeros to five figures.
    """

    images: NDArray[np.uint8]
    seg: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    depth: NDArray[np.float16]
    normal: NDArray[np.int8]
    boundary: NDArray[np.uint8]
    lines: NDArray[np.uint8]
    keypoints: NDArray[np.float16]


@dataclass(frozen=True)
class Pool:
    """N rendered scenes with their captions and tags."""

    truth: Truth
    captions: list[str]
    tags: list[dict[str, Any]]

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 (N, R, R, 3)."""
        return self.truth.images

    def first(self, count: int, images: NDArray[np.uint8] | None = None) -> "Pool":
        """Return the first so many scenes; with images, these in place of the renders, the truth being the same."""
        arrays = {field.name: getattr(self.truth, field.name)[:count] for field in fields(Truth)}
        truth = Truth(**(arrays if images is None else arrays | {"images": images}))
        return Pool(truth, self.captions[:count], self.tags[:count])


def load_pool(folder: Path, split: str, size: int, resolution: int, seed: int = 0) -> Pool:
    """Return the first `size` scenes of a split, rendered into a folder on the first call; arrays stay on disk."""
    place = folder / f"{split}-{size}-{resolution}-s{seed}"
    texts = place / "texts.json"
    if not texts.exists():
        _render_pool(place, split, size, resolution, seed)
    rows = json.loads(texts.read_text())
    truth = Truth(**{field.name: np.load(place / f"{field.name}.npy", mmap_mode="r") for field in fields(Truth)})
    return Pool(truth, [row["caption"] for row in rows], [row["tags"] for row in rows])


def _render_pool(place: Path, split: str, size: int, resolution: int, seed: int) -> None:
    """Render block by block; the texts are written last, so that a pool with texts is whole."""
    place.mkdir(parents=True, exist_ok=True)
    starts = range(0, size, _BLOCK)
    arrays: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        blocks = workers.map(partial(_render_block, split, size, resolution, seed), starts)
        for start, (truth, texts) in zip(starts, track(blocks, len(starts), f"render {split}", "blocks"), strict=True):
            for name, part in truth.items():
                if name not in arrays:
                    shape = (size, *part.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(place / f"{name}.npy", "w+", part.dtype, shape)
                arrays[name][start : start + len(part)] = part
            rows.extend(texts)
    for array in arrays.values():
        array.flush()
    replace_file(place / "texts.json", json.dumps(rows).encode())


def _render_block(split: str, size: int, resolution: int, seed: int, start: int) -> tuple[dict[str, Any], list[Any]]:
    examples = [example(seed, split, i, resolution) for i in range(start, min(start + _BLOCK, size))]
    columns = [_truth(e) for e in examples]
    truth = {field.name: np.stack([column[field.name] for column in columns]) for field in fields(Truth)}
    return truth, [{"caption": e.caption, "tags": tags(e.scene)} for e in examples]


def _truth(e: Example) -> dict[str, NDArray[Any]]:
    names = list(COLOURS)
    colours = np.array([0, *(1 + names.index(thing.colour) for thing in e.scene.things)], dtype=np.uint8)
    keypoints = np.zeros((MAX_OBJECTS, len(KEYPOINTS), 3), np.float16)
    keypoints[: len(e.render.keypoints)] = e.render.keypoints
    return {
        "images": e.render.image,
        "seg": e.render.seg.astype(np.uint8),
        "colour": colours[e.render.instance],
        "depth": e.render.depth.astype(np.float16),
        "normal": np.rint(127 * e.render.normal).astype(np.int8),
        "boundary": np.rint(255 * e.render.boundary).astype(np.uint8),
        "lines": draw_segments(e.render.segments, len(e.render.image)),
        "keypoints": keypoints,
    }
