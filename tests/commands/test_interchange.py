"""A checkpoint of ours is one of theirs: diffusers loads it, and its pipeline draws the same pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from PIL import Image

from benchmark import generate, train
from benchmark.conditions.seg import Seg
from benchmark.engine.bases import BUNDLED, load_base
from benchmark.engine.checkpoints import newest_checkpoint
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.diffusion import initial_latents
from benchmark.engine.imagesets import Reference, load_reference, read_images

COUNT, STEPS, SEED = 3, 4, 5


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two updates at a rate so large that its control shows."""
    folder = tmp_path_factory.mktemp("interchange") / "run"
    words = ["--dataset", str(tiny_dataset), "--steps", "2", "--batch", "4", "--learning-rate", "1e-2"]
    cache = tiny_dataset.parent / "latents"
    assert train.main([*words, "--out", str(folder), "--cache", str(cache), "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="module")
def reference(tiny_dataset: Path) -> Reference:
    return load_reference(BuiltDataset.open(tiny_dataset), "test", "seg", COUNT)


def draw(dataset: Path, out: Path, *control: str) -> int:
    words = [
        "--dataset",
        str(dataset),
        "--out",
        str(out),
        "--limit",
        str(COUNT),
        "--batch",
        str(COUNT),
        "--device",
        "cpu",
    ]
    return generate.main([*words, "--num-inference-steps", str(STEPS), "--seed", str(SEED), *control])


@pytest.fixture(scope="module")
def ours(tiny_dataset: Path, run: Path, reference: Reference) -> NDArray[np.uint8]:
    out = run.parent / "ours"
    assert draw(tiny_dataset, out, "--run", str(run)) == 0
    return read_images(out, reference.keys, 64)


def test_diffusers_loads_a_checkpoint_without_missing_or_unexpected_weights(run: Path) -> None:
    net, report = ControlNetModel.from_pretrained(
        newest_checkpoint(run), output_loading_info=True, use_safetensors=True
    )
    assert not any(report.values())
    assert bool(net.controlnet_mid_block.weight.any())


def test_diffusers_loads_the_base_folder_in_one_precision_without_being_told() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        BUNDLED["scenes-tiny"], safety_checker=None, requires_safety_checker=False
    )
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}


def test_a_diffusers_pipeline_draws_the_same_images(run: Path, reference: Reference, ours: NDArray[np.uint8]) -> None:
    base = load_base("scenes-tiny", "cpu")
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        BUNDLED["scenes-tiny"],
        controlnet=ControlNetModel.from_pretrained(newest_checkpoint(run)),
        torch_dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
    )
    assert isinstance(pipeline.scheduler, UniPCMultistepScheduler)
    pipeline.set_progress_bar_config(disable=True)
    conditioning = [Image.fromarray(Seg().render(Seg().decode(map_), 64)) for map_ in reference.maps]
    theirs = pipeline(
        list(reference.captions),
        image=conditioning,
        latents=initial_latents(base, 64, reference.keys, SEED),
        num_inference_steps=STEPS,
        guidance_scale=base.guidance_scale,
    ).images
    difference = np.stack([np.asarray(image) for image in theirs]).astype(int) - ours
    assert np.abs(difference).max() <= 1


def test_the_control_compared_above_is_not_idle(
    tiny_dataset: Path, reference: Reference, ours: NDArray[np.uint8], run: Path
) -> None:
    out = run.parent / "alone"
    assert draw(tiny_dataset, out) == 0
    alone = read_images(out, reference.keys, 64)
    assert (np.abs(alone.astype(int) - ours).mean(axis=(1, 2, 3)) > 3).all()


def test_a_checkpoint_given_as_a_controlnet_draws_the_images_of_its_run(
    tiny_dataset: Path, run: Path, reference: Reference, ours: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert draw(tiny_dataset, tmp_path / "images", "--controlnet", str(newest_checkpoint(run)), "--cond", "seg") == 0
    assert (read_images(tmp_path / "images", reference.keys, 64) == ours).all()


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_controlnet_that_cannot_be_loaded_is_one_line(
    tiny_dataset: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folder = tmp_path / "released"
    folder.mkdir()
    if damage == "cut":
        ControlNetModel.from_pretrained(newest_checkpoint(run)).save_pretrained(folder)
        os.truncate(folder / "diffusion_pytorch_model.safetensors", 1000)
    capsys.readouterr()
    assert draw(tiny_dataset, tmp_path / "images", "--controlnet", str(folder), "--cond", "seg") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("generate: ")
    assert str(folder) in error


def test_training_changed_the_copy_as_well_as_its_outputs(run: Path) -> None:
    """Guards the comparison above: what is exchanged is more than 13 convolutions."""
    base = load_base("scenes-tiny", "cpu")
    net = ControlNetModel.from_pretrained(newest_checkpoint(run))
    assert not torch.equal(net.mid_block.resnets[0].conv1.weight, base.unet.mid_block.resnets[0].conv1.weight)
