"""What many tests share: no network, real photographs, and one small dataset built once."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: before anything below
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: the workers share the cores

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmark import build
from benchmark.engine.bases import Base, load_base


def _photographs() -> list[NDArray[np.uint8]]:
    """Return twelve photographs that come with the installed packages, colour and grey."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    colour = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.hubble_deep_field(), data.retina()]
    others = [data.stereo_motorcycle()[0], data.immunohistochemistry(), data.camera(), data.moon()]
    return [*colour, *others, *load_sample_images().images]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 crops, wide and tall, 12 JPEG and 12 PNG, half of them in a subfolder; not to be changed."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    (folder / "more").mkdir(parents=True)
    for i, picture in enumerate(_photographs()):
        Image.fromarray(picture[:200, :280]).save(folder / f"wide-{i:02d}.jpg", quality=90)
        Image.fromarray(picture[-280:, -200:]).save(folder / "more" / f"tall-{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of scenes with seg and canny: 500 train, 8 val, 24 test at 64 pixels; not to be changed."""
    folder = tmp_path_factory.mktemp("datasets") / "tiny"
    words = ["--cond", "seg", "--cond", "canny", "--source", "scenes,val=8,test=24", "--size", "500"]
    assert build.main([*words, "--workers", "1", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def base() -> Base:
    """Return the bundled base; tests must leave it as it is."""
    return load_base("scenes-tiny", "cpu")
