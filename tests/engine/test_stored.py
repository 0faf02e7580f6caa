"""Encoded images that stay on disk: any order gives what was stored, and neighbours are read once."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from benchmark.base.errors import UserError
from benchmark.engine import stored
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.imagesets import load_reference
from benchmark.engine.shards import Place, read_images_of_group
from benchmark.engine.stored import Packed, Stored


def test_stored_images_are_those_of_the_rows_in_any_order(tiny_dataset: Path) -> None:
    dataset = BuiltDataset.open(tiny_dataset)
    located = list(dataset.located("train", ["key", "cond_seg"]))
    order = np.random.default_rng(0).permutation(len(located)).tolist()
    cells = Stored(tuple(located[i][0] for i in order), "cond_seg")
    assert len(cells) == len(located) == dataset.manifest.num_rows["train"]
    assert len({place.group for place, _ in located}) > 1
    assert list(cells) == [located[i][1]["cond_seg"]["bytes"] for i in order]
    assert list(cells[7:3:-2]) == [cells[7], cells[5]]


def test_neighbours_are_read_once(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(path: Path, group: int, column: str) -> list[bytes]:
        read.append(group)
        return read_images_of_group(path, group, column)

    monkeypatch.setattr(stored, "_group", lru_cache(maxsize=2)(counted))
    reference = load_reference(BuiltDataset.open(tiny_dataset), "train", "seg", 150)
    assert reference.images().shape == (150, 64, 64, 3)
    assert read == [0, 1]


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"):
        Stored((Place(tmp_path / "gone.parquet", 0, 0),), "image")[0]


def test_packed_items_are_those_that_were_given_and_leave_no_file(tmp_path: Path) -> None:
    items = [b"one", b"", b"three" * 1000, b"x"]
    packed = Packed.of(iter(items), tmp_path / "cache")
    assert [packed[i] for i in (2, 0, 3, 1)] == [items[i] for i in (2, 0, 3, 1)]
    assert len(packed) == 4
    assert not list((tmp_path / "cache").iterdir())
