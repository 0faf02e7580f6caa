"""Hygiene of a build: what each check finds, what it does, and who honours it."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmark import train
from benchmark.base.images import decode_rgb
from benchmark.build import Build, main, make_plan
from benchmark.contracts.plugins import Condition
from benchmark.contracts.splitting import divide
from benchmark.engine.bases import load_base
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.imagesets import load_reference
from benchmark.engine.latents import encode_moments
from benchmark.numbers.quality import perceptual_hash
from benchmark.registry import remake

SIDE = 64


def texture(seed: int) -> NDArray[np.uint8]:
    """A colourful picture with detail at every scale, unlike that of any other seed, uint8 (128, 128, 3)."""
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 256, (n, n, 3), np.uint8) for n in (4, 8, 16, 128)]
    scaled = [np.asarray(Image.fromarray(layer).resize((128, 128), Image.Resampling.BICUBIC)) for layer in layers]
    return np.asarray(np.mean(scaled, axis=0), dtype=np.uint8)


def save(path: Path, image: NDArray[np.uint8], **options: Any) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(image).save(path, **{"quality": 95, **options} if path.suffix == ".jpg" else options)
    path.with_suffix(".txt").write_text("a texture")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures no check has anything to say against."""
    folder = tmp_path_factory.mktemp("hygiene") / "clean"
    for i in range(40):
        save(folder / f"c{i:02d}.jpg", texture(i))
    return folder


def build(source: Path, out: Path, *words: str, code: int = 0) -> BuiltDataset:
    argv = ["--cond", "canny", "--source", f"folder:{source}", "--workers", "1", "--out", str(out), *words]
    assert main(argv) == code
    return BuiltDataset.open(out)


def copy(clean: Path, to: Path) -> Path:
    to.mkdir()
    for path in clean.iterdir():
        (to / path.name).hardlink_to(path)
    return to


def counts(dataset: BuiltDataset) -> dict[str, dict[str, int]]:
    assert dataset.manifest.hygiene is not None
    found: dict[str, dict[str, int]] = dataset.manifest.hygiene["counts"]
    return found


def split_of(dataset: BuiltDataset) -> dict[str, str]:
    return {row["key"]: split for split in ("train", "val", "test") for row in dataset.rows(split, ["key"])}


def test_clean_pictures_pass_every_check(clean: Path, tmp_path: Path) -> None:
    dataset = build(clean, tmp_path / "out")
    assert counts(dataset) == {"dropped": {}, "excluded": {}, "reported": {}}
    assert sum(dataset.manifest.num_rows.values()) == 40


def dirty(folder: Path) -> dict[str, str]:
    """Add a picture for each check on a row; return file name to check."""
    picture = texture(1000)
    save(folder / "small.jpg", picture[: SIDE - 1])
    save(folder / "grey.jpg", picture.mean(axis=2).astype(np.uint8))
    blurred = Image.fromarray(texture(1001)).filter(ImageFilter.GaussianBlur(8))
    save(folder / "blurred.jpg", np.asarray(blurred))
    save(folder / "heavy.jpg", texture(1002), quality=20)
    save(folder / "silent.jpg", texture(1003))
    (folder / "silent.txt").write_text(" \n")
    Image.fromarray(texture(1004)).convert("CMYK").save(folder / "print.jpg", quality=95)
    (folder / "print.txt").write_text("a texture")
    (folder / "torn.jpg").write_bytes((folder / "c00.jpg").read_bytes()[:200])
    return {
        "small.jpg": "too_small",
        "grey.jpg": "greyscale",
        "blurred.jpg": "blur",
        "heavy.jpg": "heavy_jpeg",
        "silent.jpg": "missing_caption",
        "print.jpg": "wrong_mode",
        "torn.jpg": "unreadable",
    }


def test_each_check_drops_its_picture_and_no_other(clean: Path, tmp_path: Path) -> None:
    source = copy(clean, tmp_path / "source")
    expected = dirty(source)
    dataset = build(source, tmp_path / "out", "--drop", ",".join(expected.values()))
    dropped = {key: why for commit in dataset.manifest.shards for key, why in commit.get("dropped", {}).items()}
    assert dropped == expected
    assert counts(dataset)["dropped"] == dict.fromkeys(expected.values(), 1)
    assert sorted(split_of(dataset)) == sorted(path.name for path in clean.glob("*.jpg"))
    for commit in dataset.manifest.shards:
        assert commit["num_in"] == commit["num_ok"] + len(commit["failed"]) + len(commit.get("dropped", {}))


def test_by_default_a_small_picture_is_dropped_and_matters_of_taste_are_counted(clean: Path, tmp_path: Path) -> None:
    source = copy(clean, tmp_path / "source")
    expected = dirty(source)
    dataset = build(source, tmp_path / "out", "--max-failed", "1")
    assert counts(dataset)["dropped"] == {"too_small": 1}
    assert counts(dataset)["reported"] == {c: 1 for c in expected.values() if c not in ("too_small", "unreadable")}
    assert list(dataset.manifest.failed) == ["torn.jpg"]
    rows = {row["key"]: row for s in ("train", "val", "test") for row in dataset.rows(s, ["key", "flags", "phash"])}
    assert {key: row["flags"] for key, row in rows.items() if row["flags"]} == {
        key: check for key, check in expected.items() if check not in ("too_small", "unreadable")
    }


def test_a_limit_decides_which_pictures_a_check_finds(clean: Path, tmp_path: Path) -> None:
    source = copy(clean, tmp_path / "source")
    save(source / "q60.jpg", texture(2000), quality=60)
    loose = build(source, tmp_path / "loose", "--drop", "heavy_jpeg=60")
    strict = build(source, tmp_path / "strict", "--drop", "heavy_jpeg=61")
    assert counts(loose)["dropped"] == {}
    assert counts(strict)["dropped"] == {"heavy_jpeg": 1}


def test_quality_columns_are_those_of_the_stored_picture_and_open_elsewhere(clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dataset = build(clean, out)
    row = next(dataset.rows("test", ["image", "phash", "jpeg_quality", "flags"]))
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        grey = np.asarray(image.convert("L"))
    assert (perceptual_hash(grey) ^ row["phash"]).bit_count() <= 1  # Pillow rounds luminance otherwise
    assert (row["jpeg_quality"], row["flags"]) == (95, "")
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["test"]
    assert loaded[0]["phash"] == row["phash"]
    assert loaded.features["sharpness"].dtype == "float32"


@dataclass(frozen=True)
class Alike:
    """Pictures with copies in other splits, built three times.

    Attributes:
        copies: A copy's name to its original's.
        whole: Nothing is excluded.
        usual: By default.
        strict: Near duplicates are excluded too.
    """

    source: Path
    copies: dict[str, str]
    whole: BuiltDataset
    usual: BuiltDataset
    strict: BuiltDataset


@pytest.fixture(scope="module")
def alike(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Alike:
    folder = tmp_path_factory.mktemp("alike")
    source, copies = copy(clean, folder / "source"), {}
    where = {key: part.partition("-")[0] for part, keys in divide(names(clean)).items() for key in keys}
    for split in ("train", "val", "test"):
        original = next(key for key, s in where.items() if s == split)
        with Image.open(source / original) as image:
            for name, side in [(f"again-{split}", None), *((f"near-{split}-{n}", n) for n in (96, 104, 112))]:
                copies[f"{name}.jpg"] = original
                (source / f"{name}.txt").write_text("a texture")
                if side is None:
                    (source / f"{name}.jpg").write_bytes((source / original).read_bytes())
                else:
                    smaller = image.resize((side, side), Image.Resampling.LANCZOS)
                    smaller.save(source / f"{name}.jpg", quality=80)
    return Alike(
        source,
        copies,
        whole=build(source, folder / "whole", "--report", "leakage,exact_duplicate"),
        usual=build(source, folder / "usual"),
        strict=build(source, folder / "strict", "--drop", "near_duplicate"),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jpg"))


def test_of_pictures_alike_the_one_in_test_stays_then_val_then_the_first(alike: Alike) -> None:
    where, left = split_of(alike.whole), split_of(alike.strict)
    for original in {*alike.copies.values()}:
        group = [original, *(copy for copy, of in alike.copies.items() if of == original)]
        (stays,) = [key for key in group if key in left]
        assert where[stays] == min((where[key] for key in group), key=("test", "val", "train").index)
    excluded = alike.strict.manifest.excluded
    assert sorted({*where} - {*left}) == sorted(excluded)
    for key, entry in excluded.items():
        assert (entry["check"] == "leakage") == (where[key] != where[entry["like"]])
        assert entry["split"] == where[key]
    assert {entry["check"] for entry in excluded.values()} >= {"leakage", "near_duplicate"}


def test_what_is_only_reported_is_named_and_read(alike: Alike) -> None:
    hygiene = alike.whole.manifest.hygiene
    assert hygiene is not None
    assert hygiene["excluded"] == {}
    assert len(hygiene["reported"]) == len(alike.copies)
    assert len(split_of(alike.whole)) == 40 + len(alike.copies)


def test_near_duplicates_within_a_split_are_only_counted_by_default(alike: Alike) -> None:
    near = counts(alike.usual)["reported"]["near_duplicate"]
    assert near > 0
    assert len(alike.strict.manifest.excluded) == len(alike.usual.manifest.excluded) + near
    assert len({d.manifest.fingerprint for d in (alike.whole, alike.usual, alike.strict)}) == 3


def test_every_reader_leaves_out_what_is_excluded_and_shards_stay_as_they_are(alike: Alike) -> None:
    excluded = alike.strict.manifest.excluded
    assert [c["num_ok"] for c in alike.strict.manifest.shards] == [c["num_ok"] for c in alike.whole.manifest.shards]
    for split in ("train", "val", "test"):
        rows = list(alike.strict.rows(split, ["caption"]))
        assert len(rows) == alike.strict.manifest.num_rows[split]
        assert all(set(row) == {"caption"} for row in rows)
        out = sum(entry["split"] == split for entry in excluded.values())
        assert len(rows) == alike.whole.manifest.num_rows[split] - out
        assert not set(load_reference(alike.strict, split, "canny", None).keys) & set(excluded)


def test_a_whole_dataset_with_exclusions_is_whole_and_one_with_another_list_is_not(
    alike: Alike, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(alike.strict.folder, tmp_path / "forged"))
    assert main(["--verify", str(folder), "--deep", "--recompute", "1"]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["hygiene"]["excluded"].popitem()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["--verify", str(folder)]) == 2  # no reader opens it


def test_training_reads_the_latents_of_the_rows_it_names(alike: Alike, tmp_path: Path) -> None:
    dataset = alike.strict
    assert "train" in {entry["split"] for entry in dataset.manifest.excluded.values()}
    base = load_base("scenes-tiny", "cpu")
    form = train.Train(dataset=dataset.folder, cond="canny", steps=1, batch=4, cache=tmp_path / "cache")
    condition = remake(Condition, dataset.condition("canny"))
    data = train.load_data(base, dataset, condition, form)
    assert len(data) == dataset.manifest.num_rows["train"]
    rows = list(dataset.rows("train", ["key", "image", "cond_canny"]))
    expected = encode_moments(base, np.stack([decode_rgb(row["image"]["bytes"]) for row in rows]), "test")
    shown = [condition.render(condition.decode(row["cond_canny"]["bytes"]), SIDE) for row in rows]
    found, every = [], np.arange(len(data))
    for moments, image in zip(data.moments[torch.from_numpy(every)], data.images[every], strict=True):
        (place,) = [i for i, one in enumerate(shown) if (one == image).all()]
        np.testing.assert_allclose(moments, expected[place], atol=1e-4)
        found.append(place)
    assert sorted(found) == list(range(len(rows)))


def test_the_card_counts_what_was_left_out(alike: Alike) -> None:
    text = (alike.usual.folder / "README.md").read_text()
    assert f"| leakage | 0 | {counts(alike.usual)['excluded']['leakage']} | 0 |" in text


def test_growing_changes_no_verdict(alike: Alike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.contracts.splitting.PART", 10)
    small = build(alike.source, tmp_path / "out", "--drop", "near_duplicate", "--size", "10")
    rows = [row["key"] for row in small.rows("train", ["key"])]
    large = build(alike.source, tmp_path / "out", "--drop", "near_duplicate", "--size", "1k")
    assert small.manifest.excluded.items() < large.manifest.excluded.items()
    assert [row["key"] for row in large.rows("train", ["key"])][: len(rows)] == rows
    assert large.manifest.excluded == alike.strict.manifest.excluded


def test_a_size_is_reached_by_rows_that_are_read(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.contracts.splitting.PART", 5)
    source = copy(clean, tmp_path / "source")
    for i in range(30):
        save(source / f"same{i:02d}.jpg", texture(0))
    plain = build(source, tmp_path / "plain", "--report", "exact_duplicate,leakage", "--size", "12")
    assert 12 <= plain.manifest.num_rows["train"] < 17
    dataset = build(source, tmp_path / "out", "--size", "12")
    assert 12 <= dataset.manifest.num_rows["train"] < 17
    assert len(dataset.manifest.shards) > len(plain.manifest.shards)


def test_scenes_are_exact_and_checked_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.sources.scenes._TRAIN_PART", 8)
    assert make_plan(Build(cond=("seg",))).hygiene is None
    assert "hygiene" not in make_plan(Build(cond=("seg",))).record()
    asked = make_plan(Build(cond=("seg",), report=("blur",)))
    assert asked.hygiene is not None
    words = ["--cond", "seg", "--source", "scenes,val=8,test=8", "--size", "1", "--workers", "1", "--report", "blur"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert next(BuiltDataset.open(tmp_path / "out").rows("val", ["jpeg_quality"])) == {"jpeg_quality": None}


def test_no_hygiene_is_the_plan_of_old_and_another_choice_is_another_plan(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = build(clean, tmp_path / "out", "--no-hygiene")
    assert "hygiene" not in json.loads((old.folder / "plan.json").read_text())
    assert "hygiene" not in json.loads((old.folder / "manifest.json").read_text())
    capsys.readouterr()
    build(clean, tmp_path / "out", code=2)
    assert "holds another plan (hygiene" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--drop blurr", 'no check "blurr"; did you mean "blur"?'),
        ("--drop blur --report blur", "the check blur is named twice"),
        ("--drop missing_caption=3", "the check missing_caption has no limit"),
        ("--drop blur=much", 'blur="much" is no limit; give a number from 0'),
        ("--drop blur=-1", "is no limit"),
        ("--drop blur=nan", "is no limit"),
        ("--drop near_duplicate=9", "give a whole number from 0 to 8"),
        ("--drop near_duplicate=1.5", "give a whole number from 0 to 8"),
        ("--drop blur --no-hygiene", "--no-hygiene and --drop or --report exclude each other"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cond", "seg", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
