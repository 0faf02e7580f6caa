"""Write files so that nothing half-written is ever read: canonical JSON, atomic replace, create-once, hashes."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark.base.errors import UserError

_ABSENT = "absent"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)  # of exFAT, and of some mounted storage
_REMEDY = "delete it or restore it"
_SEAL_BEFORE, _SEAL_BEHIND = b'{\n  "content_sha256": "', b'",'


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def pretty_json(value: object) -> bytes:
    """Return JSON for people: sorted keys, two spaces, closing newline; NaN is refused."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sealed_json(value: object) -> bytes:
    """Return JSON for people whose first entry is the sha256 of all the rest: a bit that turned does not go unseen."""
    plain = pretty_json(value)
    return _SEAL_BEFORE + sha256(plain).encode() + _SEAL_BEHIND + plain.removeprefix(b"{")


def unsealed(data: bytes, where: str, remedy: str) -> bytes:
    """Return the JSON that `sealed_json` sealed, without its seal.

    Raises:
        UserError: It is not what was sealed.
    """
    plain = b"{" + data[len(_SEAL_BEFORE) + 64 + len(_SEAL_BEHIND) :]
    if data != _SEAL_BEFORE + sha256(plain).encode() + _SEAL_BEHIND + plain[1:]:
        raise UserError(f"{where} is not what was written: damaged, or changed by hand; {remedy}")
    return plain


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the object that `sealed_json` made the content of a file.

    Raises:
        UserError: The file is missing, is not what was written, or holds no such object.
    """
    return _object(unsealed(read_bytes(path), str(path), _REMEDY), path)


def read_bytes(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        UserError: The file is missing.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None


def without_empty(record: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a record without those of the named fields that are empty: one without a feature stays as it was."""
    return {name: value for name, value in record.items() if name not in names or value}


def short_name(name: str, at_most: int) -> str:
    """Return a name, a longer one than so many characters cut and ended by its hash, as file systems need it."""
    return name if len(name) <= at_most else f"{name[: at_most - 33]}-{sha256(name.encode())[:32]}"


def utf8(text: str) -> str:
    r"""Return text that can be written as UTF-8: what no character stands for is spelt out, as in ``\udc80``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def sha256(data: bytes) -> str:
    """Return the sha256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UserError: The file is missing, is not JSON that could be written again, or is not an object.
    """
    return _object(read_bytes(path), path)


def _object(data: bytes, path: Path) -> dict[str, Any]:
    value = json_object(data, str(path), _REMEDY)
    try:
        canonical_json(value)
    except ValueError as error:
        raise UserError(f"{path} holds what no JSON of ours does ({error}); {_REMEDY}") from None
    return value


def json_object(data: bytes | str, where: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises:
        UserError: It is not JSON, or is not an object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # of bytes that are no text, of huge numbers, of depth
        raise UserError(f"{where} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} holds no JSON object; {remedy}")
    return value


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see the old content or the whole new one."""
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file beside path, then move it into place durably."""
    temporary = _temporary(path)
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def create_once(path: Path, data: bytes) -> bool:
    """Create a file whole, or leave the one that is there; return whether this call created it."""
    temporary = _temporary(path)
    try:
        temporary.write_bytes(data)
        sync(temporary)
        _link(temporary, path, data)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _link(whole: Path, path: Path, data: bytes) -> None:
    """Give a file a second name that nobody has, or create it there where the file system knows no second names."""
    try:
        os.link(whole, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with path.open("xb") as file:  # not at once: who looks meanwhile finds a part of it, and is refused
            file.write(data)
        sync(path)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_foreign(folder: Path, record: Path) -> None:
    """Refuse an output folder that is a file, or that holds files but not the record that would explain them.

    Raises:
        UserError: Such a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --out")
    own = f".{record.name}."  # of a record whose writing was broken off
    held = [path.name for path in folder.iterdir()] if folder.exists() else []
    if any(not name.startswith(own) for name in held) and not record.exists():  # after the look: others begin here too
        raise UserError(f"{folder} is not empty and holds no {record.name}; give another --out")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return ``key: old -> new`` for every key in which two flat or nested mappings differ."""
    flat_old, flat_new = _flatten(old), _flatten(new)
    keys = sorted({*flat_old, *flat_new})
    return "; ".join(
        f"{key}: {flat_old.get(key, _ABSENT)} -> {flat_new.get(key, _ABSENT)}"
        for key in keys
        if flat_old.get(key, _ABSENT) != flat_new.get(key, _ABSENT)
    )


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        inside = isinstance(value, Mapping) and value
        flat |= _flatten(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return flat


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
