"""Several images of one condition: the first is the one that is made alone, and all of them are one sample."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from benchmark import evaluate, generate, registry
from benchmark.base.files import sha256
from benchmark.contracts.plugins import Method
from benchmark.engine.bases import Base
from benchmark.engine.imagesets import read_config
from benchmark.engine.records import read_record

_N, _EACH = 5, 3


@pytest.fixture(scope="module")
def control(base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ControlNet whose convolutions are drawn, so that what it adds is seen."""
    folder, method = tmp_path_factory.mktemp("control") / "drawn", registry.make(Method, "controlnet,init=gaussian")
    method.save(method.build(base.unet, base.latent_scale), folder)
    return str(folder)


def draw(dataset: Path, out: Path, *more: str) -> int:
    words = ["--dataset", str(dataset), "--limit", str(_N), "--num-inference-steps", "2", "--batch", "4"]
    return generate.main([*words, "--device", "cpu", "--out", str(out), *more])


def hashes(folder: Path) -> dict[str, str]:
    return {path.stem: sha256(path.read_bytes()) for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def images(control: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `one`, an image of each sample, and `some`, several."""
    folder, words = tmp_path_factory.mktemp("images"), ["--controlnet", control, "--cond", "seg"]
    assert draw(tiny_dataset, folder / "one", *words) == 0
    assert draw(tiny_dataset, folder / "some", *words, "--num-images-per-condition", str(_EACH)) == 0
    return folder


def test_the_first_image_is_the_one_that_is_made_alone_and_the_others_are_others(images: Path) -> None:
    one, some = hashes(images / "one"), hashes(images / "some")
    assert some.keys() == {f"{key}_{i}" for key in one for i in range(_EACH)}
    assert {key: some[f"{key}_0"] for key in one} == one
    assert len(set(some.values())) == _N * _EACH


def test_one_image_is_described_as_it_always_was(images: Path) -> None:
    one, some = (read_config(images / name)["sampling"] for name in ("one", "some"))
    assert some == {**one, "num_images_per_condition": _EACH}


def test_what_is_missing_is_made_again_to_the_same_bits(images: Path, control: str, tiny_dataset: Path) -> None:
    before = hashes(images / "some")
    for name in sorted(before)[3:6]:
        (images / "some" / f"{name}.png").unlink()
    words = ["--controlnet", control, "--cond", "seg", "--num-images-per-condition", str(_EACH)]
    assert draw(tiny_dataset, images / "some", *words) == 0
    assert hashes(images / "some") == before


def test_they_are_scored_as_samples_against_a_floor_of_as_many(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", str(images / "some"), "--metric", "clip_score", "--results", str(tmp_path)]
    words += ["--cache", str(tmp_path)]
    assert evaluate.main(words) == 2
    command = capsys.readouterr().err.partition("python -m benchmark.generate ")[2]
    assert generate.main(shlex.split(command)) == 0
    assert evaluate.main(words) == 0
    (path,) = tmp_path.rglob("*.json")
    record = read_record(path)
    assert (record.counts.requested, record.counts.generated) == (_N * _EACH, _N * _EACH)
    (score,) = record.scores
    assert (score.n, score.definition["sets"], record.reconstruction["miou"].run.n) == (_N, _EACH, _N)
    assert record.generation["sampling"]["num_images_per_condition"] == _EACH
    assert np.isfinite(record.floor_scores[0].stderr)


def test_a_negative_prompt_is_on_record_and_the_floor_has_it_too(
    images: Path, control: str, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--controlnet", control, "--cond", "seg", "--negative-prompt", "a blue sphere"]
    assert draw(tiny_dataset, tmp_path / "away", *words) == 0
    usual, away = (read_config(folder)["sampling"] for folder in (images / "one", tmp_path / "away"))
    assert away == {**usual, "negative_prompt": "a blue sphere"}
    assert not set(hashes(images / "one").values()) & set(hashes(tmp_path / "away").values())
    assert evaluate.main(["--images", str(tmp_path / "away"), "--results", str(tmp_path)]) == 2
    assert "--negative-prompt 'a blue sphere'" in capsys.readouterr().err


def test_a_number_of_images_is_at_least_one(tiny_dataset: Path, tmp_path: Path) -> None:
    assert draw(tiny_dataset, tmp_path / "none", "--num-images-per-condition", "0") == 2
    assert not (tmp_path / "none").exists()
