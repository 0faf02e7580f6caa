"""Result records on disk: written once, read back whole, found again by folder."""

import gzip
import zlib
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, create_once, json_object, replace_file, sealed_json, sha256, unsealed
from benchmark.base.forms import checked, read_toml
from benchmark.contracts.records import Failure, Invalidated, Record

F = TypeVar("F", bound=BaseModel)
_FAILED = ".failed.json"
_SAMPLES, _KEY = ".parquet", "key"
_CURVE, _PACKED = ".jsonl", ".gz"  # a curve is a quarter as large when packed
_LARGEST_CURVE = 2**26  # bytes: a packed file can unfold to anything
INVALIDATED = "invalidated.toml"


def record_path(root: Path, dataset: str, condition: str, method: str, evaluation_id: str) -> Path:
    """Return ``<dataset>/<condition>/<method>/<evaluation id>.json`` below a results folder.

    Raises:
        UserError: A name that would lead elsewhere.
    """
    return _folder(root, dataset, condition, method) / f"{evaluation_id}.json"


def _folder(root: Path, *names: str) -> Path:
    for name in names:
        if "/" in name or name in ("", ".", ".."):
            raise UserError(f'"{name}" is no name for a folder of records; rename the dataset or what it is')
    return root.joinpath(*names)


def write_record(root: Path, record: Record, beside: Mapping[str, bytes] | None = None) -> Path:
    """Keep a record in its place below a results folder; one with the same id is left as it is.

    Args:
        root: The results folder.
        record: What is kept.
        beside: Files that belong to it, by the ending of their names; it says their hashes.
    """
    path = record_path(root, record.dataset["name"], record.condition, record.method, record.evaluation_id)
    files = beside or {}
    if path.exists():
        return path
    for ending, data in files.items():
        replace_file(_beside(path, ending), gzip.compress(data, mtime=0) if ending == _CURVE else data)
    attached = {ending: sha256(data) for ending, data in files.items()}
    whole = record.model_copy(update={"attached": attached})
    create_once(path, sealed_json(whole.model_dump(mode="json")))  # last: it stands for all that lies beside it
    return path


def _beside(path: Path, ending: str) -> Path:
    """Return where a file that belongs to a record lies."""
    return path.with_suffix(ending + _PACKED if ending == _CURVE else ending)


def read_beside(path: Path, record: Record, ending: str) -> bytes | None:
    """Return a file that belongs to a record, by the ending of its name; None where the record has none.

    Raises:
        UserError: It is missing, is not what was written, or lies there though the record does not name it.
    """
    file = _beside(path, ending)
    if not file.exists():
        file = path.with_suffix(ending)  # curves of older records are not packed
    read = _unpacked if file.suffix == _PACKED else Path.read_bytes
    data = read(file) if file.exists() else None
    if (None if data is None else sha256(data)) == record.attached.get(ending):
        return data
    fault = "is missing" if data is None else "is not what was written with the record beside it"
    raise UserError(
        f"{file} {fault}; restore it, or remove the record and score the images again: {record.environment['command']}"
    )


def _unpacked(file: Path) -> bytes:
    """Return what a packed file holds, none of one that is damaged: no hash is that of nothing."""
    try:
        with gzip.open(file) as opened:
            return opened.read(_LARGEST_CURVE)
    except (OSError, EOFError, zlib.error):
        return b""


def write_failure(root: Path, failure: Failure) -> Path:
    """Keep a failure beside the records of its method; one with the same id is left as it is."""
    folder = _folder(root, str(failure.dataset["name"]), failure.condition, failure.method)
    path = folder / f"{failure.failure_id}{_FAILED}"
    create_once(path, sealed_json(failure.model_dump(mode="json")))
    return path


def read_record(path: Path) -> Record:
    """Return a record.

    Raises:
        UserError: A file that is no valid record.
    """
    return _read(path, Record)


def _read(path: Path, kind: type[F]) -> F:
    if not path.is_file():
        raise UserError(f"{path} is no file; give a record that benchmark.evaluate wrote")
    remedy = "remove it or restore it"
    try:
        return kind.model_validate_json(unsealed(path.read_bytes(), str(path), remedy))
    except (ValidationError, RecursionError) as error:
        first = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no valid record ({first}); {remedy}") from None


class _Probe(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    step: NonNegativeInt
    probe: dict[str, float | None]


def read_probes(path: Path, record: Record) -> list[dict[str, Any]]:
    """Return the rows of a record's curve that hold a probe; none where it has no curve.

    Raises:
        UserError: The curve is damaged.
    """
    curve, remedy = _beside(path, _CURVE), "restore it"
    lines = (read_beside(path, record, _CURVE) or b"").splitlines()
    rows = [json_object(line, f"{curve}, line {number}", remedy) for number, line in enumerate(lines, 1)]
    probes = [row for row in rows if "probe" in row]
    checked(list[_Probe], probes, f"{curve}, its probes", remedy)
    return probes


def samples_table(record: Record, keys: Sequence[str]) -> bytes:
    """Return the influence of each sample on each score of a record, as a Parquet file with a row for each key.

    Raises:
        UserError: A metric that does not say what each sample adds.
    """
    for name, score in record.measured.items():
        if len(score.influence) != len(keys):
            raise UserError(
                f"{name} has {len(score.influence)} influences for {len(keys)} samples; a metric gives each one"
            )
    columns = {name: np.array(score.influence, np.float32) for name, score in record.measured.items()}
    buffer = BytesIO()
    smallest = {"compression": "zstd", "use_dictionary": False, "use_byte_stream_split": list(columns)}
    pq.write_table(pa.table({_KEY: list(keys), **columns}), buffer, write_statistics=False, **smallest)
    return buffer.getvalue()


def read_samples(path: Path, record: Record) -> dict[str, NDArray[np.float64]]:
    """Return the influences (N,) of the samples on each score of a record, in the order of their keys.

    Raises:
        UserError: They were not kept, or are not what was written.
    """
    beside, data = path.with_suffix(_SAMPLES), read_beside(path, record, _SAMPLES)
    if data is None:
        raise UserError(
            f"{beside} was not kept: the record alone does not say what each sample adds; score its images again, with "
            f"another --results if the record is to stay: {record.environment['command']}"
        )
    try:
        table = pq.read_table(BytesIO(data))
    except pa.ArrowException as error:
        raise UserError(f"{beside} cannot be read ({error}); score the images of the record again") from None
    keys = table[_KEY].to_pylist() if {*table.column_names} == {_KEY, *record.measured} else []
    if sha256(canonical_json(keys)) != record.dataset["keys_sha256"]:
        raise UserError(f"{beside} is not of the record beside it; score its images again with another --results")
    return {name: table[name].to_numpy().astype(np.float64) for name in record.measured}


def read_records(root: Path) -> dict[Path, Record]:
    """Return every record below a results folder, by path, in the order of the paths.

    Raises:
        UserError: A file that is no valid record.
    """
    return {path: read_record(path) for path in sorted(root.rglob("*.json")) if not path.name.endswith(_FAILED)}


def read_failures(root: Path) -> dict[Path, Failure]:
    """Return every failure below a results folder, by path, in the order of the paths.

    Raises:
        UserError: A file that is no valid failure.
    """
    return {path: _read(path, Failure) for path in sorted(root.rglob(f"*{_FAILED}"))}


def read_invalidated(root: Path, known: Collection[str]) -> dict[str, Invalidated]:
    """Return what a results folder's `invalidated.toml` strikes out, by id; nothing where there is no such file.

    Args:
        root: The results folder.
        known: Ids of all its records and failures.

    Raises:
        UserError: A file that is no such list, an id that no record has, or one that is listed twice.
    """
    path = root / INVALIDATED
    if not path.exists():
        return {}
    try:
        rows = [Invalidated.model_validate(row) for row in read_toml(path)["invalidated"]]
    except (KeyError, TypeError, ValidationError) as error:
        first = str(error).replace("\n", " ")[:200]
        raise UserError(f"{path} is no list of [[invalidated]] with id, by and why ({first}); mend it") from None
    struck: dict[str, Invalidated] = {}
    for row in rows:
        if row.id in struck:
            raise UserError(f'{path} lists "{row.id}" twice; keep one')
        if row.id not in known:
            raise UserError(
                f'{path}: no record or failure "{row.id}"; ids are the names of their files up to the first dot'
            )
        struck[row.id] = row
    return struck
