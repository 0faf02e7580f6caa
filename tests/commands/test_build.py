"""`benchmark.build` from the command line to the bytes on disk."""

import io
import json
import shutil
import struct
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pytest
import yaml
from PIL import Image
from pyarrow import parquet

from benchmark import build
from benchmark.base import provenance
from benchmark.base.errors import UserError
from benchmark.build import Build, default_folder, main, make_plan
from benchmark.contracts.plugins import Sample
from benchmark.engine import pretrained
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.intake import sift
from benchmark.scenes.palette import KINDS, SEG_COLOURS
from benchmark.scenes.splits import example

TINY = ["--cond", "seg", "--cond", "canny", "--source", "scenes,val=8,test=24", "--workers", "1"]
Files = dict[str, tuple[bytes, int]]


def contents(folder: Path) -> Files:
    """Every file below a folder with its bytes and the time it was written."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def shards(folder: Path) -> dict[str, bytes]:
    """What the workers wrote: shard files and commits."""
    return {name: data for name, (data, _) in contents(folder).items() if name.startswith(("data/", "commits/"))}


def shard(folder: Path, split: str) -> Path:
    (file,) = (folder / "data").glob(f"{split}-000000-*.parquet")
    return file


def manifest(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return value


def card_files(folder: Path) -> dict[str, list[str]]:
    """The files of each split that the header of the dataset card lists."""
    header = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    (config,) = header["configs"]
    return {entry["split"]: entry["path"] for entry in config["data_files"]}


def opened(folder: Path, tmp_path: Path) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def picture(cell: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(cell["bytes"]))


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture
def tiny(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset that a test may change."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def photo_dataset(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canny maps of the photographs at 96 pixels, made by one worker; not to be changed."""
    folder = tmp_path_factory.mktemp("datasets") / "photos-canny"
    words = ["--cond", "canny", "--source", f"folder:{photos}", "--resolution", "96"]
    assert main([*words, "--workers", "1", "--out", str(folder)]) == 0
    return folder


def test_hugging_face_datasets_opens_a_built_folder_and_yields_pictures(tiny_dataset: Path, tmp_path: Path) -> None:
    data = opened(tiny_dataset, tmp_path)
    assert {name: len(split) for name, split in data.items()} == {"train": 500, "val": 8, "test": 24}
    for split in data.values():
        row = split[0]
        for column in ("image", "cond_seg", "cond_canny"):
            assert isinstance(row[column], Image.Image)
            assert row[column].size == (64, 64)
        assert any(kind in row["caption"] for kind in KINDS)
        assert (row["width"], row["height"]) == (64, 64)


def test_every_key_is_in_one_split_once(tiny_dataset: Path) -> None:
    dataset = BuiltDataset.open(tiny_dataset)
    keys = [row["key"] for split in ("train", "val", "test") for row in dataset.rows(split, ["key"])]
    assert len(set(keys)) == len(keys) == 532


def test_the_card_lists_exactly_the_committed_files(tiny_dataset: Path) -> None:
    committed = [json.loads(path.read_text())["file"] for path in (tiny_dataset / "commits").glob("*.json")]
    listed = card_files(tiny_dataset)
    assert sorted(file for files in listed.values() for file in files) == sorted(committed)
    assert all(file.startswith(f"data/{split}-") for split, files in listed.items() for file in files)


def test_a_shard_without_commit_is_never_read(tiny: Path, tmp_path: Path) -> None:
    shutil.copy(shard(tiny, "val"), tiny / "data" / "val-000001-0123456789ab.parquet")
    assert len(opened(tiny, tmp_path)["val"]) == 8
    assert len(list(BuiltDataset.open(tiny).rows("val", ["key"]))) == 8


def test_building_again_says_already_built_and_changes_no_byte(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(tiny)
    assert main([*TINY, "--size", "500", "--out", str(tiny)]) == 0
    assert "already built" in capsys.readouterr().out
    assert contents(tiny) == before


def test_worker_count_changes_no_byte_of_a_shard(photos: Path, photo_dataset: Path, tmp_path: Path) -> None:
    words = ["--cond", "canny", "--source", f"folder:{photos}", "--resolution", "96"]
    assert main([*words, "--workers", "2", "--out", str(tmp_path / "two")]) == 0
    assert shards(tmp_path / "two") == shards(photo_dataset)
    assert manifest(tmp_path / "two") == manifest(photo_dataset)


def test_growing_keeps_every_shard_and_adds_one(tiny: Path) -> None:
    before = contents(tiny)
    assert main([*TINY, "--size", "1k", "--out", str(tiny)]) == 0
    after = contents(tiny)
    kept = [name for name in before if name.startswith(("data/", "commits/", "plan.json"))]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert manifest(tiny)["num_rows"] == {"train": 1000, "val": 8, "test": 24}
    assert manifest(tiny)["fingerprint"] != json.loads(before["manifest.json"][0])["fingerprint"]
    assert len(card_files(tiny)["train"]) == 2
    keys = [row["key"] for row in BuiltDataset.open(tiny).rows("train", ["key"])]
    assert len(set(keys)) == 1000


def test_a_dataset_says_what_builds_the_same_elsewhere(tiny: Path, tmp_path: Path) -> None:
    dataset = BuiltDataset.open(tiny)
    said = "python -m benchmark.build --cond seg --cond canny --source scenes,val=8,test=24 --size 500"
    assert dataset.command == said
    assert f"Made by `{said}` from" in (tiny / "README.md").read_text()
    assert main([*said.split()[3:], "--out", str(tmp_path / "again")]) == 0
    assert BuiltDataset.open(tmp_path / "again").manifest == dataset.manifest
    (tiny / "command.json").unlink()  # as of datasets that were built before it was kept
    assert BuiltDataset.open(tiny).command is None


@pytest.mark.parametrize("split", ["val", "test", "train"])
def test_a_lost_commit_is_made_again_with_the_same_fingerprint(tiny: Path, split: str) -> None:
    before, whole = shards(tiny), manifest(tiny)
    (tiny / "commits" / f"{split}-000000.json").unlink()
    assert main([*TINY, "--size", "500", "--out", str(tiny)]) == 0
    assert shards(tiny) == before
    assert manifest(tiny) == whole


def test_a_finished_dataset_is_not_made_smaller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*TINY, "--size", "900", "--out", str(out)]) == 0
    before = contents(out)
    assert main([*TINY, "--size", "500", "--out", str(out)]) == 2
    assert f"{out} holds 1000 training pairs, and --size 500 would leave some out" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*TINY, "--size", "1k", "--out", str(out)]) == 0


def test_a_killed_build_goes_on_where_it_stopped(tiny: Path) -> None:
    before = contents(tiny)
    lost = [
        "manifest.json",
        "README.md",
        "preview.png",
        "command.json",
        "commits/val-000000.json",
        str(shard(tiny, "val").relative_to(tiny)),
    ]
    for name in lost:
        (tiny / name).unlink()
    (tiny / "data" / ".val-000000.0123456789ab.tmp").write_bytes(b"PAR1 half a shard")
    with pytest.raises(UserError, match="not finished"):
        BuiltDataset.open(tiny)
    assert main([*TINY, "--size", "500", "--out", str(tiny)]) == 0
    after = contents(tiny)
    assert {name: after[name][0] for name in lost if name != "README.md"} == {
        name: before[name][0] for name in lost if name != "README.md"
    }
    untouched = [name for name in before if name not in lost]
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert main(["--verify", str(tiny)]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cond", "seg", "--source", "scenes,val=8,test=24"], "conditions"),
        ([*TINY, "--resolution", "32"], "resolution: 64 -> 32"),
        (["--cond", "seg", "--cond", "canny", "--source", "scenes,val=8,test=24,seed=5"], "source.seed: 0 -> 5"),
    ],
)
def test_another_plan_in_the_folder_is_refused_with_the_difference(
    tiny: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tiny)
    assert main([*words, "--out", str(tiny)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert contents(tiny) == before


def test_a_changed_source_folder_is_another_plan(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    words = ["--cond", "canny", "--source", f"folder:{source}", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    (source / "wide-00.jpg").unlink()
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "source_identity.num_images: 24 -> 23" in line


def test_verify_calls_a_whole_dataset_whole(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(tiny_dataset)
    assert main(["--verify", str(tiny_dataset)]) == 0
    assert "whole" in capsys.readouterr().out
    assert contents(tiny_dataset) == before


def test_verify_names_a_shard_with_one_flipped_bit(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shard(tiny, "test")
    flip(file, file.stat().st_size // 2)
    assert main(["--verify", str(tiny)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert file.name in line


def test_verify_names_a_missing_shard(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shard(tiny, "val")
    file.unlink()
    assert main(["--verify", str(tiny)]) == 1
    assert f"{file.name} is missing" in capsys.readouterr().out


def test_verify_notices_a_manifest_that_does_not_add_up(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = manifest(tiny)
    (tiny / "manifest.json").write_text(json.dumps({**whole, "failed": {"a.png": "damaged"}}))
    assert main(["--verify", str(tiny)]) == 1
    assert "manifest" in capsys.readouterr().out
    (tiny / "manifest.json").write_text(json.dumps({**whole, "num_rows": {**whole["num_rows"], "train": 501}}))
    assert main(["--verify", str(tiny)]) == 2  # no reader opens it
    assert "manifest.json does not add up" in capsys.readouterr().err


def test_recomputing_every_shard_gives_the_committed_bytes(tiny_dataset: Path, photo_dataset: Path) -> None:
    assert main(["--verify", str(tiny_dataset), "--recompute", "1.0"]) == 0
    assert main(["--verify", str(photo_dataset), "--recompute", "1.0"]) == 0


def test_recomputing_notices_a_source_that_changed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    words = ["--cond", "canny", "--source", f"folder:{source}", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    key = next(BuiltDataset.open(tmp_path / "out").rows("val", ["key"]))["key"]
    Image.fromarray(np.full((99, 99, 3), 128, np.uint8)).save(source / key)
    capsys.readouterr()
    assert main(["--verify", str(tmp_path / "out"), "--recompute", "1.0"]) == 1
    assert capsys.readouterr().out.splitlines() == ["val-000000 built again is different"]


def test_recomputing_covers_a_last_shard_in_which_every_image_failed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.contracts.splitting.PART", 6)
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    words = ["--cond", "canny", "--source", f"folder:{source}", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main([*words[:6], "--out", str(tmp_path / "first")]) == 0
    last = parquet.read_table(sorted((tmp_path / "first" / "data").glob("train-*"))[-1], columns=["key"])
    keys = last.column("key").to_pylist()
    for key in keys:
        (source / key).write_bytes(b"no image")
    assert main([*words, "--max-failed", str(len(keys))]) == 0
    assert main(["--verify", str(tmp_path / "out"), "--recompute", "1.0"]) == 0


@pytest.mark.parametrize("name", ["tiny_dataset", "photo_dataset"])
def test_canny_maps_are_those_of_the_stored_image(name: str, request: pytest.FixtureRequest) -> None:
    dataset = BuiltDataset.open(request.getfixturevalue(name))
    rows = [row for split in ("train", "val", "test") for row in dataset.rows(split, ["image", "cond_canny"])]
    for row in rows[:100]:
        image = np.asarray(picture(row["image"]).convert("RGB"))
        stored = np.asarray(picture(row["cond_canny"]).convert("L"))
        np.testing.assert_array_equal(stored, cv2.Canny(image, 100, 200))
    assert any(np.asarray(picture(row["cond_canny"])).any() for row in rows)


def test_seg_maps_are_the_exact_scene_in_palette_colours(tiny_dataset: Path) -> None:
    colours = np.array(SEG_COLOURS, dtype=np.uint8)
    for i, row in enumerate(BuiltDataset.open(tiny_dataset).rows("test", ["key", "cond_seg", "image"])):
        truth = example(0, "test", i, 64).render
        np.testing.assert_array_equal(np.asarray(picture(row["cond_seg"]).convert("RGB")), colours[truth.seg])
        np.testing.assert_array_equal(np.asarray(picture(row["image"])), truth.image)


def test_a_jpeg_that_needs_no_change_is_kept_byte_for_byte(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "squares"
    source.mkdir()
    for path in sorted(photos.glob("*.jpg"))[:6]:
        Image.open(path).crop((0, 0, 64, 64)).convert("RGB").save(source / path.name, quality=80)
    turned = Image.open(photos / "wide-00.jpg").crop((40, 0, 104, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned.save(source / "turned.jpg", exif=exif)
    words = ["--cond", "canny", "--source", f"folder:{source}", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    dataset = BuiltDataset.open(tmp_path / "out")
    rows = {row["key"]: row for split in ("train", "val", "test") for row in dataset.rows(split, ["key", "image"])}
    assert len(rows) == 7
    for key, row in rows.items():
        if key != "turned.jpg":
            assert row["image"]["bytes"] == (source / key).read_bytes()
    upright = np.asarray(turned.transpose(Image.Transpose.ROTATE_270), dtype=float)
    assert np.abs(np.asarray(picture(rows["turned.jpg"]["image"]), dtype=float) - upright).mean() < 3


def test_a_photograph_is_cropped_at_its_centre_and_scaled(photos: Path, photo_dataset: Path) -> None:
    dataset = BuiltDataset.open(photo_dataset)
    rows = [row for split in ("train", "val", "test") for row in dataset.rows(split, ["key", "image"])]
    assert len(rows) == 24
    for row in rows:
        photo = Image.open(photos / row["key"]).convert("RGB")
        assert photo.size in ((280, 200), (200, 280))
        square = photo.crop((40, 0, 240, 200) if photo.width > 200 else (0, 40, 200, 240))
        expected = np.asarray(square.resize((96, 96), Image.Resampling.BOX), dtype=float)
        assert np.abs(np.asarray(picture(row["image"]), dtype=float) - expected).mean() < 5


def test_the_plan_does_not_know_the_size() -> None:
    small, large = (make_plan(Build(cond=("seg",), size=size)) for size in (500, 1_048_576))
    assert small.hash == large.hash
    assert make_plan(Build(cond=("seg",), resolution=128)).hash != small.hash
    assert make_plan(Build(cond=("canny",))).hash != make_plan(Build(cond=("canny,low=50",))).hash


def test_dry_run_prints_the_plan_and_builds_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--cond", "canny,low=50", "--source", f"folder:{photos}", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == "datasets/folder-photos-canny-64"
    assert told["plan"]["conditions"] == [{"name": "canny", "low": 50, "high": 200}]
    assert list(tmp_path.iterdir()) == []


def test_shards_hold_small_row_groups_and_uncompressed_images(tiny_dataset: Path) -> None:
    with parquet.ParquetFile(shard(tiny_dataset, "train")) as file:
        group = file.metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100] * 5
    assert {columns[f"{name}.bytes"] for name in ("image", "cond_seg", "cond_canny")} == {"UNCOMPRESSED"}


def test_reading_a_shard_with_one_flipped_bit_is_refused_by_name(tiny: Path) -> None:
    file = shard(tiny, "val")
    image = next(BuiltDataset.open(tiny).rows("val", ["image"]))["image"]["bytes"]
    flip(file, file.read_bytes().index(image) + len(image) // 2)
    with pytest.raises(UserError, match=file.name):
        list(BuiltDataset.open(tiny).rows("val", ["image"]))


@pytest.mark.parametrize("region", ["pages", "footer"])
def test_no_flipped_bit_is_ever_read_as_data(region: str, tiny: Path) -> None:
    file, dataset = shard(tiny, "val"), BuiltDataset.open(tiny)
    columns = ["key", "image", "caption", "cond_seg"]
    data, good = file.read_bytes(), list(dataset.rows("val", columns))
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    draws = np.random.default_rng(1)
    places = draws.integers(0, footer, 150) if region == "pages" else draws.integers(footer, len(data), 300)
    silent, messages = [], []
    for place, bit in zip(places, draws.integers(0, 8, len(places)), strict=True):
        file.write_bytes(data)
        flip(file, int(place), int(bit))
        try:
            if list(dataset.rows("val", columns)) != good:
                silent.append((int(place) - footer, int(bit)))
        except UserError as error:
            messages.append(str(error))
    assert silent == []
    assert messages
    assert all(file.name in message for message in messages)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tars/*.tar", "folder-tars-canny-64"),
        ("a/photos", "folder-photos-canny-64"),
        ("user/name", "folder-name-canny-64"),
    ],
)
def test_a_dataset_is_named_by_the_last_plain_part_of_its_source(path: str, name: str, tiny_dataset: Path) -> None:
    plan = BuiltDataset.open(tiny_dataset).plan
    only = [condition for condition in plan.conditions if condition["name"] == "canny"]
    annotators = {"canny": plan.annotators["canny"]}
    other = replace(plan, source={"name": "folder", "path": path}, conditions=only, annotators=annotators)
    assert default_folder(other) == Path("datasets") / name


def test_models_share_no_gpu_among_many_processes_unless_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def noted(function: Any, items: Any, workers: int | None) -> Any:
        asked.append(workers)
        return iter(())

    monkeypatch.setattr(build, "run_local", noted)
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(pretrained, "choose_device", lambda wanted, device=device: device)
        for form in (Build(cond=("seg",)), Build(cond=("seg",), annotator=("scenes,kind=seg",))):
            for workers in (None, 3):
                list(build._made(make_plan(form), tmp_path, replace(form, workers=workers), []))
    assert asked == [None, 3, None, 3, None, 3, 1, 3]


def test_originals_are_let_go_of_once_they_are_stored(photos: Path) -> None:
    """Those of a shard would all be held until it is written: gigabytes, of a camera's pictures."""
    source = f"folder:{photos}"
    plan = make_plan(Build(cond=("canny",), source=source))
    samples = [Sample(path.name, path.read_bytes(), None, columns={"x": b"y"}) for path in photos.glob("*.jpg")]
    usable, _ = sift(iter(samples), plan, lambda sample, transform: {})
    assert len(usable) > 3
    assert all((one.sample.image, one.sample.columns) == (b"", {}) and one.data for one in usable)


def test_a_dataset_that_networks_saw_is_not_gone_on_with_by_other_versions_of_what_runs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of a dataset would be resized and normalised in another way, and nothing would show it."""
    installed = metadata.version
    seen = ["--cond", "seg", "--annotator", "scenes,kind=seg", "--source", "scenes,val=2,test=4", "--workers", "1"]
    drawn = ["--cond", "seg", "--source", "scenes,val=2,test=4", "--workers", "1"]
    for words, out, code in ((seen, "seen", 2), (drawn, "drawn", 0)):
        command = [*words, "--size", "500", "--out", str(tmp_path / out)]
        assert main(command) == 0
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "version", lambda name: "9.9" if name == "transformers" else installed(name))
            assert main(command) == code
            told = capsys.readouterr().err
            assert ("versions.transformers" in told and "9.9" in told) == (code == 2)
            assert main(["--retry-failed", str(tmp_path / out)]) == code
            assert ("other versions" in capsys.readouterr().err) == (code == 2)
