"""Vectors on disk: whole or not there, read by safetensors itself, and any number of them in the same memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmark.base.errors import UserError
from benchmark.engine.vectors import VectorWriter, open_vectors

_GROWTH = """
import resource, sys
from pathlib import Path
import numpy as np
from benchmark.contracts.tables import Table
from benchmark.engine.vectors import VectorWriter
from benchmark.metrics.fd import Fd

def kept(name):
    writer = VectorWriter(Path(sys.argv[2]) / name)
    for i in range(int(sys.argv[1]) // 500):
        writer.add(np.random.default_rng([i, len(name)]).normal(size=(500, 256)).astype(np.float32))
    return {"scenes": writer.keep()}

keys = tuple(f"{i:07d}" for i in range(int(sys.argv[1])))
print(Fd().score(Table(keys, kept("a")), Table(keys, kept("bb")))[0].n)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_file_holds_what_was_added(tmp_path: Path) -> None:
    made = np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32)
    writer = VectorWriter(tmp_path / "cache" / "some.safetensors")
    for piece in np.split(made, [1, 40]):
        writer.add(piece)
        assert open_vectors(writer.path) is None
    kept = writer.keep()
    assert (kept.shape, len(kept)) == ((70, 5), 70)
    assert (kept[:] == made).all()
    assert (kept[33:50] == made[33:50]).all()
    assert open_vectors(writer.path) == kept
    assert (load_file(writer.path)["vectors"] == made).all()
    assert [path.name for path in writer.path.parent.iterdir()] == ["some.safetensors"]


@pytest.mark.parametrize("damage", ["turned", "cut", "empty", "unsigned"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    writer = VectorWriter(tmp_path / "some.safetensors")
    writer.add(np.ones((8, 4), np.float32))
    writer.keep()
    data = bytearray(writer.path.read_bytes())
    if damage == "turned":
        data[-3] ^= 1
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["vectors"]["shape"] == [8, 4]
    if damage == "unsigned":
        data = data.replace(b"__metadata__", b"__metadatA__")
    writer.path.write_bytes(data[: {"cut": -9, "empty": 0}.get(damage)])
    with pytest.raises(UserError, match="is damaged; delete it and run the command again"):
        open_vectors(writer.path)


def test_ten_times_the_vectors_take_the_same_memory(tmp_path: Path) -> None:
    """40,000 more vectors of 256 numbers would be 41 MB in single precision, for each of the two sets."""
    peaks = []
    for count in (4_000, 40_000):
        words = [sys.executable, "-c", _GROWTH, str(count), str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        n, peak = map(int, done.stdout.split())
        assert n == count
        peaks.append(peak)
    unit = 1024 if sys.platform != "darwin" else 1
    assert (peaks[1] - peaks[0]) * unit < 30e6
