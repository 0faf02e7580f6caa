"""How a source without splits of its own is divided, and into which parts: by hashes of its keys, whatever the size."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import glob
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, sha256, sha256_file
from benchmark.base.seeds import hash64
from benchmark.contracts.plugins import Part

HELD_OUT = 256
PART = 500
T = TypeVar("T")


def divide(keys: Sequence[str], held_out: int = HELD_OUT) -> dict[str, list[str]]:
    """Return the keys of every part, test and validation first: disjoint, in an order that no size changes.

    A tenth of the keys goes to test and as many to validation: at most `held_out`, and of a small set up to 8.

    Raises:
        UserError: Fewer than three keys.
    """
    if len(keys) < 3:
        raise UserError(f"{len(keys)} images are too few; a dataset needs at least 3: one each for train, val and test")
    order = sorted(keys, key=lambda key: (hash64("order", key), key))
    share = held_out_share(len(keys), held_out)
    cuts = {"test": order[:share], "val": order[share : 2 * share], "train": order[2 * share :]}
    return {
        f"{split}-{start // PART:06d}": rows[start : start + PART]
        for split, rows in cuts.items()
        for start in range(0, len(rows), PART)
    }


def held_out_share(count: int, held_out: int = HELD_OUT) -> int:
    """Return how many of `count` samples go to test, and to validation: a tenth, or a quarter where that is below 8.

    Raises:
        UserError: `held_out`, which is the most, is below one.
    """
    if held_out < 1:
        raise UserError(f"held_out is the most samples of a split, at least 1, not {held_out}")
    return min(held_out, max(count // 10, min(8, count // 4), 1))


def consecutive(count: int, held_out: int = HELD_OUT) -> dict[str, range]:
    """Return the places of every part of samples that are read in their own order: the first are held out.

    Raises:
        UserError: Fewer than three samples.
    """
    if count < 3:
        raise UserError(f"{count} samples are too few; a dataset needs at least 3: one each for train, val and test")
    share = held_out_share(count, held_out)
    splits = {"test": range(share), "val": range(share, 2 * share), "train": range(2 * share, count)}
    return {f"{split}-{i:06d}": part for split, places in splits.items() for i, part in enumerate(in_parts(places))}


def in_parts(places: range) -> list[range]:
    """Return the stretches of a part's size in consecutive places."""
    return [range(start, min(start + PART, places.stop)) for start in range(places.start, places.stop, PART)]


def in_files(places: range, ends: Sequence[int]) -> Iterator[tuple[int, range]]:
    """Yield (file, places inside it) of consecutive places over files; `ends` are the files' cumulative counts."""
    start = 0
    for file, end in enumerate(ends):
        first, last = max(places.start, start), min(places.stop, end)
        if first < last:
            yield file, range(first - start, last - start)
        start = end


def matching(pattern: str, suffix: str) -> list[Path]:
    """Return the files a glob names, sorted, or those with a suffix in a folder.

    Raises:
        UserError: There are none.
    """
    if Path(pattern).is_dir():
        found = sorted(Path(pattern).glob(f"*{suffix}"))
    else:
        found = sorted(Path(name) for name in glob(pattern, recursive=True))  # noqa: PTH207 - a pattern may be absolute
    if not found:
        raise UserError(
            f'"{pattern}" names no {suffix} file; give a folder of them, or a pattern such as data/*{suffix}'
        )
    return found


class Stretch(NamedTuple):
    """Samples that follow one another in a file; the label names the file in their keys."""

    label: str
    path: Path
    places: range


class Forward(Generic[T]):
    """Something that is read in its own order, forward: what lies before a place costs as much as to read it.

    Args:
        begin: Begins to read at a place.
    """

    def __init__(self, begin: Callable[[int], Iterator[T]]) -> None:
        self._begin = begin
        self._next = 0  # the place that comes next
        self._rest: Iterator[T] | None = None

    def read(self, start: int, stop: int) -> Iterator[tuple[int, T]]:
        """Yield what is at the places from `start` to `stop`, going on where it stands unless that is past them."""
        rest, place = self._rest, self._next
        self._rest = None  # whoever comes while this one is under way, or after it failed, begins anew
        if rest is None or place > start:
            rest, place = self._begin(start), start
        next(islice(rest, start - place, start - place), None)  # pass over what other processes read
        place = start
        for item in islice(rest, stop - start):
            yield place, item
            place += 1
        self._rest, self._next = rest, place


class Files:
    """Files whose samples are read in their own order, one file after another.

    Args:
        paths: The files.
        counts: How many samples each holds.
        held_out: The most that go to test, and to validation.
    """

    def __init__(self, paths: Sequence[Path], counts: Iterable[int], held_out: int = HELD_OUT) -> None:
        self.paths = paths
        self.labels = labels(paths)
        self._ends = list(accumulate(counts))
        self._parts = consecutive(self._ends[-1], held_out)

    def identity(self) -> dict[str, Any]:
        """Return the number of samples and a hash over the files' names and content."""
        rows = [(label, sha256_file(path)) for label, path in zip(self.labels, self.paths, strict=True)]
        return {"num_samples": self._ends[-1], "content_sha256": sha256(canonical_json(rows))}

    def parts(self) -> Iterator[Part]:
        """Yield test parts, validation parts, then training parts; each says in which `Stretch`es it lies."""
        for name, places in self._parts.items():
            where = (Stretch(self.labels[i], self.paths[i], inside) for i, inside in in_files(places, self._ends))
            yield Part(name, len(places), tuple(where))


def labels(files: Sequence[Path]) -> list[str]:
    """Return a name for each file, unique and the same wherever their common folder lies: its path there, no suffix."""
    common = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(common).with_suffix("").as_posix() for file in files]
