"""Result records on disk: written once, read back whole, found again by folder."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from benchmark.base.errors import UserError
from benchmark.base.files import create_once, json_object, pretty_json
from benchmark.base.forms import checked, read_toml
from benchmark.contracts.records import Failure, Invalidated, Record

F = TypeVar("F", bound=BaseModel)
_FAILED = ".failed.json"
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
