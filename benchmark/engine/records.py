"""Result records on disk: written once, read back whole, found again by folder."""

import json
from pathlib import Path

from pydantic import ValidationError

from benchmark.base.errors import UserError
from benchmark.base.files import create_once, pretty_json
from benchmark.contracts.records import Record


def record_path(root: Path, record: Record) -> Path:
    """Return ``<dataset>/<condition>/<method>/<evaluation id>.json`` below a results folder."""
    return root / str(record.dataset["name"]) / record.condition / record.method / f"{record.evaluation_id}.json"


def write_record(root: Path, record: Record) -> Path:
    """Keep a record; one with the same id is left as it is."""
    path = record_path(root, record)
    create_once(path, pretty_json(record.model_dump(mode="json")))
    return path


def read_records(root: Path) -> dict[Path, Record]:
    """Return every record below a results folder, by path, in the order of the paths.

    Raises:
        UserError: A file that is no valid record.
    """
    records = {}
    for path in sorted(root.rglob("*.json")):
        try:
            records[path] = Record.model_validate(json.loads(path.read_bytes()))
        except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            first = str(error).replace("\n", " ")[:200]
            raise UserError(f"{path} is no valid record ({first}); remove it or restore it") from None
    return records
