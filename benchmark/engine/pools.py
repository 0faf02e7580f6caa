"""The images a run was trained on, read again from its dataset."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError
from benchmark.base.images import decode_rgb
from benchmark.engine.corruptions import corrupted, damage
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.reader import Subset

_BATCH = 256


def trained_images(control: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images behind what steered, in batches (n, R, R, 3); of several runs, those of each.

    Args:
        control: As images.json names what steered; it must be one run, or several.

    Raises:
        UserError: The dataset of a run is not where it was, or is another.
    """
    for run in control.get("parts", [control]):
        yield from _of_run(run)


def is_run(control: dict[str, Any]) -> bool:
    """Whether what steered was trained here: a released ControlNet does not say on what."""
    return all("run" in part for part in control.get("parts", [control]))


def _of_run(run: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    dataset = BuiltDataset.open(Path(run["dataset"]["path"]))
    seed = run["recipe"]["seeds"]["subset"]
    subset = Subset.of(dataset, run["num_samples"], run["replicate"], seed)
    if (dataset.plan.hash, subset.sha256) != (run["dataset"]["plan_hash"], run["pairs_sha256"]):
        raise UserError(f"{run['run']} was trained on another state of {dataset.folder}; its images are gone")
    view = corrupted(subset.keys, run["corrupt"], seed)
    suffered: dict[str, set[tuple[str, ...]]] = {}
    for names, here in view.by_damage():
        for place in view.images[here]:
            suffered.setdefault(subset.keys[place], set()).add(names)
    rows = (row for row in dataset.rows("train", ["key", "image"]) if row["key"] in suffered)
    images = (
        damage(decode_rgb(row["image"]["bytes"]), names) for row in rows for names in sorted(suffered[row["key"]])
    )
    while batch := list(islice(images, _BATCH)):
        yield np.stack(batch)
