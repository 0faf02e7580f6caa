"""A rendered pool of scenes in arrays on disk: what the bundled models are trained on."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.base.console import track
from benchmark.base.files import replace_file, write_through
from benchmark.scenes.captions import tags
from benchmark.scenes.splits import example

_BLOCK = 250


@dataclass(frozen=True)
class Pool:
    """N rendered scenes: images uint8 (N, R, R, 3), seg uint8 (N, R, R), captions and tags of length N."""

    images: NDArray[np.uint8]
    seg: NDArray[np.uint8]
    captions: list[str]
    tags: list[dict[str, Any]]


def load_pool(folder: Path, split: str, size: int, resolution: int, seed: int = 0) -> Pool:
    """Return the first `size` scenes of a split, rendered into a folder on the first call."""
    stem = folder / f"{split}-{size}-{resolution}-s{seed}"
    arrays, texts = stem.with_suffix(".npz"), stem.with_suffix(".json")
    if not texts.exists():
        _render_pool(arrays, texts, split, size, resolution, seed)
    rows = json.loads(texts.read_text())
    with np.load(arrays) as data:
        return Pool(data["images"], data["seg"], [row["caption"] for row in rows], [row["tags"] for row in rows])


def _render_pool(arrays: Path, texts: Path, split: str, size: int, resolution: int, seed: int) -> None:
    render = partial(_render_block, split, size, resolution, seed)
    starts = range(0, size, _BLOCK)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        blocks = list(track(workers.map(render, starts), len(starts), f"render {split}", "blocks"))
    images, seg, rows = (list(part) for part in zip(*blocks, strict=True))

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, images=np.concatenate(images), seg=np.concatenate(seg))

    write_through(arrays, write)
    replace_file(texts, json.dumps([row for block in rows for row in block]).encode())


def _render_block(split: str, size: int, resolution: int, seed: int, start: int) -> tuple[Any, Any, list[Any]]:
    examples = [example(seed, split, i, resolution) for i in range(start, min(start + _BLOCK, size))]
    images = np.stack([e.render.image for e in examples])
    seg = np.stack([e.render.seg for e in examples]).astype(np.uint8)
    return images, seg, [{"caption": e.caption, "tags": tags(e.scene)} for e in examples]
