"""Result records on disk: written once, read back whole, found again by folder."""

from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, create_once, json_object, pretty_json, replace_file, sha256
from benchmark.base.forms import checked, read_toml
from benchmark.contracts.records import Failure, Invalidated, Record

F = TypeVar("F", bound=BaseModel)
_FAILED = ".failed.json"
_SAMPLES, _KEY = ".parquet", "key"
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


def write_record(root: Path, record: Record) -> Path:
    """Keep a record in its place below a results folder; one with the same id is left as it is."""
    path = record_path(root, record.dataset["name"], record.condition, record.method, record.evaluation_id)
    create_once(path, pretty_json(record.model_dump(mode="json")))
    return path


def write_failure(root: Path, failure: Failure) -> Path:
    """Keep a failure beside the records of its method; one with the same id is left as it is."""
    folder = _folder(root, str(failure.dataset["name"]), failure.condition, failure.method)
    path = folder / f"{failure.failure_id}{_FAILED}"
    create_once(path, pretty_json(failure.model_dump(mode="json")))
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
    try:
        return kind.model_validate_json(path.read_bytes())
    except (ValidationError, RecursionError) as error:
        first = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no valid record ({first}); remove it or restore it") from None


class _Probe(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    step: NonNegativeInt
    probe: dict[str, float | None]


def read_probes(record: Path) -> list[dict[str, Any]]:
    """Return the rows of the curve beside a record that hold a probe; none where there is no curve.

    Raises:
        UserError: The curve is damaged.
    """
    curve, remedy = record.with_suffix(".jsonl"), "restore it"
    lines = curve.read_bytes().splitlines() if curve.exists() else []
    rows = [json_object(line, f"{curve}, line {number}", remedy) for number, line in enumerate(lines, 1)]
    probes = [row for row in rows if "probe" in row]
    for row in probes:
        checked(_Probe, row, f"{curve}, a probe", remedy)
    return probes


def write_samples(path: Path, record: Record, keys: Sequence[str]) -> None:
    """Keep the influence of each sample on each score of a record beside it, as a table with a row for each key.

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
    replace_file(path.with_suffix(_SAMPLES), buffer.getvalue())


def read_samples(path: Path, record: Record) -> dict[str, NDArray[np.float64]]:
    """Return the influences (N,) of the samples on each score of a record, in the order of their keys.

    Raises:
        UserError: They were not kept, or are not those of this record.
    """
    beside = path.with_suffix(_SAMPLES)
    if not beside.exists():
        raise UserError(
            f"{beside} is missing: the record alone does not say what each sample adds; score its images again, with "
            f"another --results if the record is to stay: {record.environment['command']}"
        )
    try:
        table = pq.read_table(beside)
    except pa.ArrowException as error:
        raise UserError(f"{beside} cannot be read ({error}); score the images of the record again") from None
    if not _belongs(table, record):
        raise UserError(f"{beside} is not of the record beside it; score its images again with another --results")
    return {name: table[name].to_numpy().astype(np.float64) for name in record.measured}


def _belongs(table: pa.Table, record: Record) -> bool:
    """Whether a table is of a record's samples, and its columns, in single precision, spread as the errors say."""
    if {*table.column_names} != {_KEY, *record.measured}:
        return False
    if sha256(canonical_json(table[_KEY].to_pylist())) != record.dataset["keys_sha256"]:
        return False
    spreads = {name: np.std(table[name].to_numpy(), ddof=1, dtype=np.float64) for name in record.measured}
    return all(
        np.isclose(spreads[name] / np.sqrt(len(table)), score.stderr, rtol=1e-3, atol=1e-9)
        for name, score in record.measured.items()
    )


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
            raise UserError(f'{path}: no record or failure "{row.id}"; ids are the names of their files without .json')
        struck[row.id] = row
    return struck
