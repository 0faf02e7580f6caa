"""The hub source on real `datasets` folders: saved to disk, or a repository of Parquet files."""

import json
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value

from benchmark.base.errors import UserError
from benchmark.build import main
from benchmark.contracts import splitting
from benchmark.contracts.plugins import Sample
from benchmark.engine.datasets import BuiltDataset
from benchmark.sources.hub import Hub
from benchmark.sources.parquet import Parquet


def table(photos: Path, image: str = "image", caption: str = "text", null: int | None = None) -> Dataset:
    """The photographs in name order as a dataset; the row `null` has no image."""
    files = sorted(photos.rglob("*.*"))
    cells = [None if i == null else {"bytes": path.read_bytes(), "path": path.name} for i, path in enumerate(files)]
    rows = {image: cells, caption: [path.stem for path in files], "number": list(range(len(files)))}
    return Dataset.from_dict(
        rows, features=Features({image: Image(), caption: Value("string"), "number": Value("int64")})
    )


def repository(data: Dataset, folder: Path) -> Path:
    """A dataset as the Hub keeps it: Parquet files below data/."""
    (folder / "data").mkdir(parents=True)
    data.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def saved(data: Dataset | DatasetDict, folder: Path) -> Path:
    data.save_to_disk(folder)
    return folder


def parts(source: Hub) -> dict[str, list[Sample]]:
    """The samples of the first four parts."""
    return {part.name: list(source.read(part, 64)) for part in islice(source.parts(), 4)}


def texts(source: Hub, part: str) -> list[str | None]:
    (wanted,) = (each for each in islice(source.parts(), 4) if each.name == part)
    return [sample.caption for sample in source.read(wanted, 64)]


@pytest.mark.parametrize("keep", [saved, repository])
def test_every_row_is_in_exactly_one_split_with_its_own_bytes(keep: Any, photos: Path, tmp_path: Path) -> None:
    source = Hub(str(keep(table(photos), tmp_path / "data")))
    read = parts(source)
    sizes = {"test-000000": 6, "val-000000": 6, "train-000000": 12, "train-000001": 0}
    assert {name: len(samples) for name, samples in read.items()} == sizes
    samples = [sample for rows in read.values() for sample in rows]
    assert len({sample.key for sample in samples}) == 24
    originals = {path.stem: path.read_bytes() for path in photos.rglob("*.*")}
    assert {sample.caption: sample.image for sample in samples} == originals


@pytest.mark.parametrize("keep", [saved, repository])
def test_parts_are_the_same_from_every_reading(keep: Any, photos: Path, tmp_path: Path) -> None:
    folder = str(keep(table(photos), tmp_path / "data"))
    assert texts(Hub(folder), "train-000000") == texts(Hub(folder), "train-000000")
    assert Hub(folder).identity() == Hub(folder).identity()


def test_rows_on_disk_are_mixed_and_streamed_ones_keep_their_order(photos: Path, tmp_path: Path) -> None:
    data = table(photos)
    in_order = sorted(path.stem for path in photos.rglob("*.*"))
    assert [data[i]["text"] for i in range(24)] != sorted(data["text"])[::-1]
    on_disk = texts(Hub(str(saved(data, tmp_path / "saved"))), "train-000000")
    streamed = texts(Hub(str(repository(data, tmp_path / "repository"))), "train-000000")
    assert streamed == list(data["text"])[12:]
    assert on_disk != sorted(on_disk, key=list(data["text"]).index)
    assert set(on_disk) < set(in_order)


def test_own_splits_are_used_where_they_exist(photos: Path, tmp_path: Path) -> None:
    data = table(photos)
    own = DatasetDict(
        {"train": data.select(range(16)), "validation": data.select(range(16, 20)), "test": data.select(range(20, 24))}
    )
    read = parts(Hub(str(saved(own, tmp_path / "own"))))
    names = list(data["text"])
    assert {s.caption for s in read["train-000000"]} == set(names[:16])
    assert {s.caption for s in read["val-000000"]} == set(names[16:20])
    assert {s.caption for s in read["test-000000"]} == set(names[20:])
    assert read["val-000000"][0].key.startswith("validation-")


@pytest.mark.parametrize("keep", [saved, repository])
def test_as_many_are_held_out_as_asked_for_in_parts(
    keep: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(keep(table(photos), tmp_path / "data"))
    monkeypatch.setattr(splitting, "PART", 4)
    read = {part.name: list(Hub(folder).read(part, 64)) for part in islice(Hub(folder).parts(), 5)}
    assert [(name, len(samples)) for name, samples in read.items()] == [
        ("test-000000", 4),
        ("test-000001", 2),
        ("val-000000", 4),
        ("val-000001", 2),
        ("train-000000", 12),
    ]
    assert len({sample.key for samples in read.values() for sample in samples}) == 24
    less = {part.name: part.num_samples for part in islice(Hub(folder, held_out=2).parts(), 3)}
    assert less == {"test-000000": 2, "val-000000": 2, "train-000000": 500}


def test_pictures_in_an_archive_are_read_and_those_of_another_are_not(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "zipped").mkdir()
    files = sorted(path for path in photos.rglob("*.*") if path.suffix in (".png", ".jpg"))
    with zipfile.ZipFile(tmp_path / "zipped" / "train.zip", "w") as archive:
        for i, path in enumerate(files):
            archive.write(path, f"{i}{path.suffix}")
    source = Hub(str(tmp_path / "zipped"))
    found = [sample for part in islice(source.parts(), 3) for sample in source.read(part, 64)]
    assert not [sample.fault for sample in found if sample.fault]
    assert sorted(sample.image for sample in found) == sorted(path.read_bytes() for path in files)
    other = f"zip://0{files[0].suffix}::{tmp_path / 'zipped' / 'train.zip'}"
    assert Hub(str(photos))._bytes({"bytes": None, "path": other}) == (b"", "the image lies outside the dataset")
    own, secret = tmp_path / "zipped" / "train.zip", tmp_path / "secret"
    secret.write_bytes(b"secret")
    for place in (
        f"file://{secret}::{own}",
        f"file://{secret}",
        f"zip://a::{secret}",
        f"zip://a::file://{secret}::{own}",
    ):
        assert source._bytes({"bytes": None, "path": place}) == (b"", "the image lies outside the dataset")
    for name in ("other/name@0123", "user/name-2@0123", "user/name@0123/../../x"):
        elsewhere = {"bytes": None, "path": f"hf://datasets/{name}/train/0.jpg"}
        assert Hub("user/name")._bytes(elsewhere) == (b"", "the image lies outside the dataset")


def test_of_several_captions_the_first_is_taken_and_what_is_none_is_a_fault(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.*"))
    for name, cells in (("list", [["one", "two"], []]), ("struct", [{"a": 1}, {"a": 2}])):
        rows = {
            "image": [{"bytes": path.read_bytes(), "path": None} for path in files],
            "text": [cells[i % 2] for i in range(24)],
        }
        data = Dataset.from_dict(rows).cast_column("image", Image())
        folder = repository(data, tmp_path / name)
        for source in (Hub(str(folder)), Parquet(str(folder / "data"))):
            samples = [sample for part in islice(source.parts(), 3) for sample in source.read(part, 64)]
            if name == "list":
                assert {sample.caption for sample in samples} == {"one", None}
            else:
                assert {sample.fault for sample in samples} == {
                    "the caption cannot be read (a caption is a text, not dict)"
                }


def test_a_missing_validation_split_is_taken_out_of_training(photos: Path, tmp_path: Path) -> None:
    data = table(photos)
    own = DatasetDict({"train": data.select(range(20)), "test": data.select(range(20, 24))})
    read = parts(Hub(str(saved(own, tmp_path / "own"))))
    assert {name: len(samples) for name, samples in read.items()} == {
        "test-000000": 4,
        "val-000000": 5,
        "train-000000": 15,
        "train-000001": 0,
    }
    assert {s.caption for s in read["test-000000"]} == set(list(data["text"])[20:])
    assert not {s.key for s in read["val-000000"]} & {s.key for s in read["train-000000"]}


@pytest.mark.parametrize("keep", [saved, repository])
def test_columns_are_chosen_by_fields(keep: Any, photos: Path, tmp_path: Path) -> None:
    folder = keep(table(photos, image="picture", caption="words"), tmp_path / "data")
    assert texts(Hub(str(folder), image="picture"), "val-000000") == [None] * 6
    assert set(texts(Hub(str(folder), image="picture", caption="words"), "val-000000")) <= {
        path.stem for path in photos.rglob("*.*")
    }
    assert all(str(text).isdigit() for text in texts(Hub(str(folder), image="picture", caption="number"), "val-000000"))


@pytest.mark.parametrize("keep", [saved, repository])
@pytest.mark.parametrize(("fields", "told"), [({"image": "imag"}, '"image"'), ({"caption": "txt"}, '"text"')])
def test_a_missing_column_is_answered_with_the_one_meant(
    keep: Any, fields: dict[str, Any], told: str, photos: Path, tmp_path: Path
) -> None:
    source = Hub(str(keep(table(photos), tmp_path / "data")), **fields)
    with pytest.raises(UserError, match=f"did you mean {told}"):
        next(source.parts())


@pytest.mark.parametrize("column", ["text", "number"])
@pytest.mark.parametrize("keep", [saved, repository])
def test_a_column_without_images_is_refused(keep: Any, column: str, photos: Path, tmp_path: Path) -> None:
    source = Hub(str(keep(table(photos), tmp_path / "data")), image=column)
    with pytest.raises(UserError, match=column):
        list(source.read(next(source.parts()), 64))


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the dataset"):
        next(Hub(str(tmp_path)).parts())


def test_a_dataset_of_two_rows_is_refused(photos: Path, tmp_path: Path) -> None:
    folder = saved(table(photos).select(range(2)), tmp_path / "two")
    with pytest.raises(UserError, match="at least 3"):
        next(Hub(str(folder)).parts())


@pytest.mark.parametrize("keep", [saved, repository])
def test_build_stops_at_the_end_of_the_source(
    keep: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = keep(table(photos), tmp_path / "data"), tmp_path / "out"
    words = ["--cond", "canny", "--source", f"hub:{folder}", "--size", "10k", "--workers", "1", "--out", str(out)]
    assert main(words) == 0
    assert BuiltDataset.open(out).manifest.num_rows == {"train": 12, "val": 6, "test": 6}
    capsys.readouterr()
    assert main(words) == 0
    assert "already built" in capsys.readouterr().out
    assert main(["--verify", str(out), "--recompute", "1.0"]) == 0


def test_a_row_without_image_is_counted_as_failed(photos: Path, tmp_path: Path) -> None:
    folder, out = repository(table(photos, null=20), tmp_path / "data"), tmp_path / "out"
    words = ["--cond", "canny", "--source", f"hub:{folder}", "--workers", "1", "--out", str(out)]
    assert main(words) == 2
    assert not (out / "manifest.json").exists()
    assert main([*words, "--max-failed", "1"]) == 0
    dataset = BuiltDataset.open(out)
    assert list(dataset.manifest.failed) == ["train-00000020"]
    assert dataset.manifest.num_rows["train"] == 11
    commit = json.loads((out / "commits" / "train-000000.json").read_text())
    assert (commit["num_in"], commit["num_ok"]) == (12, 11)


def test_another_content_behind_the_same_path_is_another_identity(photos: Path, tmp_path: Path) -> None:
    data = table(photos)
    folders = [repository(data, tmp_path / "a"), repository(data.select(range(23, -1, -1)), tmp_path / "b")]
    identities = []
    for folder in folders:
        (tmp_path / "here").symlink_to(folder)
        identities.append(Hub(str(tmp_path / "here")).identity())
        (tmp_path / "here").unlink()
    assert identities[0] != identities[1]


@pytest.mark.parametrize("keep", [saved, repository])
def test_a_damaged_picture_in_a_column_nobody_wants_hurts_nobody(keep: Any, photos: Path, tmp_path: Path) -> None:
    """The library decodes all pictures of a row that it gives, wanted or not."""
    data = table(photos)
    cells = [{"bytes": b"no picture", "path": None}] * len(data)
    data = data.add_column("conditioning_image", cells).cast_column("conditioning_image", Image())
    read = parts(Hub(str(keep(data, tmp_path / "data"))))
    assert sum(len(samples) for samples in read.values()) == 24
    assert all(sample.fault is None and sample.image for samples in read.values() for sample in samples)
