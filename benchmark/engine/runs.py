"""Folders of work: one configuration each, with a status that says whether they are whole."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import (
    create_once,
    difference,
    json_object,
    read_sealed,
    refuse_foreign,
    replace_file,
    sealed_json,
)
from benchmark.base.forms import checked
from benchmark.base.provenance import commit, machine, package_versions
from benchmark.contracts.records import Work

RUN, IMAGES = "run.json", "images.json"
CURVE = "curve.jsonl"  # what was noted of a training
_MADE_BY = {RUN: "train", IMAGES: "generate"}
_OPEN = "open"


def ended(folder: Path, file: str, config: dict[str, Any]) -> str | None:
    """Return how the work in a folder ended, or None where it has not begun or is still open.

    Raises:
        UserError: The folder holds work of another configuration, or files of another kind.
    """
    path = folder / file
    refuse_foreign(folder, path)
    if not path.exists():
        return None
    present = _read(path)
    if present["config"] != config:
        changes = difference(present["config"], config)
        raise UserError(f"{folder} was made differently ({changes}); give another --out or delete the folder")
    return None if present["status"] == _OPEN else str(present["status"])


def _read(path: Path) -> dict[str, Any]:
    record = read_sealed(path)
    checked(Work, record, str(path), "delete its folder and make it again")
    return record


def begin(folder: Path, file: str, config: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Write a folder's record, unless it is there already."""
    create_once(folder / file, sealed_json({"config": config, "provenance": provenance, "status": _OPEN}))


def reopen(folder: Path, file: str) -> None:
    """Take back that the work in a folder ended, and how."""
    kept = {name: value for name, value in _read(folder / file).items() if name in ("config", "provenance")}
    replace_file(folder / file, sealed_json({**kept, "status": _OPEN}))


def finish(folder: Path, file: str, status: str, **more: Any) -> None:
    """Set the status of a folder: "finished", or "diverged"."""
    replace_file(folder / file, sealed_json({**_read(folder / file), "status": status, **more}))


def read_finished(folder: Path, file: str) -> dict[str, Any]:
    """Return the record of a folder whose work ended.

    Raises:
        UserError: No such record, or work that is not finished.
    """
    command = _MADE_BY[file]
    if not (folder / file).exists():
        raise UserError(f"{folder} holds no {file}; make it with python -m benchmark.{command}")
    record = _read(folder / file)
    if record["status"] == _OPEN:
        raise UserError(f"the work in {folder} is not finished; run the same {command} command again")
    return record


def provenance(command: str) -> dict[str, Any]:
    """Return what produced a folder: command, machine, packages, commit."""
    head, dirty = commit()
    return {"command": command, "machine": machine(), "packages": package_versions(), "commit": head, "dirty": dirty}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from the same work in a folder; the lock goes with the process, however it ends.

    Some file systems of clusters know no locks: there it is said, and the work goes on.

    Raises:
        UserError: Another process is at it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process works in {folder}; wait for it, or give another --out") from None
        except OSError as error:
            say(f"{folder} cannot be locked ({error.strerror}): see to it that one process alone works there")
        yield


def read_provenance(folder: Path, file: str) -> dict[str, Any]:
    """Return what produced the work in a folder, whether it ended or not."""
    made_by: dict[str, Any] = _read(folder / file)["provenance"]
    return made_by


def refuse_other_base(run: Path, name: str, weights_sha256: str) -> None:
    """Refuse to go on with a run, or to draw with it, whose base of this name has other weights now.

    Raises:
        UserError: A folder that was written anew, or a hub id that moved.
    """
    if (run / RUN).exists():
        begun_on = read_provenance(run, RUN).get("base_sha256", weights_sha256)
        if begun_on != weights_sha256:
            raise UserError(f"{run} was begun on other weights of {name}; restore them, or train with another --out")


def last_noted(run: Path) -> tuple[int, float] | None:
    """Return the last update that a training noted, and how many seconds ago; None if it noted none."""
    curve = run / CURVE
    whole = curve.read_bytes().rpartition(b"\n")[0] if curve.exists() else b""  # a line may be in the writing
    if not whole:
        return None
    row = json_object(whole.rpartition(b"\n")[2], f"{curve}, its last line", "run the training again")
    return int(row["step"]), time.time() - curve.stat().st_mtime


def read_status(folder: Path, file: str) -> str:
    """Return the status in a folder's record, "not begun" where there is none."""
    return str(_read(folder / file)["status"]) if (folder / file).exists() else "not begun"
