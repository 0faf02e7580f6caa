"""Decode a whole dataset: every row is one picture, one caption and one map of each condition, of the promised size."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.base.console import progress
from benchmark.base.files import sha256
from benchmark.base.images import decode_rgb
from benchmark.contracts.plugins import SPLITS, Condition
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.shards import Commit, read_rows
from benchmark.numbers.quality import grey_of, perceptual_hash, read_header


def deep_faults(dataset: BuiltDataset, conditions: Mapping[str, Condition]) -> list[str]:
    """Return what is wrong with the rows of a dataset, excluded ones too; at most one fault a row.

    Args:
        dataset: Whose files are those that were committed.
        conditions: By name, every condition of its plan.
    """
    faults: list[str] = []
    seen: set[str] = set()
    with progress(sum(c.num_ok for s in SPLITS for c in dataset.commits(s)), "verify", "pairs") as bar:
        for split in SPLITS:
            for commit in dataset.commits(split):
                found = 0
                for row in _rows(dataset, commit, conditions):
                    found += 1
                    fault = "is in the dataset twice" if row["key"] in seen else _fault(dataset, conditions, row)
                    faults += [f"{commit.file}, {row['key']}: {fault}"] if fault else []
                    seen.add(row["key"])
                    bar.update()
                if found != commit.num_ok:
                    faults.append(f"{commit.shard} holds {found} rows, not the {commit.num_ok} committed")
    return faults


def _rows(dataset: BuiltDataset, commit: Commit, conditions: Mapping[str, Condition]) -> Iterator[dict[str, Any]]:
    columns = ["key", "image", "caption", "width", "height", "sha256", *(f"cond_{name}" for name in conditions)]
    columns += ["phash"] if dataset.plan.hygiene else []
    return read_rows(dataset.folder / commit.file, columns) if commit.file else iter(())


def _fault(dataset: BuiltDataset, conditions: Mapping[str, Condition], row: dict[str, Any]) -> str | None:
    """Return what is wrong with one row, or None."""
    side = dataset.plan.resolution
    try:
        pixels = decode_rgb(row["image"]["bytes"])
    except Exception as error:  # whatever it is, it is a fault
        return f"image: {error}"
    if sha256(row["image"]["bytes"]) != row["sha256"]:
        return "the image is not the one that was hashed"
    if pixels.shape != (side, side, 3) or (row["width"], row["height"]) != (side, side):
        return f"the image is {pixels.shape[1]} x {pixels.shape[0]} pixels, not {side} x {side}"
    if "phash" in row and perceptual_hash(grey_of(pixels)) != row["phash"]:
        return "phash is not that of the image"
    for name, condition in conditions.items():
        if fault := _map_fault(condition, row[f"cond_{name}"]["bytes"], side):
            return f"cond_{name}: {fault}"
    return None


def _map_fault(condition: Condition, data: bytes, side: int) -> str | None:
    try:
        shown = condition.render(condition.decode(data), side)
        stored = read_header(data).shorter_side
    except Exception as error:  # a plugin may raise anything on bytes that are no map of its kind
        return f"is no such map ({type(error).__name__}: {error})"
    is_sized = stored == side or "H" not in condition.form.axes  # figures are stored at a size of their own
    return None if is_sized and shown.shape == (side, side, 3) else f"is no map of {side} x {side} pixels"
