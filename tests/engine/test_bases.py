"""Stable Diffusion 1.5, 2 and XL, shrunk in width: diffusers' own pipelines and losses agree with ours."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from benchmark import evaluate, generate, train
from benchmark.base.errors import UserError
from benchmark.engine import bases
from benchmark.engine.bases import Base, load_base, refuse_unfit
from benchmark.engine.controls import Summed
from benchmark.engine.diffusion import Sampling, initial_latents, loss, sample
from benchmark.methods.controlnet import Control, Controlnet
from benchmark.methods.controlnet_lite import ControlnetLite
from benchmark.methods.t2i_adapter import T2IAdapter
from tests.small_bases import TOKENS, write_base

PROMPTS = ["a large red sphere", "a small blue cube left of a cone"]
SIDE, STEPS = 64, 2
KINDS = ("sd15", "sd2", "sdxl")
# what samples each in diffusers, under our name for it; of the default of 1.5, pseudo linear multi-steps, we have none
SOLVERS = {"sd15": "ddim", "sd2": "ddim", "sdxl": "euler"}


@dataclass(frozen=True)
class Case:
    """A base on disk and loaded, and a control on it that has something to say."""

    kind: str
    folder: Path
    base: Base
    control: Control


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {kind: make_case(kind, tmp_path_factory.mktemp("bases") / kind) for kind in KINDS}


def make_case(kind: str, folder: Path) -> Case:
    base = load_base(str(write_base(kind, folder, 16)))
    torch.manual_seed(1)
    return Case(kind, folder, base, Controlnet(init="gaussian", std=0.3).build(base.unet, 8).eval())


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture
def xl(cases: dict[str, Case]) -> Case:
    return cases["sdxl"]


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def pipeline(case: Case) -> Any:
    """Return diffusers' own ControlNet pipeline of the folder."""
    kind = StableDiffusionXLControlNetPipeline if case.kind == "sdxl" else StableDiffusionControlNetPipeline
    made = kind.from_pretrained(case.folder, controlnet=case.control.controlnet)
    if case.kind == "sd15":
        made.scheduler = DDIMScheduler.from_config(made.scheduler.config)
    made.set_progress_bar_config(disable=True)
    return made


def ours(case: Case, control: torch.nn.Module | None, image: Tensor, negative: str = "") -> Tensor:
    settings = Sampling(STEPS, case.base.guidance_scale, scheduler=SOLVERS[case.kind], negative_prompt=negative)
    return sample(case.base, control, initial_latents(case.base, SIDE, ["a", "b"], 0), PROMPTS, image, settings)


@pytest.mark.parametrize("negative", ["", "worst quality, low quality"])
def test_diffusers_pipeline_draws_the_same_images(case: Case, image: Tensor, negative: str) -> None:
    theirs = pipeline(case)(
        PROMPTS,
        negative_prompt=[negative] * len(PROMPTS) if negative else None,
        image=image,
        latents=initial_latents(case.base, SIDE, ["a", "b"], 0),
        num_inference_steps=STEPS,
        guidance_scale=case.base.guidance_scale,
        output_type="pt",
    ).images
    mine = ours(case, case.control, image, negative)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
    assert negative == "" or not torch.equal(mine, ours(case, case.control, image))
    assert float((mine - ours(case, None, image)).abs().max()) > 1e-2


@torch.no_grad()
def test_the_loss_is_that_of_diffusers_training_scripts(case: Case, image: Tensor) -> None:
    """`train_controlnet.py` and `train_controlnet_sdxl.py`, with prompts encoded by the pipeline."""
    draw = torch.Generator().manual_seed(2)
    latents, noise = (torch.randn(2, 4, SIDE // 8, SIDE // 8, generator=draw) for _ in range(2))
    timesteps, made, more = torch.tensor([3, 803]), pipeline(case), {}
    if case.kind == "sdxl":
        states, _, pooled, _ = made.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
        sizes = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]]).repeat(2, 1)
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    else:
        states, _ = made.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=False)
    scheduler = DDPMScheduler.from_pretrained(case.folder, subfolder="scheduler")
    noisy = scheduler.add_noise(latents, noise, timesteps)
    down, middle = case.control.controlnet(noisy, timesteps, states, image, return_dict=False, **more)
    predicted = made.unet(
        noisy,
        timesteps,
        states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        **more,
    ).sample
    target = scheduler.get_velocity(latents, noise, timesteps) if case.kind == "sd2" else noise
    expected = float(((predicted - target) ** 2).mean())
    text = case.base.encode_text(case.base.token_ids(PROMPTS))
    assert float(loss(case.base, case.control, latents, noise, timesteps, text, image)) == pytest.approx(
        expected, rel=1e-5
    )


def test_training_moves_the_whole_control_and_nothing_of_the_base(case: Case, image: Tensor) -> None:
    control, before = Controlnet().build(case.base.unet, 8), case.base.weights_sha256
    optimizer = torch.optim.AdamW(control.parameters(), lr=1e-3)
    text = case.base.encode_text(case.base.token_ids(PROMPTS))
    latents, noise = torch.randn(2, 2, 4, SIDE // 8, SIDE // 8)
    timesteps = torch.tensor([100, 800])
    for _ in range(3):  # behind zeros one layer after the other begins to learn
        optimizer.zero_grad()
        value = loss(case.base, control, latents, noise, timesteps, text, image)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    idle = {name for name, p in control.named_parameters() if p.grad is None or not p.grad.any()}
    # the middle is one pixel here: attention to itself weighs nothing
    assert {name for name in idle if not name.startswith("controlnet.mid_block.attentions")} == set()
    assert replace(case.base).weights_sha256 == before  # counted again


@torch.no_grad()
def test_a_saved_control_comes_back_with_every_bit(case: Case, tmp_path: Path) -> None:
    Controlnet().save(case.control, tmp_path)
    assert not any(ControlNetModel.from_pretrained(tmp_path, output_loading_info=True)[1].values())
    saved, loaded = case.control.state_dict(), Controlnet().load(str(tmp_path)).state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


@torch.no_grad()
def test_other_controls_fit_every_base(case: Case, image: Tensor) -> None:
    lite = ControlnetLite().build(case.base.unet, 8)
    both = Summed([lite, case.control])
    text = case.base.encode_text(case.base.token_ids(PROMPTS))
    rest = (torch.randn(2, 4, SIDE // 8, SIDE // 8), torch.tensor([5, 9]), text)
    found = both(*rest, torch.cat([image, image], dim=1))
    assert len(found.down) == (9 if case.kind == "sdxl" else 12)
    assert torch.equal(found.middle, case.control(*rest, image).middle)  # of lite all is zero at the start


def test_xl_is_trained_drawn_and_scored_by_the_commands(xl: Case, tiny_dataset: Path, tmp_path: Path) -> None:
    data, run, images = str(tiny_dataset), str(tmp_path / "run"), str(tmp_path / "images")
    fitted = ["--base", str(xl.folder), "--steps", "2", "--batch", "2", "--num-samples", "4", "--probe-every", "0"]
    assert train.main(["--dataset", data, *fitted, "--out", run, "--cache", str(tmp_path), "--device", "cpu"]) == 0
    drawn = ["--dataset", data, "--num-inference-steps", "2", "--batch", "3", "--limit", "3", "--device", "cpu"]
    assert generate.main([*drawn, "--run", run, "--out", images]) == 0
    assert generate.main([*drawn, "--base", str(xl.folder), "--out", f"{images}-alone"]) == 0
    scored = ["--images", images, "--no-control", f"{images}-alone", "--metric", "diversity"]
    assert evaluate.main([*scored, "--results", str(tmp_path / "results"), "--cache", str(tmp_path)]) == 0
    (record,) = (tmp_path / "results").rglob("*.json")
    assert json.loads(record.read_text())["training"]["base"] == str(xl.folder)
    assert json.loads((tmp_path / "images" / "images.json").read_text())["config"]["sampling"]["guidance_scale"] == 5.0


def test_xl_reads_each_prompt_with_both_tokenizers(xl: Case) -> None:
    assert xl.base.tokenizer_2 is not None
    first, second = xl.base.token_ids(PROMPTS).chunk(2, dim=1)
    assert first.shape == second.shape == (2, TOKENS)
    assert first[0, -1] == xl.base.tokenizer.eos_token_id
    assert second[0, -1] == xl.base.tokenizer_2.convert_tokens_to_ids("!")


def test_an_adapter_is_refused_for_xl(xl: Case) -> None:
    with pytest.raises(UserError, match="t2i_adapter is for Stable Diffusion 1 and 2; with XL take controlnet"):
        T2IAdapter().build(xl.base.unet, xl.base.latent_scale)


def test_a_control_made_for_another_base_is_refused_in_one_line(cases: dict[str, Case]) -> None:
    adapter = T2IAdapter().build(cases["sd15"].base.unet, 8)
    for kind, control, field in (
        ("sdxl", cases["sd15"].control, r"block_out_channels is .20, 40, 80, 80., not .20, 40, 80.\)"),
        ("sd2", cases["sd15"].control, "cross_attention_dim is 48, not 64"),
        ("sdxl", Summed([cases["sdxl"].control, adapter]), "channels is .20, 40, 80, 80., not"),
    ):
        with pytest.raises(UserError, match=rf"^that is not for .* \({field}.*; give its own --base$"):
            refuse_unfit(cases[kind].base, control, "that")
    for case in cases.values():
        refuse_unfit(case.base, Summed([case.control, ControlnetLite().build(case.base.unet, 8)]), "this")


def test_a_model_of_another_kind_is_refused_in_one_line(xl: Case, tmp_path: Path) -> None:
    index = json.loads((xl.folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match=r"is a FluxPipeline; allowed: StableDiffusionPipeline, StableDiffusionXLPip"):
        load_base(str(tmp_path))
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(UserError, match=r'^no base ".*" \(.*\); give scenes-tiny, a diffusers folder, or a hub id$'):
        load_base(str(tmp_path))


def test_a_model_that_fills_in_pictures_is_refused_in_one_line(cases: dict[str, Case], tmp_path: Path) -> None:
    folder = shutil.copytree(cases["sd15"].folder, tmp_path / "inpainting")
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel.from_config({**cases["sd15"].base.unet.config, "in_channels": 9}).save_pretrained(
        folder / "unet"
    )
    with pytest.raises(UserError, match=r"is no plain text-to-image model .9 channels for latents of 4"):
        load_base(str(folder))


def test_a_scheduler_that_does_not_say_so_cuts_no_latents(case: Case, tmp_path: Path) -> None:
    """DPMSolver and its like know no `clip_sample`; DDIM's default of it is made for pixels."""
    folder = Path(shutil.copytree(case.folder, tmp_path / "base"))
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "clip_sample"}))
    assert load_base(str(folder)).scheduler.config.clip_sample is False


def test_large_images_are_decoded_a_few_at_a_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [bases.at_a_time(side) for side in (32, 64, 256, 512, 1024, 4096)] == [32, 32, 32, 8, 2, 1]
    latents = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = case.base.decode(latents)
        monkeypatch.setattr(bases, "at_a_time", lambda side: 2)
        torch.testing.assert_close(case.base.decode(latents), together)
