"""A folder of images, with captions from `metadata.jsonl`, or `.txt` or `.json` files beside them, or none."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, sha256, sha256_file
from benchmark.contracts.plugins import Part, Sample, Source
from benchmark.contracts.splitting import divide

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_CAPTION_FIELDS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class Folder(Source):
    """Images below a folder, keyed by their path inside it.

    Attributes:
        path: The folder.
    """

    path: str

    def __post_init__(self) -> None:
        """Refuse a path that is no folder or holds no image."""
        if not Path(self.path).is_dir():
            raise UserError(f"{self.path} is not a folder; give the folder that holds the images")
        if not self._files:
            raise UserError(f"{self.path} holds no image; allowed: {', '.join(sorted(_SUFFIXES))}, in subfolders too")

    @cached_property
    def _files(self) -> list[str]:
        root = Path(self.path)
        found = (path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        return sorted(path.relative_to(root).as_posix() for path in found)

    @cached_property
    def _parts(self) -> dict[str, list[str]]:
        return divide(self._files)

    @cached_property
    def _captions(self) -> dict[str, str]:
        """Captions of `metadata.jsonl`, by the path of the image inside the folder."""
        captions: dict[str, str] = {}
        known = set(self._files)
        root = Path(self.path)
        for table in sorted(root.rglob("metadata.jsonl")):
            inside = table.parent.relative_to(root)
            for number, line in enumerate(_read(table).split("\n"), 1):
                if not line.strip():
                    continue
                row = _object(line, f"{table}, line {number}")
                if "file_name" not in row:
                    raise UserError(f'{table}, line {number} has no "file_name"; every line needs one')
                name = (inside / str(row["file_name"])).as_posix()
                if name not in known:
                    raise UserError(
                        f"{table}, line {number}: {name} is no image of the folder; mend the line or remove it"
                    )
                text = _caption(row)
                if text is not None:
                    captions[name] = text
        return captions

    def identity(self) -> dict[str, Any]:
        """Return a hash over every file's name, content and caption: another folder is another plan."""
        root = Path(self.path)
        rows = [(name, sha256_file(root / name), self._caption_of(name)) for name in self._files]
        return {"num_images": len(rows), "content_sha256": sha256(canonical_json(rows))}

    def parts(self) -> Iterator[Part]:
        """Yield test, validation and training parts in hash order."""
        yield from (Part(name, len(files)) for name, files in self._parts.items())

    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the files of a part as they are on disk."""
        for name in self._parts[part.name]:
            yield Sample(name, (Path(self.path) / name).read_bytes(), self._caption_of(name))

    def _caption_of(self, name: str) -> str | None:
        if name in self._captions:
            return self._captions[name]
        path = Path(self.path) / name
        if path.with_suffix(".txt").is_file():
            return _read(path.with_suffix(".txt")).strip()
        if path.with_suffix(".json").is_file():
            return _caption(_object(_read(path.with_suffix(".json")), str(path.with_suffix(".json"))))
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not valid JSON ({error}); mend the line or remove it") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is no JSON object; write one object an image")
    return value


def _caption(row: dict[str, Any]) -> str | None:
    return next((str(row[name]) for name in _CAPTION_FIELDS if row.get(name) is not None), None)
