"""A folder of images, with captions and maps from `metadata.jsonl`, or `.txt` or `.json` files beside them, or none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, json_object, sha256, sha256_file, utf8
from benchmark.base.images import MAX_BYTES
from benchmark.contracts.cells import as_caption
from benchmark.contracts.plugins import Part, Sample, Source
from benchmark.contracts.splitting import HELD_OUT, divide

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_CAPTION_FIELDS = ("text", "caption", "prompt")
_MAX_CAPTION_BYTES = 2**20
_OWN, _OTHER = "file_name", "_file_name"  # of `datasets`: a line's image, and the end of the key of another one
_MEND = "write one object an image"


class _Image(NamedTuple):
    """An image, its caption in `metadata.jsonl`, and the pictures named there beside it: column, name, file if any."""

    name: str
    path: Path
    caption: str | None
    columns: tuple[tuple[str, str, Path | None], ...]


@dataclass(frozen=True)
class Folder(Source):
    """Images below a folder, keyed by their path inside it.

    An image or a caption beside it that cannot be read is a row that fails. Images that `metadata.jsonl` names in
    another column than `file_name`, as in `cond_seg_file_name`, are no rows of their own: they are column `cond_seg`.

    Attributes:
        path: The folder.
        held_out: The most samples that go to test, and as many to validation; a tenth of the data where that is less.
    """

    is_shuffled = True  # `divide` puts them in hash order

    path: str
    held_out: int = HELD_OUT

    def __post_init__(self) -> None:
        """Refuse a path that is no folder."""
        if not Path(self.path).is_dir():
            raise UserError(f"{self.path} is not a folder; give the folder that holds the images")

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """Every image by its path inside the folder, sorted."""
        root = Path(self.path)
        found = (path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        return {utf8(path.relative_to(root).as_posix()): path for path in sorted(found)}

    @cached_property
    def _files(self) -> list[str]:
        named = (item for _, inside, row in self._table for item in _named(inside, row).items())
        parts = {path for column, path in named if column != _OWN}
        files = [name for name in self._paths if name not in parts]
        if not files:
            raise UserError(f"{self.path} holds no image; allowed: {', '.join(sorted(_SUFFIXES))}, in subfolders too")
        return files

    @cached_property
    def _images(self) -> dict[str, _Image]:
        """What is known of every image before it is opened, by its path inside the folder."""
        images = {}
        for name in self._files:
            columns = sorted(self._maps.get(name, {}).items())
            found = tuple((column, inside, self._paths.get(inside)) for column, inside in columns)
            images[name] = _Image(name, self._paths[name], self._captions.get(name), found)
        return images

    @cached_property
    def _table(self) -> list[tuple[str, Path, dict[str, Any]]]:
        """The lines of every `metadata.jsonl`: where it stands, its folder inside this one, and its object."""
        root, lines = Path(self.path), []
        for table in sorted(root.rglob("metadata.jsonl")):
            for number, line in enumerate(_read(table).split("\n"), 1):
                if line.strip():
                    where = f"{table}, line {number}"
                    lines.append((where, table.parent.relative_to(root), json_object(line, where, _MEND)))
        return lines

    @cached_property
    def _captions(self) -> dict[str, str]:
        """Captions of `metadata.jsonl`, by the path of the image inside the folder."""
        captions: dict[str, str] = {}
        known = set(self._files)
        for where, inside, row in self._table:
            name = _named(inside, row).get(_OWN)
            if name is None:
                raise UserError(f'{where} has no "file_name"; every line needs one')
            if name not in known:
                raise UserError(f"{where}: {name} is no image of the folder; mend the line or remove it")
            try:
                text = _caption(row)
            except ValueError as error:
                raise UserError(f"{where}: {error}; mend the line") from None
            if text is not None:
                captions[name] = text
        return captions

    @cached_property
    def _maps(self) -> dict[str, dict[str, str]]:
        """The paths inside the folder of what belongs to an image, by its own path and by column."""
        maps: dict[str, dict[str, str]] = {}
        for _, inside, row in self._table:
            named = _named(inside, row)
            own = maps.setdefault(named.pop(_OWN, ""), {})
            own.update({column.removesuffix(_OTHER): path for column, path in named.items()})
        return maps

    def identity(self) -> dict[str, Any]:
        """Return a hash over every file's name, content and caption: another folder is another plan."""
        images = self._images.values()
        rows = [(image.name, _digest(image.path), *map(_printable, _caption_of(image))) for image in images]
        content = [row[:3] if row[3] is None else row for row in rows]
        return {"num_images": len(rows), "content_sha256": sha256(canonical_json(content))}

    def columns(self) -> list[str]:
        """Return the names of pictures that `metadata.jsonl` gives beside an image's own: X of ``X_file_name``."""
        return sorted({column for columns in self._maps.values() for column in columns})

    def columns_identity(self, columns: Sequence[str]) -> dict[str, Any]:
        """Return a hash over the pictures of some columns."""
        named = [(name, column, self._maps.get(name, {}).get(column)) for name in self._files for column in columns]
        content = [(*row, _digest(self._paths[row[2]])) if row[2] in self._paths else row for row in named]
        return {"columns_sha256": sha256(canonical_json(content))} if columns else {}

    def parts(self) -> Iterator[Part]:
        """Yield test, validation and training parts in hash order."""
        for name, files in divide(self._files, self.held_out).items():
            yield Part(name, len(files), tuple(self._images[file] for file in files))

    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the files of a part as they are on disk."""
        for image in part.where:
            caption, fault = _caption_of(image)
            data, cells = b"", {}
            try:
                data = _bounded(image.path, MAX_BYTES)
                cells = {column: _cell(image, column) for column in columns}
            except (OSError, ValueError) as error:
                fault = f"cannot be read ({error})"
            yield Sample(image.name, data, caption, fault=fault, columns=cells)


def _cell(image: _Image, column: str) -> bytes:
    """Return an image's picture of a column, empty where no line names one.

    Raises:
        ValueError: It is too large, or not inside the folder.
    """
    for name, inside, path in image.columns:
        if name == column:
            if path is None:
                raise ValueError(f"{utf8(inside)} is no image of the folder")
            return _bounded(path, MAX_BYTES)
    return b""


def _caption_of(image: _Image) -> tuple[str | None, str | None]:
    """Return an image's caption, and why it could not be read, either may be None."""
    if image.caption is not None:
        return image.caption, None
    path = image.path
    try:
        if path.with_suffix(".txt").is_file():
            return _bounded(path.with_suffix(".txt"), _MAX_CAPTION_BYTES).decode("utf-8").strip(), None
        if path.with_suffix(".json").is_file():
            text = _bounded(path.with_suffix(".json"), _MAX_CAPTION_BYTES).decode("utf-8")
            return _caption(json_object(text, path.with_suffix(".json").name, _MEND)), None
    except (OSError, ValueError, UserError) as error:
        return None, f"the caption cannot be read ({error})"
    return None, None


def _named(inside: Path, row: dict[str, Any]) -> dict[str, str]:
    """Return the paths inside the source's folder that a line of a table in one of its folders names, by key."""
    keys = [key for key in row if (key == _OWN or key.endswith(_OTHER)) and row[key] is not None]
    return {key: (inside / str(row[key])).as_posix() for key in keys}


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError:
        return "cannot be read"


def _printable(text: str | None) -> str | None:
    return None if text is None else utf8(text)


def _bounded(path: Path, most: int) -> bytes:
    """Return a file's content.

    Raises:
        ValueError: It is larger than `most` bytes.
    """
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{size} bytes; at most {most}")
    return path.read_bytes()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None


def _caption(row: dict[str, Any]) -> str | None:
    return next((as_caption(row[name]) for name in _CAPTION_FIELDS if row.get(name) is not None), None)
