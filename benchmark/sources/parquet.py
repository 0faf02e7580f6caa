"""Parquet files with a column of encoded images, as Hugging Face `datasets` and others write them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from benchmark.base.errors import UserError, did_you_mean, first_line
from benchmark.contracts.cells import as_cell, caption_cell, picture_bytes
from benchmark.contracts.plugins import Part, Sample, Source
from benchmark.contracts.splitting import HELD_OUT, Files, Forward, matching

_CAPTIONS = ("text", "caption", "prompt")
_BATCH = 64  # rows
_Read = tuple[dict[str, Any], str | None]  # a row, or none and what is wrong with it
_BUFFER = 2**20  # bytes of a column that are held; without it Arrow holds a row group's


@dataclass(frozen=True)
class Parquet(Source):
    """Rows of Parquet files, in their own order, so shuffle them first if they are sorted.

    The first rows of that order are held out from training. A row whose image is null fails, named in the ledger.

    Attributes:
        path: A pattern such as ``data/*.parquet``, or a folder of Parquet files.
        image: Column of images: bytes, or a struct with ``bytes`` as `datasets` writes it.
        caption: Column of captions; by default the first of text, caption, prompt that exists.
        held_out: The most samples that go to test, and as many to validation; a tenth of the data where that is less.
    """

    path: str
    image: str = "image"
    caption: str | None = None
    held_out: int = HELD_OUT

    @cached_property
    def _files(self) -> Files:
        paths = matching(self.path, ".parquet")
        for path in paths:
            self._check(path)
        return Files(paths, (_open(path).metadata.num_rows for path in paths), self.held_out)

    def _check(self, file: Path) -> None:
        schema, about = _open(file).schema_arrow, _open(file).metadata
        if about.num_rows != sum(about.row_group(i).num_rows for i in range(about.num_row_groups)):
            raise UserError(f"{file} is no whole Parquet file (its counts of rows differ); fetch it again")
        for column in filter(None, (self.image, self.caption)):
            if column not in schema.names:
                raise UserError(f'{file} has no column "{column}"; {did_you_mean(column, schema.names)}')
        kind = schema.field(self.image).type
        if pa.types.is_struct(kind):
            kind = next((kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"), None)
        if kind is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise UserError(f'{file}: the column "{self.image}" holds no encoded images; give image=COLUMN')

    def identity(self) -> dict[str, Any]:
        """Return the number of samples and a hash over the files' names and content."""
        return self._files.identity()

    def parts(self) -> Iterator[Part]:
        """Yield test parts, validation parts, then training parts."""
        yield from self._files.parts()

    def columns(self) -> list[str]:
        """Return the columns of the first file."""
        return list(_open(self._files.paths[0]).schema_arrow.names)

    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the rows of a part, images as the files hold them."""
        for label, path, places in part.where:
            caption = self.caption or next((n for n in _CAPTIONS if n in _open(path).schema_arrow.names), None)
            wanted = [column for column in (self.image, caption, *columns) if column]
            for number, row, fault in _rows(path, places, tuple(wanted)):
                text, unread = caption_cell(row[caption] if caption and not fault else None)
                fault = fault or unread
                key = f"{label}/{number:08d}"
                data = b"" if fault else picture_bytes(row[self.image])
                cells = {} if fault else {column: as_cell(row[column]) for column in columns}
                yield Sample(key, data, text, fault=fault, columns=cells)


def _open(file: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(file, buffer_size=_BUFFER, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no whole Parquet file ({first_line(error)}); fetch it again") from None


def _rows(file: Path, places: range, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    """Yield (number, row, fault) for a range of a file's rows; only the row groups that hold them are read."""
    about, start = file.stat(), 0
    state, metadata = (about.st_size, about.st_mtime_ns), _open(file).metadata
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        first, last = max(places.start, start), min(places.stop, end)
        if first < last:
            for place, (row, fault) in _group(file, group, columns, state).read(first - start, last - start):
                yield start + place, row, fault
        start = end


@lru_cache(maxsize=1)
def _group(file: Path, group: int, columns: tuple[str, ...], state: tuple[int, int]) -> Forward[_Read]:
    """Return the reading of a row group, in a state of its file, that a process goes on with from part to part.

    Many writers put all rows into one group: read anew for each part, each part would cost as much as the file.
    """
    return Forward(partial(_rows_of, file, group, columns))


def _rows_of(file: Path, group: int, columns: tuple[str, ...], first: int) -> Iterator[_Read]:
    """Yield the rows of a group from `first` on, read a bit at a time; from a damaged page on it is their fault."""
    opened, given = _open(file), 0
    try:
        for batch in opened.iter_batches(_BATCH, row_groups=[group], columns=list(columns)):
            yield from _plain(batch.slice(max(0, first - given)), group)
            given += len(batch)
    except (pa.ArrowException, OSError) as error:
        rest = opened.metadata.row_group(group).num_rows - max(first, given)
        yield from (({}, _damage(group, error)) for _ in range(rest))


def _plain(batch: pa.RecordBatch, group: int) -> Iterator[_Read]:
    """Yield the rows of a batch; text that is none fails its own row alone."""
    try:
        yield from ((row, None) for row in batch.to_pylist())
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            yield {}, _damage(group, error)
            return
        for i in range(len(batch)):
            yield from _plain(batch.slice(i, 1), group)


def _damage(group: int, error: Exception) -> str:
    return f"row group {group} is damaged ({first_line(error)})"
