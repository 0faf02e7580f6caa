"""A part is read by a source made anew, as another process does it, without a look at what other parts hold."""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, IterableDataset, Value

from benchmark.contracts.plugins import Part, Sample, Source
from benchmark.sources.folder import Folder
from benchmark.sources.hub import Hub
from benchmark.sources.parquet import Parquet
from benchmark.sources.webdataset import Webdataset


def rows(photos: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(photos.rglob("*.*"))]


def tars(photos: Path, folder: Path) -> None:
    """Six tars of four samples."""
    for i, data in enumerate(rows(photos)):
        with tarfile.open(folder / f"{i // 4}.tar", "a") as archive:
            member = tarfile.TarInfo(f"{i}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def table(photos: Path, folder: Path) -> None:
    """Six Parquet files of four rows."""
    cells = [{"bytes": data, "path": None} for data in rows(photos)]
    data = Dataset.from_dict(
        {"image": cells, "text": [str(i) for i in range(24)]},
        features=Features({"image": Image(), "text": Value("string")}),
    )
    for i in range(6):
        data.select(range(4 * i, 4 * i + 4)).to_parquet(str(folder / f"{i}.parquet"))


def images(photos: Path, folder: Path) -> None:
    for i, data in enumerate(rows(photos)):
        (folder / f"{i}.png").write_bytes(data)
        (folder / f"{i}.txt").write_text(f"caption {i}")


def contents(samples: Iterator[Sample]) -> list[tuple[str, Any, str | None]]:
    return [(sample.key, sample.image, sample.caption) for sample in samples]


def files_of(part: Part) -> set[Path]:
    return {value for row in part.where for value in row if isinstance(value, Path)}


@pytest.mark.parametrize(("make", "kind"), [(tars, Webdataset), (table, Parquet), (images, Folder)])
def test_a_part_is_read_where_all_other_files_are_gone(
    make: Callable[[Path, Path], None],
    kind: Callable[[str], Source],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmark.contracts.splitting.PART", 5)
    make(photos, tmp_path)
    source = kind(str(tmp_path))
    parts = [pickle.loads(pickle.dumps(part)) for part in source.parts()]
    wanted = [part for part in parts if part.split == "train"][1]
    expected = contents(source.read(wanted, 64))
    kept = files_of(wanted)
    for path in tmp_path.iterdir():
        if path not in kept and path.with_suffix(".png") not in kept:
            path.unlink()
    assert contents(kind(str(tmp_path)).read(wanted, 64)) == expected
    assert len(expected) == wanted.num_samples == 5


def test_the_rows_of_what_was_saved_are_put_in_order_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset.from_dict(
        {"image": [{"bytes": row, "path": None} for row in rows(photos)]}, features=Features({"image": Image()})
    )
    data.save_to_disk(tmp_path)
    parts = list(islice(Hub(str(tmp_path)).parts(), 3))
    monkeypatch.setattr("benchmark.sources.hub.hash64", None)
    read = [contents(Hub(str(tmp_path)).read(part, 64)) for part in parts]
    assert sorted(key for part in read for key, _, _ in part) == [f"train-{i:08d}" for i in range(24)]


def test_a_stream_goes_on_from_part_to_part(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.sources.hub.PART", 4)
    (tmp_path / "data").mkdir()
    table(photos, tmp_path / "data")
    source = Hub(str(tmp_path))
    test, val, *train = islice(source.parts(), 7)
    begun: list[int] = []
    skip = IterableDataset.skip

    def counted(data: IterableDataset, n: int) -> IterableDataset:
        begun.append(n)
        return skip(data, n)

    monkeypatch.setattr(IterableDataset, "skip", counted)
    every_other = [contents(Hub(str(tmp_path)).read(part, 64)) for part in train[::2]]
    assert begun == [12]
    back = [contents(Hub(str(tmp_path)).read(part, 64)) for part in [test, val, *train]]
    assert begun == [12, 0]
    assert back[2::2] == every_other
    assert [key for part in back for key, _, _ in part] == [f"train-{i:08d}" for i in range(24)]


def test_a_stream_that_was_left_half_read_begins_anew(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table(photos, tmp_path / "data")
    parts = list(islice(Hub(str(tmp_path)).parts(), 3))
    next(Hub(str(tmp_path)).read(parts[0], 64))
    read = [contents(Hub(str(tmp_path)).read(part, 64)) for part in parts]
    assert [key for part in read for key, _, _ in part] == [f"train-{i:08d}" for i in range(24)]
