"""Small data sets in the layouts of those people use: the same columns, types and codings, made by code."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Sequence, Value
from numpy.typing import NDArray
from PIL import Image as Picture

from benchmark.conditions._palettes import PALETTES

COUNT, HEIGHT, WIDTH = 12, 40, 56
ROAD, SKYSCRAPER = 6, 48  # one colour in ADE20K's palette


@pytest.fixture(scope="session")
def layouts() -> Any:
    """Return this file: what follows makes the data sets."""
    return sys.modules[__name__]


def coded(array: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def photo(i: int) -> NDArray[np.uint8]:
    """A smooth picture: what a JPEG keeps."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 4 + i, columns * 3, rows + columns + 5 * i], axis=-1).astype(np.uint8)


def labels(i: int, count: int) -> NDArray[np.uint8]:
    """Label numbers 0 to count - 1 in blocks of 4 x 4 pixels; no road, which shares its colour."""
    draws = np.random.default_rng(i).integers(0, count, (HEIGHT // 4, WIDTH // 4))
    return np.kron(draws, np.ones((4, 4), np.int64)).astype(np.uint8)


def ade_ids(i: int) -> NDArray[np.uint8]:
    """Class ids 0 to 149, and 150 for unlabelled, of sample i; road and skyscraper left out."""
    ids = labels(i, 151)
    ids[(ids == ROAD) | (ids == SKYSCRAPER)] = 150
    return ids


def circle(i: int, side: int = 64) -> NDArray[np.uint8]:
    """The outline of a circle with soft edges, white on black, RGB."""
    rows, columns = np.mgrid[:side, :side]
    ring = np.abs(np.hypot(rows - side / 2, columns - side / 2) - 8 - i)
    return np.repeat(np.clip(255 * (1.5 - ring), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def inverse_depth(i: int) -> NDArray[np.uint8]:
    """Every level of grey from black to white, in RGB, as depth pictures are stored."""
    grey = np.linspace(0, 255, HEIGHT * WIDTH).round().astype(np.uint8).reshape(HEIGHT, WIDTH)
    return np.repeat(np.roll(grey, 3 * i, axis=1)[..., None], 3, axis=2)


def captioned_ade20k() -> Dataset:
    """Columns of limingcv/Captioned_ADE20K; `seg_map` numbers the classes from 1, 0 is unlabelled."""
    colours = PALETTES["ade20k"].colours
    ids = [ade_ids(i) for i in range(COUNT)]
    return Dataset.from_dict(
        {
            "image": [_cell(coded(photo(i), "JPEG", quality=90)) for i in range(COUNT)],
            "detailed_prompt": [f"a long text about scene {i}" for i in range(COUNT)],
            "control_seg": [_cell(coded(colours[x])) for x in ids],
            "seg_map": [np.where(x == 150, 0, x + 1).tolist() for x in ids],
            "image_path": [f"{i}.jpg" for i in range(COUNT)],
            "prompt": [f"scene {i}" for i in range(COUNT)],
        },
        features=Features(
            {
                "image": Image(),
                "detailed_prompt": Value("string"),
                "control_seg": Image(),
                "seg_map": Sequence(Sequence(Value("uint8"))),
                "image_path": Value("string"),
                "prompt": Value("string"),
            }
        ),
    )


def captioned_cocostuff() -> Dataset:
    """Columns of limingcv/Captioned_COCOStuff; `semantic_seg_map` holds label numbers, 255 is unlabelled."""
    maps = [np.where(labels(i, 183) == 182, 255, labels(i, 183)) for i in range(COUNT)]
    return Dataset.from_dict(
        {
            "image": [_cell(coded(photo(i), "JPEG", quality=90)) for i in range(COUNT)],
            "control_seg": [_cell(coded(photo(i))) for i in range(COUNT)],
            "prompt": [f"scene {i}" for i in range(COUNT)],
            "semantic_seg_map": [x.tolist() for x in maps],
            "panoptic_seg_map": [x.tolist() for x in maps],
            "image_path": [f"{i}.jpg" for i in range(COUNT)],
        },
        features=Features(
            {
                "image": Image(),
                "control_seg": Image(),
                "prompt": Value("string"),
                "semantic_seg_map": Sequence(Sequence(Value("uint8"))),
                "panoptic_seg_map": Sequence(Sequence(Value("uint8"))),
                "image_path": Value("string"),
            }
        ),
    )


def fill50k() -> Dataset:
    """Columns of fusing/fill50k: the outline of a circle, and the circle filled."""
    outlines = [circle(i) for i in range(COUNT)]
    return _three("conditioning_image", [255 - outline for outline in outlines], outlines, "PNG")


def multigen_depth() -> Dataset:
    """Columns of limingcv/MultiGen-20M_depth: 8-bit grey pictures of depth in RGB."""
    rows = range(COUNT)
    return _three("control_depth", [photo(i) for i in rows], [inverse_depth(i) for i in rows], "JPEG")


def _three(column: str, images: list[NDArray[Any]], maps: list[NDArray[Any]], kind: str) -> Dataset:
    rows = {
        "image": [_cell(coded(image, kind)) for image in images],
        column: [_cell(coded(map_)) for map_ in maps],
        "text": [f"scene {i}" for i in range(len(images))],
    }
    return Dataset.from_dict(rows, features=Features({"image": Image(), column: Image(), "text": Value("string")}))


def repository(data: Dataset, folder: Path, *, converted: bool = False) -> Path:
    """A dataset as the Hub keeps it: below data/, or in folders of splits as on its converted branch."""
    file = folder / ("default/train/0000.parquet" if converted else "data/train-00000-of-00001.parquet")
    file.parent.mkdir(parents=True)
    data.to_parquet(file)
    return folder


def saved(data: Dataset, folder: Path) -> Path:
    DatasetDict({"train": data}).save_to_disk(folder)
    return folder


def img2dataset_tars(folder: Path) -> Path:
    """Tars as img2dataset writes them: a jpg, a txt and a json member for each sample."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for i in range(COUNT):
            fields = {"caption": f"scene {i}", "url": f"nowhere/{i}.jpg", "key": f"{i:09d}", "status": "success"}
            members = {"jpg": coded(photo(i), "JPEG"), "txt": fields["caption"].encode(), "json": _json(fields)}
            _add(archive, f"{i:09d}", members)
    return folder


def tar_with_maps(folder: Path) -> Path:
    """A tar of pictures, each with its label map in a member of its own."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for i in range(COUNT):
            members = {"jpg": coded(photo(i), "JPEG"), "seg.png": coded(labels(i, 7)), "txt": f"scene {i}".encode()}
            _add(archive, f"{i:04d}", members)
    return folder


def _add(archive: tarfile.TarFile, key: str, members: dict[str, bytes]) -> None:
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


def _json(fields: dict[str, str]) -> bytes:
    return json.dumps(fields).encode()


def _cell(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}
