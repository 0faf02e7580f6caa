"""Write a built dataset in the layouts other tools read: tars of webdataset, and a folder that is an imagefolder.

Rows are streamed, one file at a time; what is excluded is left out. The folder appears whole or not at all.
"""

import io
import json
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmark.base.console import say, track
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, pretty_json, read_json, replace_file, short_name
from benchmark.contracts.plugins import SPLITS
from benchmark.engine.datasets import BuiltDataset

EXPORT_VERSION = 2
_PER_PIECE = 1000  # samples in a tar, or in a folder
_LONGEST_NAME = 120
_RECORD = "export.json"


def export(spec: str, out: Path | None) -> Path:
    """Write the dataset of a specification such as ``webdataset:DIR`` to a folder; return the folder.

    Raises:
        UserError: No such format, no finished dataset, or a folder that holds something else.
    """
    name, _, folder = spec.partition(":")
    if name not in _FORMATS:
        raise UserError(f'no format "{name}"; {did_you_mean(name, _FORMATS)}')
    if not folder:
        raise UserError(f"{name} needs a dataset folder: write {name}:DIR")
    dataset, out = BuiltDataset.open(Path(folder)), out or Path(f"{Path(folder)}-{name}")
    record = {"export_version": EXPORT_VERSION, "format": name, "fingerprint": dataset.manifest.fingerprint}
    if (out / _RECORD).exists() and read_json(out / _RECORD) == record:
        say(f"{out} is already exported")
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give another --out")
    temporary = out.parent / f".{out.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        for split in SPLITS:
            _FORMATS[name](dataset, split, temporary)
        replace_file(temporary / _RECORD, pretty_json(record))
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(f"exported {sum(dataset.manifest.num_rows.values())} pairs to {out}")
    return out


def _webdataset(dataset: BuiltDataset, split: str, folder: Path) -> None:
    """Write tars of `NAME.jpg` or `.png`, `NAME.cond_X.png`, `NAME.txt` and `NAME.json` with key and tags."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows(dataset, split)
    for piece in range(_pieces(dataset, split)):
        with tarfile.open(folder / f"{split}-{piece:06d}.tar", "w") as archive:
            for _, row in zip(range(_PER_PIECE), rows, strict=False):
                name = safe_name(row["key"])
                for suffix, data in _members(row).items():
                    member = tarfile.TarInfo(f"{name}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def _members(row: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of a sample by what follows its name; a missing caption is empty: tools want the same files."""
    maps = {f"{name}.png": cell["bytes"] for name, cell in row.items() if name.startswith("cond_")}
    caption = {"txt": (row["caption"] or "").encode()}
    more = canonical_json({"key": row["key"], "tags": json.loads(row["tags"])})
    return {_suffix(row): row["image"]["bytes"], **maps, **caption, "json": more}


def _imagefolder(dataset: BuiltDataset, split: str, folder: Path) -> None:
    """Write `SPLIT/N/NAME.jpg`, its maps in `SPLIT/N/cond_X/`, and `SPLIT/metadata.jsonl` that names them all."""
    root = folder / split
    root.mkdir(parents=True)
    with (root / "metadata.jsonl").open("wb") as table:
        for i, row in enumerate(_rows(dataset, split)):
            piece, name = f"{i // _PER_PIECE:06d}", safe_name(row["key"])
            files = {"file_name": (f"{piece}/{name}.{_suffix(row)}", row["image"]["bytes"])}
            for column in (column for column in row if column.startswith("cond_")):
                files[f"{column}_file_name"] = (f"{piece}/{column}/{name}.png", row[column]["bytes"])
            for path, data in files.values():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
            line = {**{column: path for column, (path, _) in files.items()}, "text": row["caption"], "key": row["key"]}
            table.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")  # `datasets` wants file_name first


_FORMATS: dict[str, Callable[[BuiltDataset, str, Path], None]] = {
    "imagefolder": _imagefolder,
    "webdataset": _webdataset,
}


def _rows(dataset: BuiltDataset, split: str) -> Iterator[dict[str, Any]]:
    columns = [f"cond_{condition['name']}" for condition in dataset.plan.conditions]
    rows = dataset.rows(split, ["key", "image", "caption", "tags", *columns])
    return track(rows, dataset.manifest.num_rows[split], f"export {split}", "pairs")


def _pieces(dataset: BuiltDataset, split: str) -> int:
    return -(-dataset.manifest.num_rows[split] // _PER_PIECE)


def _suffix(row: dict[str, Any]) -> str:
    return str(row["image"]["path"]).rpartition(".")[2]


def safe_name(key: str) -> str:
    """Return a name for a key that is one part of a path, holds no dot, and no other key has.

    Nor does it begin with an underscore: readers of tars pass over members that begin with two.
    """
    name = quote(key, safe="").replace(".", "%2E")
    name = f"%5F{name[1:]}" if name.startswith("_") else name
    return short_name(name, _LONGEST_NAME)
