"""Shards and their commits: Parquet files written whole, and one record each that is the only truth."""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, create_once, read_json, sha256, sha256_file, sync

ROWS_PER_GROUP = 100


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

    @property
    def image_suffix(self) -> str:
        """File suffix that fits the image's bytes."""
        return "jpg" if self.image[:2] == b"\xff\xd8" else "png"


@dataclass(frozen=True)
class Commit:
    """What became of one shard: every row read is ok, failed or dropped, and the file that holds the ok ones.

    Attributes:
        shard: Name of the part, as ``train-000003``.
        plan_hash: The plan it belongs to.
        file: Path inside the dataset folder, or None where no row was ok.
        sha256: Of the file.
        num_in: Rows read.
        num_ok: Rows in the file.
        failed: Key to reason, for every row that could not be used.
        dropped: Key to reason, for every row that was left out on purpose.
        captioned: Of the rows in the file, those whose caption a model wrote.
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

    def record(self) -> dict[str, Any]:
        """Return the fields as they are stored; `dropped` and `captioned` only where there is any."""
        optional = ("dropped", "captioned")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}

    @property
    def split(self) -> str:
        """The split of the shard's rows."""
        return self.shard.partition("-")[0]


def schema(conditions: Sequence[str], plan_hash: str) -> pa.Schema:
    """Return the Parquet schema; its metadata lets Hugging Face `datasets` yield images."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("key", pa.string()), ("image", image), ("caption", pa.string())]
    fields += [(f"cond_{name}", image) for name in conditions]
    fields += [("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()), ("tags", pa.string())]
    kinds = {"string": "string", "int32": "int32"}
    features = {
        name: {"_type": "Image"} if type_ == image else {"dtype": kinds[str(type_)], "_type": "Value"}
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
    failed: dict[str, str],
    dropped: dict[str, str],
    captioned: int = 0,
) -> Commit:
    """Write a shard's rows and commit it, or return the commit that is already there: the first writer wins."""
    file, digest, size = _write_rows(folder, shard, schema(conditions, plan_hash), rows) if rows else (None, None, 0)
    num_in = len(rows) + len(failed) + len(dropped)
    commit = Commit(shard, plan_hash, file, digest, size, num_in, len(rows), failed, dropped, captioned)
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
        name = f"data/{shard}-{digest[:12]}.parquet"
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    sync(folder / "data")
    return name, digest, size


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
    path = _commit_path(folder, shard)
    try:
        return Commit(**read_json(path))
    except TypeError as error:
        raise UserError(f"{path} has the wrong fields ({error}); delete it and build again") from None


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard file, page checksums verified.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            absent = {*columns} - {*file.schema_arrow.names}
            if absent:
                raise UserError(f"{path} has no column {', '.join(sorted(absent))}; it is damaged: build it again")
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=list(columns)).to_pylist()
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


def fingerprint(plan_hash: str, commits: Sequence[Commit]) -> str:
    """Return the hash of a dataset: its plan and every shard's content, in order."""
    digest = hashlib.sha256(plan_hash.encode())
    for commit in commits:
        dropped = [commit.dropped] if commit.dropped else []
        digest.update(canonical_json([commit.shard, commit.sha256, commit.num_ok, commit.failed, *dropped]))
    return digest.hexdigest()
