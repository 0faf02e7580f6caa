"""Vectors of images kept on disk: encoded once for every metric that asks, and read in slices, however many they are.

Files are safetensors, with the hash of what they hold: a bit that turned would move a score without a word.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from benchmark.base.errors import UserError
from benchmark.base.files import write_through
from benchmark.contracts.tables import BLOCK

_NAME, _DIGEST = "vectors", "sha256"


@dataclass(frozen=True)
class KeptVectors:
    """Vectors float32 (N, D) in a file; slices of them are arrays."""

    path: Path
    shape: tuple[int, ...]

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        """Return the vectors of some rows."""
        with safe_open(self.path, framework="np") as file:
            start, stop, _ = rows.indices(len(self))  # safetensors takes no end behind the last
            found: NDArray[np.float32] = file.get_slice(_NAME)[start:stop]
        return found


def open_vectors(path: Path) -> KeptVectors | None:
    """Return the vectors a file holds, or None where there is no file.

    Raises:
        UserError: It is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            kept = KeptVectors(path, tuple(file.get_slice(_NAME).get_shape()))
            whole = (file.metadata() or {})[_DIGEST] == _digest(kept)
    except (SafetensorError, KeyError, OSError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged; delete it and run the command again")
    return kept


def _digest(vectors: KeptVectors) -> str:
    found = hashlib.sha256()
    for start in range(0, len(vectors), BLOCK):
        found.update(vectors[start : start + BLOCK].tobytes())
    return found.hexdigest()


@dataclass
class VectorWriter:
    """Takes vectors piece by piece; the file is there when all are, and not before.

    Attributes:
        path: Where they will be.
    """

    path: Path
    _digest: Any = field(default_factory=hashlib.sha256)
    _shape: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Open a file without a name beside the one to be: a process that dies leaves nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._parts: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Take the next vectors, (B, D)."""
        data = np.ascontiguousarray(vectors, np.float32).tobytes()
        self._digest.update(data)
        self._parts.write(data)
        self._shape = (self._shape[0] + len(vectors), vectors.shape[1])

    def keep(self) -> KeptVectors:
        """Put the file in its place; it holds all there is."""
        write_through(self.path, self._write)
        self.close()
        return KeptVectors(self.path, self._shape)

    def close(self) -> None:
        """Let go of what was taken and not kept."""
        self._parts.close()

    def _write(self, temporary: Path) -> None:
        size = self._parts.tell()
        header = {
            "__metadata__": {_DIGEST: self._digest.hexdigest()},
            _NAME: {"dtype": "F32", "shape": self._shape, "data_offsets": [0, size]},
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8, as the format asks
        self._parts.seek(0)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(self._parts, file)
