"""Folders of work: one configuration each, with a status that says whether they are whole."""

from pathlib import Path
from typing import Any

from benchmark.base.errors import UserError
from benchmark.base.files import difference, pretty_json, read_json, replace_file
from benchmark.base.provenance import commit, machine, package_versions

RUN, IMAGES = "run.json", "images.json"
_MADE_BY = {RUN: "train", IMAGES: "generate"}
_OPEN = "open"


def begin(folder: Path, file: str, config: dict[str, Any], provenance: dict[str, Any]) -> str:
    """Write a folder's record, or check that the one there has this configuration; return its status.

    Raises:
        UserError: The folder holds work of another configuration, or files of another kind.
    """
    path = folder / file
    if path.exists():
        present = read_json(path)
        if present["config"] != config:
            changes = difference(present["config"], config)
            raise UserError(f"{folder} was made differently ({changes}); give another --out or delete the folder")
        return str(present["status"])
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no {file}; give another --out")
    replace_file(path, pretty_json({"config": config, "provenance": provenance, "status": _OPEN}))
    return _OPEN


def is_open(status: str) -> bool:
    """Whether work of this status still has to be done."""
    return status == _OPEN


def finish(folder: Path, file: str, status: str, **more: Any) -> None:
    """Set the status of a folder: "finished", or "diverged"."""
    replace_file(folder / file, pretty_json({**read_json(folder / file), "status": status, **more}))


def read_finished(folder: Path, file: str) -> dict[str, Any]:
    """Return the record of a folder whose work ended.

    Raises:
        UserError: No such record, or work that is not finished.
    """
    command = _MADE_BY[file]
    if not (folder / file).exists():
        raise UserError(f"{folder} holds no {file}; make it with python -m benchmark.{command}")
    record = read_json(folder / file)
    if is_open(record["status"]):
        raise UserError(f"the work in {folder} is not finished; run the same {command} command again")
    return record


def provenance(command: str) -> dict[str, Any]:
    """Return what produced a folder: command, machine, packages, commit."""
    head, dirty = commit()
    return {"command": command, "machine": machine(), "packages": package_versions(), "commit": head, "dirty": dirty}


def read_status(folder: Path, file: str) -> str:
    """Return the status in a folder's record, "not begun" where there is none."""
    return str(read_json(folder / file)["status"]) if (folder / file).exists() else "not begun"
