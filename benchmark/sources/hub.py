"""Any Hugging Face dataset: streamed by hub id or from a repository folder, or as saved by `save_to_disk`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from datasets import (
    Dataset,
    DatasetDict,
    Image,
    IterableDataset,
    IterableDatasetDict,
    Value,
    load_dataset,
    load_from_disk,
)
from huggingface_hub import HfApi
from numpy.typing import NDArray
from pyarrow import ArrowException

from benchmark.base.errors import UserError, did_you_mean, first_line
from benchmark.base.files import canonical_json, sha256, sha256_file
from benchmark.base.seeds import hash64
from benchmark.contracts.cells import as_cell, caption_cell
from benchmark.contracts.plugins import Cell, Part, Sample, Source
from benchmark.contracts.splitting import HELD_OUT, PART, Forward, held_out_share, in_parts

_CAPTION_COLUMNS = ("text", "caption", "prompt")
_ARCHIVES = ("zip", "tar")  # protocols of fsspec
_OWN_SPLITS = {"train": ("train",), "val": ("validation", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Hub(Source):
    """Rows of a dataset's image column.

    A dataset saved on disk is read in hash order; a streamed one in its own order, so shuffle it first if it is sorted.
    Where it has no test or validation split of its own, the first rows of that order are held out from training.

    Attributes:
        path: Hub id or folder.
        image: Image column.
        caption: Caption column; by default the first of text, caption, prompt that exists.
        config: Configuration name, where there are several.
        revision: Commit, tag or branch of the hub repository; pin a commit for a dataset that must not change.
        held_out: The most samples that go to test, and as many to validation: the first of a split of its own, a tenth
            of the training rows where that is less.
    """

    path: str
    image: str = "image"
    caption: str | None = None
    config: str | None = None
    revision: str | None = None
    held_out: int = HELD_OUT

    @cached_property
    def _splits(self) -> dict[str, Dataset | IterableDataset]:
        """The dataset's own splits, images undecoded."""
        data = self._open()
        splits = dict(data) if isinstance(data, DatasetDict | IterableDatasetDict) else {"train": data}
        return {name: self._checked(split) for name, split in splits.items()}

    @property
    def _is_saved(self) -> bool:
        return any((Path(self.path) / name).exists() for name in ("dataset_dict.json", "state.json"))

    @cached_property
    def _commit(self) -> str | None:
        """The commit a hub id stands for now; None for a folder."""
        if Path(self.path).exists():
            return self.revision
        return HfApi().dataset_info(self.path, revision=self.revision).sha

    def _open(self) -> Any:
        if self._is_saved and (self.config or self.revision):
            raise UserError(f"{self.path} was saved by save_to_disk: it has no configurations and no revisions")
        try:
            if self._is_saved:
                return load_from_disk(self.path)
            return load_dataset(self.path, self.config, revision=self._commit, streaming=True)
        except Exception as error:  # the library raises many kinds; its first line says which
            raise self._unopened(error) from None

    def _unopened(self, error: Exception) -> UserError:
        return UserError(f"cannot open the dataset {self.path}: {first_line(error)}; give a hub id or a dataset folder")

    def _checked(self, split: Dataset | IterableDataset) -> Dataset | IterableDataset:
        columns = _names(split)
        for column in filter(None, (self.image, self.caption)):
            if column not in columns:
                raise UserError(f'{self.path} has no column "{column}"; {did_you_mean(column, columns)}')
        feature = (split.features or {}).get(self.image)
        if feature is not None and not isinstance(feature, Image) and feature != Value("binary"):
            raise UserError(f'{self.path}: the column "{self.image}" holds no images but {feature}; give image=COLUMN')
        return split.cast_column(self.image, Image(decode=False))

    @cached_property
    def _caption_column(self) -> str | None:
        columns = next(iter(self._splits.values())).column_names or []
        return self.caption or next((name for name in _CAPTION_COLUMNS if name in columns), None)

    @cached_property
    def _ranges(self) -> dict[str, tuple[str, int, int | None]]:
        """Our split to (its split, first row, end row or None): own splits where they exist, else the first rows."""
        own = {ours: next((n for n in names if n in self._splits), None) for ours, names in _OWN_SPLITS.items()}
        train = own["train"] or next(iter(self._splits))
        share = held_out_share(self._num_rows(train, 10 * self.held_out), self.held_out)
        ranges: dict[str, tuple[str, int, int | None]] = {}
        first = 0
        for ours in ("test", "val"):
            name = own[ours]
            if name is not None and name != train:
                ranges[ours] = (name, 0, self._num_rows(name, self.held_out))
            else:
                ranges[ours] = (train, first, first + share)
                first += share
        return ranges | {"train": (train, first, None)}

    def _num_rows(self, split: str, at_most: int) -> int:
        data = self._undecoded(split, ())
        rows = len(data) if isinstance(data, Dataset) else sum(1 for _ in data.take(at_most))
        if rows < 3:
            raise UserError(f"{self.path}: {rows} rows in {split} are too few; a dataset needs at least 3")
        return min(rows, at_most)

    def identity(self) -> dict[str, Any]:
        """Return the content of a folder as one hash, or the commit a hub id stood for, with the splits."""
        self._validate()
        splits, folder = sorted(self._splits), Path(self.path)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        rows = [[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files]
        content = sha256(canonical_json(rows)) if files else None
        return {"content_sha256": content, "commit": self._commit, "splits": splits}

    def parts(self) -> Iterator[Part]:
        """Yield test parts, validation parts, then training parts; one past the end is empty."""
        for ours in ("test", "val"):
            split, first, end = self._ranges[ours]
            for i, part in enumerate(in_parts(range(first, end or 0))):
                yield Part(f"{ours}-{i:06d}", len(part), self._places(split, part.start, part.stop))
        split, first, _ = self._ranges["train"]
        for i in count():
            yield Part(f"train-{i:06d}", PART, self._places(split, first + i * PART, first + (i + 1) * PART))

    def columns(self) -> list[str]:
        """Return the columns of the first split."""
        return _names(next(iter(self._splits.values())))

    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the rows of a part, encoded images as the dataset holds them."""
        (split, start, stop), *places = part.where
        for index, row in self._rows(split, start, stop, places, columns):
            data, fault = self._bytes(row[self.image])
            text, unread = caption_cell(row[self._caption_column] if self._caption_column else None)
            fault = fault or unread
            cells = {}
            for column in columns:
                cells[column], lost = self._cell(row[column])
                fault = fault or lost
            yield Sample(f"{split}-{index:08d}", data, text, fault=fault, columns=cells)

    def _places(self, split: str, start: int, stop: int) -> tuple[Any, ...]:
        """Return the stretch of rows of a part, and the row each stands for where a split is read in hash order."""
        order = self._orders[split][start:stop] if self._is_saved else ()
        return ((split, start, stop), *map(int, order))

    def _rows(
        self, split: str, start: int, stop: int, places: Sequence[int], columns: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._is_saved:
            data = self._undecoded(split, columns)
            yield from ((place, data[place]) for place in places)
        else:
            yield from _stream(self, split, tuple(columns)).read(start, stop)

    def _undecoded(self, split: str, columns: Sequence[str]) -> Dataset | IterableDataset:
        """Return a split with image, caption and some columns alone, pictures left encoded.

        Of all others the library would decode the pictures, and stop at a damaged one.
        """
        wanted = dict.fromkeys((self.image, *filter(None, [self._caption_column]), *columns))
        data = self._splits[split].select_columns(list(wanted))
        for column in columns:
            if isinstance((data.features or {}).get(column), Image):
                data = data.cast_column(column, Image(decode=False))
        return data

    @cached_property
    def _orders(self) -> dict[str, Any]:
        """The hash order of every split."""
        return {split: _hash_order(split, len(data)) for split, data in self._splits.items()}

    def _validate(self) -> None:
        """Check every length and text in the Arrow files of what was saved: they have no checksums.

        Raises:
            UserError: One of them is damaged.
        """
        for data in self._splits.values() if self._is_saved else ():
            try:
                data.data.table.validate(full=True)
            except ArrowException as error:
                raise self._unopened(error) from None

    def _bytes(self, value: dict[str, Any] | None) -> tuple[bytes, str | None]:
        """Return the encoded image of an undecoded cell, empty where it is null, and why it could not be read.

        A table may name any file of this machine: only one saved here is trusted beyond its own folder.
        """
        if value is None or (value["bytes"] is None and value["path"] is None):
            return b"", None
        if value["bytes"] is not None:
            return value["bytes"], None
        if "://" in value["path"]:
            return self._fetched(value["path"])
        path = Path(value["path"])
        if not self._is_saved and not path.resolve().is_relative_to(Path(self.path).resolve()):
            return b"", "the image lies outside the dataset"
        try:
            return path.read_bytes(), None
        except (OSError, ValueError) as error:
            return b"", f"cannot be read ({error})"

    def _fetched(self, url: str) -> tuple[bytes, str | None]:
        """Return the picture at the address that a streamed repository gives it: on the hub, or in an archive.

        ``zip://0.png::/folder/train.zip`` lies in the archive at its end. That has to be the dataset's own, and nothing
        but an archive is opened in its name: a table may name any place.
        """
        inside, _, archive = url.partition("::")
        protocol, _, member = inside.partition("://")
        if not self._owns(archive or url) or (archive and protocol not in _ARCHIVES):
            return b"", "the image lies outside the dataset"
        try:
            with _archive(protocol, archive).open(member, "rb") if archive else fsspec.open(url, "rb") as file:
                return bytes(file.read()), None
        except (OSError, ValueError, KeyError) as error:
            return b"", f"cannot be read ({error})"

    def _owns(self, place: str) -> bool:
        """Whether a file, by its path or its address on the hub, is one of the dataset's."""
        own = f"hf://datasets/{self.path}"
        if place.startswith((f"{own}@", f"{own}/")):
            return ".." not in place and "::" not in place
        return (
            "://" not in place and "::" not in place and Path(place).resolve().is_relative_to(Path(self.path).resolve())
        )

    def _cell(self, value: Any) -> tuple[Cell, str | None]:
        """Return a cell as it is encoded, a picture that lies in a file of its own as its bytes, and what is wrong."""
        is_picture = isinstance(value, dict) and {"bytes", "path"} <= {*value}
        return self._bytes(value) if is_picture else (as_cell(value), None)


@lru_cache(maxsize=4)
def _archive(protocol: str, container: str) -> Any:
    """Return an archive, whose list of members is read once."""
    return fsspec.filesystem(protocol, fo=container)


@lru_cache(maxsize=1)
def _stream(source: Hub, split: str, columns: tuple[str, ...]) -> Forward[dict[str, Any]]:
    """Return the stream that a process goes on with from part to part."""
    data = source._undecoded(split, columns)
    return Forward(lambda start: iter(data.skip(start)))


def _hash_order(split: str, count: int) -> NDArray[np.int64]:
    hashes = np.array([hash64("order", f"{split}-{i}") for i in range(count)], dtype=np.uint64)
    return np.argsort(hashes, kind="stable")


def _names(split: Dataset | IterableDataset) -> list[str]:
    return list(split.column_names or next(iter(split)))
