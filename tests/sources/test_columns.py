"""Condition columns of real layouts, from the files to the maps that a build stores."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value, load_dataset
from numpy.typing import NDArray
from PIL import Image as Picture

from benchmark import build, registry
from benchmark.base.errors import UserError
from benchmark.base.images import decode_rgb
from benchmark.conditions._palettes import PALETTES
from benchmark.contracts.plugins import Annotator, Condition, Map, Source
from benchmark.engine.datasets import BuiltDataset
from benchmark.scenes.palette import SEG_COLOURS

SEG_RGB = np.array(SEG_COLOURS)
SIDE = 40  # the shorter side of the pictures: they are cropped, not scaled


def built(words: str, out: Path, resolution: int = SIDE) -> BuiltDataset:
    """Build without checks: the pictures of these sets are much alike."""
    options = ["--resolution", str(resolution), "--workers", "1", "--no-hygiene", "--out", str(out)]
    assert build.main([*words.split(), *options]) == 0
    return BuiltDataset.open(out)


def stored(dataset: BuiltDataset, name: str, key: str = "caption") -> dict[str, NDArray[Any]]:
    """The stored maps of every split, by caption."""
    condition = registry.remake(Condition, dataset.condition(name))
    rows = (row for split in ("train", "val", "test") for row in dataset.rows(split, [key, f"cond_{name}"]))
    return {row[key]: condition.decode(row[f"cond_{name}"]["bytes"]).array for row in rows}


def centre(array: NDArray[Any]) -> NDArray[Any]:
    """The square in the middle of a wide picture."""
    left = (array.shape[1] - array.shape[0]) // 2
    return array[:, left : left + array.shape[0]]


@pytest.mark.parametrize("column", ["control_seg", "seg_map,first_label=1"])
@pytest.mark.parametrize("source", ["hub", "saved", "parquet"])
def test_captioned_ade20k_gives_its_class_ids(source: str, column: str, layouts: Any, tmp_path: Path) -> None:
    keep = layouts.saved if source == "saved" else layouts.repository
    folder = keep(layouts.captioned_ade20k(), tmp_path / "data")
    spec = f"parquet:{folder}/data" if source == "parquet" else f"hub:{folder}"
    dataset = built(
        f"--cond seg,palette=ade20k --source {spec},caption=prompt --annotator column:{column}", tmp_path / "out"
    )
    maps = stored(dataset, "seg")
    assert len(maps) == layouts.COUNT
    for i in range(layouts.COUNT):
        assert np.array_equal(maps[f"scene {i}"], centre(layouts.ade_ids(i)))
    assert build.verify(dataset.folder, 1.0) == []


def test_the_shared_colour_of_two_classes_is_an_error_and_label_numbers_are_not(layouts: Any, tmp_path: Path) -> None:
    data = layouts.captioned_ade20k()
    ids = np.full((layouts.HEIGHT, layouts.WIDTH), layouts.SKYSCRAPER, np.uint8)
    colours = PALETTES["ade20k"].colours
    row = {**data[0], "control_seg": layouts._cell(layouts.coded(colours[ids])), "seg_map": (ids + 1).tolist()}
    row = {**row, "image": layouts._cell(layouts.coded(layouts.photo(0))), "prompt": "a tower"}
    folder = layouts.repository(Dataset.from_list([*data, row], features=data.features), tmp_path / "data")
    words = f"--cond seg,palette=ade20k --source hub:{folder},caption=prompt"
    dataset = built(f"{words} --annotator column:control_seg --max-failed 1", tmp_path / "a")
    (reason,) = dataset.manifest.failed.values()
    assert reason == (
        "column control_seg: 2240 pixels of (140, 140, 140), which classes 6 and 48 of palette ade20k share; "
        "give a column of label numbers"
    )
    dataset = built(f"{words} --annotator column:seg_map,first_label=1", tmp_path / "b")
    assert (stored(dataset, "seg")["a tower"] == 48).all()


def test_fill50k_keeps_every_level_of_its_outlines(layouts: Any, tmp_path: Path) -> None:
    folder = layouts.repository(layouts.fill50k(), tmp_path / "data", converted=True)
    words = f"--cond softedge --source hub:{folder} --annotator column:conditioning_image"
    dataset = built(words, tmp_path / "out", resolution=64)
    condition = registry.make(Condition, "softedge")
    for i, map_ in ((i, stored(dataset, "softedge")[f"scene {i}"]) for i in range(layouts.COUNT)):
        assert np.array_equal(condition.render(Map(map_), 64), layouts.circle(i))


def test_multigen_depth_is_shown_again_level_by_level(layouts: Any, tmp_path: Path) -> None:
    folder = layouts.repository(layouts.multigen_depth(), tmp_path / "data")
    words = f"--cond relative_depth --source hub:{folder} --annotator column:control_depth"
    dataset, condition = built(words, tmp_path / "out"), registry.make(Condition, "relative_depth")
    for i in range(layouts.COUNT):
        inverse = stored(dataset, "relative_depth")[f"scene {i}"]
        grey = centre(layouts.inverse_depth(i)).astype(int)
        assert (np.diff(inverse.ravel()[np.argsort(grey[..., 0].ravel(), kind="stable")]) >= 0).all()
        low, high = grey.min(), grey.max()
        stretched = np.rint(255 * (grey - low) / (high - low))
        assert np.abs(condition.render(Map(inverse), SIDE).astype(int) - stretched).max() <= 1


def test_a_member_of_a_tar_is_a_column(layouts: Any, tmp_path: Path) -> None:
    folder = layouts.tar_with_maps(tmp_path / "tars")
    dataset = built(f"--cond seg --source webdataset:{folder} --annotator column:seg.png", tmp_path / "out")
    for i in range(layouts.COUNT):
        assert np.array_equal(stored(dataset, "seg")[f"scene {i}"], centre(layouts.labels(i, 7)))


@pytest.mark.parametrize("resolution", [24, 40, 96])
def test_image_and_map_share_one_transform_that_is_recorded(resolution: int, layouts: Any, tmp_path: Path) -> None:
    """The picture shows its own label map: inside a patch its colour must lie where its label lies."""
    ids = [np.kron(layouts.labels(i, 7)[::8, ::8], np.ones((8, 8), np.uint8)) for i in range(layouts.COUNT)]
    condition = registry.make(Condition, "seg")
    rows = {
        "image": [layouts._cell(layouts.coded(SEG_RGB[x].astype(np.uint8))) for x in ids],
        "label": [layouts._cell(layouts.coded(x)) for x in ids],
        "text": [f"scene {i}" for i in range(layouts.COUNT)],
    }
    data = Dataset.from_dict(rows, features=Features({"image": Image(), "label": Image(), "text": Value("string")}))
    folder = layouts.repository(data, tmp_path / "data")
    dataset = built(f"--cond seg --source hub:{folder} --annotator column:label", tmp_path / "out", resolution)
    for row in dataset.rows("train", ["image", "cond_seg", "tags"]):
        map_ = condition.decode(row["cond_seg"]["bytes"]).array
        picture = decode_rgb(row["image"]["bytes"]).astype(int)
        inside = cv2.dilate(map_.astype(np.uint8), np.ones((3, 3))) == cv2.erode(map_.astype(np.uint8), np.ones((3, 3)))
        assert inside.mean() > 0.2
        assert (np.abs(picture - SEG_RGB[map_])[inside].max(axis=-1) < 60).mean() > 0.97
        assert (np.abs(picture - SEG_RGB[map_.T])[inside].max(axis=-1) < 60).mean() < 0.8
        done = json.loads(row["tags"])["transform"]
        assert (done["height"], done["width"]) == ids[0].shape
        scaled = round(56 * resolution / 40)
        assert (done["scaled_height"], done["top"]) == (resolution, 0)
        assert (done["scaled_width"], done["left"]) == (scaled, (scaled - resolution) // 2)


def test_a_build_without_columns_records_no_transform(photos: Path, tmp_path: Path) -> None:
    dataset = built(f"--cond canny --source folder:{photos}", tmp_path / "out")
    assert {row["tags"] for row in dataset.rows("train", ["tags"])} == {"{}"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seg_map": [[1, 2], [3]]}, "no map of labels"),
        ({"seg_map": [[1, 2], [3, 4]]}, "2 x 2 pixels, where the image has 40 x 56"),
        ({"seg_map": None}, "column seg_map: empty"),
        ({"seg_map": [[151] * 56] * 40}, "2240 pixels of labels beyond the 150 classes of palette ade20k"),
    ],
)
def test_a_map_that_does_not_fit_fails_its_row_alone(
    change: dict[str, Any], told: str, layouts: Any, tmp_path: Path
) -> None:
    data = layouts.captioned_ade20k()
    rows = [{**row, **(change if i == 11 else {})} for i, row in enumerate(data.cast_column("image", Image(False)))]
    rows = [{**row, "control_seg": None} for row in rows]
    folder = layouts.repository(Dataset.from_list(rows, features=data.features), tmp_path / "data")
    words = f"--cond seg,palette=ade20k --source hub:{folder} --annotator column:seg_map,first_label=1 --max-failed 1"
    dataset = built(words, tmp_path / "out")
    (reason,) = dataset.manifest.failed.values()
    assert told in reason
    assert sum(dataset.manifest.num_rows.values()) == layouts.COUNT - 1


def test_a_map_of_an_image_stored_rotated_is_refused(layouts: Any, tmp_path: Path) -> None:
    data = layouts.captioned_ade20k().cast_column("image", Image(decode=False))
    exif = Picture.Exif()
    exif[0x0112] = 3
    turned = layouts.coded(np.flip(layouts.photo(0), (0, 1)), "JPEG", exif=exif.tobytes())
    rows = [{**row, **({"image": layouts._cell(turned)} if i == 11 else {})} for i, row in enumerate(data)]
    features = Features({**data.features, "image": Image()})
    folder = layouts.repository(Dataset.from_list(rows, features=features), tmp_path / "data")
    words = f"--cond seg,palette=ade20k --source hub:{folder} --annotator column:seg_map,first_label=1 --max-failed 1"
    (reason,) = built(words, tmp_path / "out").manifest.failed.values()
    assert reason == "column seg_map: the image is stored rotated (EXIF orientation 3), its map otherwise"


def test_a_missing_column_is_answered_with_the_one_meant(
    layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layouts.repository(layouts.fill50k(), tmp_path / "data")
    words = ["--cond", "softedge", "--source", f"hub:{folder}", "--annotator", "column:conditioning_imag"]
    assert build.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert 'no column "conditioning_imag"; did you mean "conditioning_image"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert build.main(["--cond", "seg", "--annotator", "column:x"]) == 2
    assert 'the source scenes has no column "x"; allowed: none' in capsys.readouterr().err


def test_a_column_reads_no_generated_image() -> None:
    column = registry.make(Annotator, "column:control_seg")
    with pytest.raises(UserError, match="copies maps from a source and reads no image"):
        column.annotate(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="for --annotator of build alone"):
        _ = column.condition


def imagefolder(folder: Path, layouts: Any, change: dict[int, dict[str, Any]] | None = None) -> Path:
    """An imagefolder with a picture of label numbers for each image, named by `metadata.jsonl`."""
    (folder / "maps").mkdir(parents=True)
    lines = []
    for i in range(layouts.COUNT):
        (folder / f"{i}.png").write_bytes(layouts.coded(layouts.photo(i)))
        (folder / f"maps/{i}.png").write_bytes(layouts.coded(layouts.labels(i, 7)))
        line = {"file_name": f"{i}.png", "label_file_name": f"maps/{i}.png", "text": f"scene {i}"}
        lines.append({**line, **(change or {}).get(i, {})})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_pictures_that_metadata_names_are_a_column_of_a_folder(layouts: Any, tmp_path: Path) -> None:
    folder = imagefolder(tmp_path / "data", layouts)
    dataset = built(f"--cond seg --source folder:{folder} --annotator column:label", tmp_path / "out")
    maps = stored(dataset, "seg")
    assert len(maps) == layouts.COUNT
    for i in range(layouts.COUNT):
        assert np.array_equal(maps[f"scene {i}"], centre(layouts.labels(i, 7)))
    assert build.verify(dataset.folder, 1.0) == []


def test_the_library_sees_the_same_column(layouts: Any, tmp_path: Path) -> None:
    folder = imagefolder(tmp_path / "data", layouts)
    rows = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="train")
    assert rows.column_names == ["image", "label", "text"]
    assert registry.make(Source, f"folder:{folder}").columns() == ["label"]
    for row in rows:
        assert np.array_equal(np.asarray(row["label"]), layouts.labels(int(row["text"].split()[1]), 7))


def test_an_exported_dataset_is_built_again_from_its_folder(layouts: Any, tmp_path: Path) -> None:
    folder = imagefolder(tmp_path / "data", layouts)
    first = built(f"--cond seg --source folder:{folder} --annotator column:label", tmp_path / "first")
    assert build.main(["--export", f"imagefolder:{first.folder}", "--out", str(tmp_path / "exported")]) == 0
    words = f"--cond seg --source folder:{tmp_path / 'exported'} --annotator column:cond_seg"
    maps = stored(built(words, tmp_path / "again"), "seg")
    assert len(maps) == layouts.COUNT
    assert all(np.array_equal(maps[caption], array) for caption, array in stored(first, "seg").items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label_file_name": None}, "column label: empty"),
        ({"label_file_name": "../elsewhere.png"}, "cannot be read (../elsewhere.png is no image of the folder)"),
        ({"label_file_name": "maps/none.png"}, "cannot be read (maps/none.png is no image of the folder)"),
        ({"label_file_name": "maps/5.png"}, "column label: 8 x 8 pixels, where the image has 40 x 56"),
    ],
)
def test_a_picture_that_is_no_map_of_its_image_fails_its_row_alone(
    change: dict[str, Any], told: str, layouts: Any, tmp_path: Path
) -> None:
    kept = {"other_file_name": "maps/5.png"}  # what no line names would be a row of its own
    folder = imagefolder(tmp_path / "data", layouts, {4: kept, 5: change})
    for path in (folder / "maps/5.png", tmp_path / "elsewhere.png"):
        path.write_bytes(layouts.coded(np.zeros((8, 8), np.uint8)))
    dataset = built(f"--cond seg --source folder:{folder} --annotator column:label --max-failed 1", tmp_path / "out")
    assert dataset.manifest.failed == {"5.png": told}


def test_a_changed_map_of_a_folder_is_another_plan_only_where_it_is_used(layouts: Any, tmp_path: Path) -> None:
    folder = imagefolder(tmp_path / "data", layouts)
    with_maps = build.Build(cond=("seg",), annotator=("column:label",), source=f"folder:{folder}")
    without = build.Build(cond=("canny",), source=f"folder:{folder}")
    before = [build.make_plan(form) for form in (with_maps, without)]
    assert set(before[1].source_identity) == {"num_images", "content_sha256"}
    (folder / "maps/3.png").write_bytes(layouts.coded(layouts.labels(99, 7)))
    after = [build.make_plan(form) for form in (with_maps, without)]
    assert [a.hash == b.hash for a, b in zip(after, before, strict=True)] == [False, True]
