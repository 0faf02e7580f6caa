"""Tar files as webdataset writes them: members that share a name up to its first dot are one sample."""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from benchmark.base.errors import UserError
from benchmark.base.files import utf8
from benchmark.base.images import MAX_BYTES
from benchmark.contracts.cells import as_caption
from benchmark.contracts.plugins import Cell, Part, Sample, Source
from benchmark.contracts.splitting import HELD_OUT, Files, matching

_IMAGES = ("jpg", "jpeg", "png", "webp")
_CAPTIONS = ("text", "caption", "prompt")

Members = dict[str, tuple[int, int]]  # extension to (first byte, number of bytes)


@dataclass(frozen=True)
class Webdataset(Source):
    """Samples of uncompressed tars, in their own order, so shuffle them first if they are sorted.

    The first samples of that order are held out from training. Members are never unpacked: what an archive calls its
    files decides keys alone. A sample without an image, or with a caption that cannot be read, is a row that fails.

    Attributes:
        path: A pattern such as ``data/*.tar``, or a folder of tars.
        caption: Extension of the caption, or the field of a ``json`` member; by default ``txt``, then the first of
            text, caption and prompt in ``json``.
        held_out: The most samples that go to test, and as many to validation; a tenth of the data where that is less.
    """

    path: str
    caption: str | None = None
    held_out: int = HELD_OUT

    @cached_property
    def _files(self) -> Files:
        paths = matching(self.path, ".tar")
        return Files(paths, (len(_index(path)) for path in paths), self.held_out)

    def identity(self) -> dict[str, Any]:
        """Return the number of samples and a hash over the files' names and content."""
        return self._files.identity()

    def parts(self) -> Iterator[Part]:
        """Yield test parts, validation parts, then training parts."""
        yield from self._files.parts()

    def columns(self) -> list[str]:
        """Return the extensions of the first tar's first sample."""
        return sorted(next(iter(_index(self._files.paths[0]).values())))

    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the samples of a part, images as the tars hold them."""
        for label, tar, places in part.where:
            samples = list(_index(tar).items())[places.start : places.stop]
            with tar.open("rb") as archive:
                for key, members in samples:
                    too_large = [name for name, (_, size) in members.items() if size > MAX_BYTES]
                    if too_large:
                        yield Sample(f"{label}/{key}", b"", None, fault=f"{too_large[0]} has over {MAX_BYTES} bytes")
                        continue
                    content = {name: _bytes(archive, *where) for name, where in members.items()}
                    cells = {column: content.get(column, b"") for column in columns}
                    yield self._sample(f"{label}/{key}", content, cells)

    def _sample(self, key: str, content: dict[str, bytes], cells: Mapping[str, Cell]) -> Sample:
        image = next((content[name] for name in _IMAGES if name in content), b"")
        try:
            return Sample(key, image, self._caption_of(content), columns=cells)
        except (ValueError, RecursionError) as error:  # of decoding text or JSON
            return Sample(key, image, None, fault=f"the caption cannot be read ({error})")

    def _caption_of(self, content: dict[str, bytes]) -> str | None:
        if (name := self.caption or "txt") in content:
            return content[name].decode("utf-8").strip()
        fields = json.loads(content["json"]) if "json" in content else {}
        if not isinstance(fields, dict):
            raise ValueError("the json member is no object")
        names = (self.caption,) if self.caption else _CAPTIONS
        return next((as_caption(fields[name]) for name in names if fields.get(name) is not None), None)


@lru_cache(maxsize=2)
def _index(tar: Path) -> dict[str, Members]:
    """Return where the members of every sample lie in a tar, in the order of their first members.

    Raises:
        UserError: The tar is compressed, damaged or cut off, or holds a member twice.
    """
    samples: dict[str, Members] = {}
    for member in _members(tar):
        if member.isfile():
            key, extension = _split(utf8(member.name))
            if extension in samples.setdefault(key, {}):
                raise UserError(f"{tar} holds {member.name} twice; write it again with keys that differ")
            samples[key][extension] = (member.offset_data, member.size)
    return samples


def _members(tar: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar that is whole: the library ends without a word at a header that is cut or damaged."""
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.size < 0:  # it would lead back to an earlier member, for ever
                    raise tarfile.ReadError(f"{member.name!r} has a negative size")
                yield member
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"its end is missing after {archive.offset} bytes")
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:  # of sizes that no file has, the last two
        raise UserError(f"{tar} is no whole, uncompressed tar ({error}); unpack .tar.gz, or fetch it again") from None


def _split(name: str) -> tuple[str, str]:
    """Return (key, extension in lower case): the key ends at the first dot of the last part of the path."""
    folder, _, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


def _bytes(archive: Any, start: int, size: int) -> bytes:
    archive.seek(start)
    data: bytes = archive.read(size)
    return data
