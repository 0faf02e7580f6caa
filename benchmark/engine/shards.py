"""Shards and their commits: Parquet files written whole, and one record each that is the only truth."""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, create_once, sha256, sha256_file, sync, without_empty
from benchmark.base.forms import read_form
from benchmark.contracts.plugins import SPLITS

ROWS_PER_GROUP = 100


@dataclass(frozen=True)
class Quality:
    """What was measured on a picture; its fields are columns of a dataset that is built with hygiene.

    Attributes:
        phash: 64-bit perceptual hash of the stored picture.
        sharpness: Variance of the Laplacian of the stored picture.
        colourfulness: Levels by which its channels differ.
        jpeg_quality: Of the source's file, None where it was no JPEG.
        flags: The checks it did not pass, joined by commas.
    """

    phash: int
    sharpness: float
    colourfulness: float
    jpeg_quality: int | None
    flags: str


_QUALITY = {
    "phash": pa.uint64(),
    "sharpness": pa.float32(),
    "colourfulness": pa.float32(),
    "jpeg_quality": pa.int32(),
    "flags": pa.string(),
}


@dataclass(frozen=True)
class Row:
    """One finished pair: encoded image, encoded maps by condition, and what is known of them."""

    key: str
    image: bytes
    caption: str | None
    maps: dict[str, bytes]
    width: int
    height: int
    tags: str
    quality: Quality | None = None

    @property
    def image_suffix(self) -> str:
        """File suffix that fits the image's bytes."""
        return "jpg" if self.image[:2] == b"\xff\xd8" else "png"


class Place(NamedTuple):
    """Where a row lies: in which file, in which of its row groups, and where in there."""

    file: Path
    group: int
    row: int


@dataclass(frozen=True)
class Lost:
    """Rows that were read and are in no file: key to reason."""

    failed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Commit:
    """What became of one shard: every row read is ok, dropped or failed, and the file that holds the ok ones.

    Attributes:
        shard: Name of the part, as ``train-000003``; of its rows that were tried again, ``train-000003-r1``.
        plan_hash: The plan it belongs to.
        file: Path inside the dataset folder, or None where no row was ok.
        sha256: Of the file.
        num_in: Rows read.
        num_ok: Rows in the file.
        failed: Key to reason, for every row that could not be used.
        dropped: Key to the check it did not pass, or why its annotator rejected it, for every row left out for that.
        captioned: Of the rows in the file, those whose caption a model wrote.
        reported: How many rows in the file did not pass a check that only counts.
        source_identity: Of a later try, the source's identity then, where it is no longer that of the plan.
    """

    shard: str
    plan_hash: str
    file: str | None
    sha256: str | None
    num_bytes: int
    num_in: int
    num_ok: int
    failed: dict[str, str]
    dropped: dict[str, str] = field(default_factory=dict)
    captioned: int = 0
    reported: dict[str, int] = field(default_factory=dict)
    source_identity: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a commit that names no shard of a dataset, or a file that is not the shard's own."""
        if self.split not in SPLITS or "/" in self.shard:
            raise UserError(f'a commit of no shard, "{self.shard}"; delete it and build again')
        if self.file is not None and self.file != _file_name(self.shard, self.sha256 or ""):
            raise UserError(f'the commit of {self.shard} names another file, "{self.file}"; delete it and build again')
        if self.num_in != self.num_ok + len(self.failed) + len(self.dropped):
            raise UserError(f"the commit of {self.shard} does not add up; delete it and build again")

    @property
    def split(self) -> str:
        """The split of the shard's rows."""
        return self.shard.partition("-")[0]

    @property
    def part(self) -> str:
        """The part of the source the shard's rows come from."""
        return self.shard.partition("-r")[0]

    @property
    def is_retry(self) -> bool:
        """Whether the shard holds rows that failed in an earlier one."""
        return self.part != self.shard

    def record(self) -> dict[str, Any]:
        """Return the commit as it is written: without a key for what did not happen."""
        return without_empty(asdict(self), "dropped", "captioned", "reported", "source_identity")


def retry_name(part: str, generation: int) -> str:
    """Return the name of the shard that holds a part's rows of a later try, counted from 1."""
    return f"{part}-r{generation}"


def schema(conditions: Sequence[str], plan_hash: str, *, with_quality: bool = False) -> pa.Schema:
    """Return the Parquet schema; its metadata lets Hugging Face `datasets` yield images."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("key", pa.string()), ("image", image), ("caption", pa.string())]
    fields += [(f"cond_{name}", image) for name in conditions]
    fields += [("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()), ("tags", pa.string())]
    fields += _QUALITY.items() if with_quality else ()
    kinds = {"float": "float32"}  # where Arrow's name of a type is not that of `datasets`
    features = {
        name: {"_type": "Image"} if type_ == image else {"dtype": kinds.get(str(type_), str(type_)), "_type": "Value"}
        for name, type_ in fields
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "plan_hash": plan_hash}
    return pa.schema(fields, metadata=metadata)


def write_shard(
    folder: Path,
    shard: str,
    plan_hash: str,
    conditions: Sequence[str],
    rows: Sequence[Row],
    lost: Lost,
    captioned: int = 0,
    source_identity: dict[str, Any] | None = None,
) -> Commit:
    """Write a shard's rows and commit it, or return the commit that is already there: the first writer wins."""
    columns = schema(conditions, plan_hash, with_quality=any(row.quality for row in rows))
    file, digest, size = _write_rows(folder, shard, columns, rows) if rows else (None, None, 0)
    flags = [flag for row in rows if row.quality and row.quality.flags for flag in row.quality.flags.split(",")]
    commit = Commit(
        shard=shard,
        plan_hash=plan_hash,
        file=file,
        sha256=digest,
        num_bytes=size,
        num_in=len(rows) + len(lost.failed) + len(lost.dropped),
        num_ok=len(rows),
        failed=lost.failed,
        dropped=lost.dropped,
        captioned=captioned,
        reported=dict(Counter(flags)),
        source_identity=source_identity,
    )
    create_once(_commit_path(folder, shard), canonical_json(commit.record()) + b"\n")
    return read_commit(folder, shard)


def _write_rows(folder: Path, shard: str, schema: pa.Schema, rows: Sequence[Row]) -> tuple[str, str, int]:
    """Write rows to a temporary file, then move it to the name that holds its hash."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    temporary = folder / "data" / f".{shard}.{uuid.uuid4().hex[:12]}.tmp"
    compression = {name: "none" if name.startswith(("image", "cond_")) else "zstd" for name in _leaves(schema)}
    try:
        with parquet.ParquetWriter(
            temporary,
            schema,
            compression=compression,
            use_dictionary=False,
            write_page_checksum=True,
            write_statistics=["key"],
        ) as writer:
            for start in range(0, len(rows), ROWS_PER_GROUP):
                writer.write_table(_table(rows[start : start + ROWS_PER_GROUP], schema))
        sync(temporary)
        digest, size = sha256_file(temporary), temporary.stat().st_size
        name = _file_name(shard, digest)
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    sync(folder / "data")
    return name, digest, size


def _file_name(shard: str, digest: str) -> str:
    return f"data/{shard}-{digest[:12]}.parquet"


def _leaves(schema: pa.Schema) -> list[str]:
    leaves = [[f"{f.name}.bytes", f"{f.name}.path"] if pa.types.is_struct(f.type) else [f.name] for f in schema]
    return [name for group in leaves for name in group]


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    records = [
        {
            "key": row.key,
            "image": {"bytes": row.image, "path": f"{Path(row.key).stem}.{row.image_suffix}"},
            "caption": row.caption,
            **{f"cond_{name}": {"bytes": data, "path": f"{name}.png"} for name, data in row.maps.items()},
            "width": row.width,
            "height": row.height,
            "sha256": sha256(row.image),
            "tags": row.tags,
            **(asdict(row.quality) if row.quality else {}),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema=schema)


def _commit_path(folder: Path, shard: str) -> Path:
    return folder / "commits" / f"{shard}.json"


def is_whole(folder: Path, shard: str) -> bool:
    """Whether a shard is committed and its file is there; its content is checked when it is read."""
    if not _commit_path(folder, shard).exists():
        return False
    file = read_commit(folder, shard).file
    return file is None or (folder / file).exists()


def read_commit(folder: Path, shard: str) -> Commit:
    """Return the commit of a finished shard.

    Raises:
        UserError: The record is missing or damaged.
    """
    return read_form(Commit, _commit_path(folder, shard), "delete it and build again")


def read_retries(folder: Path, part: str) -> list[Commit]:
    """Return the commits of a part's later tries, in order."""
    commits: list[Commit] = []
    while is_whole(folder, name := retry_name(part, len(commits) + 1)):
        commits.append(read_commit(folder, name))
    return commits


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard file, page checksums verified.

    Raises:
        UserError: The file is missing or damaged.
    """
    return (row for _, row in located_rows(path, columns))


def located_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the rows as `read_rows` does, and where each lies."""
    for group, table in enumerate(read_tables(path, columns)):
        with _damage_named(path):
            rows = table.to_pylist()
        yield from ((Place(path, group, at), row) for at, row in enumerate(rows))


def read_tables(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the row groups of a shard file, page checksums verified.

    Raises:
        UserError: The file is missing or damaged.
    """
    with _damage_named(path), parquet.ParquetFile(path, page_checksum_verification=True) as file:
        absent = {*columns} - {*file.schema_arrow.names}
        if absent:
            raise UserError(f"{path} has no column {', '.join(sorted(absent))}; it is damaged: build it again")
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns))


def read_images_of_group(path: Path, group: int, column: str) -> list[bytes]:
    """Return the encoded images of a column in one row group of a shard file, page checksums verified.

    Raises:
        UserError: The file is missing or damaged.
    """
    with _damage_named(path), parquet.ParquetFile(path, page_checksum_verification=True) as file:
        return [cell["bytes"] for cell in file.read_row_group(group, columns=[column])[column].to_pylist()]


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into an error that says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; delete its record in commits/ and build again") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and its record in commits/, and build again") from None


def check_file(folder: Path, commit: Commit) -> str | None:
    """Return what is wrong with a committed shard's file, or None."""
    if commit.file is None:
        return None
    path = folder / commit.file
    if not path.exists():
        return f"{commit.file} is missing"
    if path.stat().st_size != commit.num_bytes or sha256_file(path) != commit.sha256:
        return f"{commit.file} is not the file that was committed"
    return None


def fingerprint(plan_hash: str, commits: Sequence[Commit], excluded: Mapping[str, Any]) -> str:
    """Return the hash of a dataset: its plan, every shard's content, in order, and the rows that are not to be read."""
    digest = hashlib.sha256(plan_hash.encode())
    for commit in commits:
        entry = [commit.shard, commit.sha256, commit.num_ok, commit.failed]
        digest.update(canonical_json([*entry, commit.dropped] if commit.dropped else entry))
    if excluded:
        digest.update(canonical_json(excluded))
    return digest.hexdigest()
