"""The loss and the sampler, against independent implementations from the published formulas."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, MultiControlNetModel
from diffusers.training_utils import compute_snr
from torch import Tensor

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Method
from benchmark.engine import diffusion
from benchmark.engine.bases import Base
from benchmark.engine.controls import Summed, encoded_once, residual_weights
from benchmark.engine.diffusion import SCHEDULERS, Sampling, denoise, initial_latents, loss, sample
from benchmark.methods.controlnet import Control, Controlnet
from benchmark.methods.controlnet_lite import ControlnetLite
from benchmark.methods.t2i_adapter import T2IAdapter

PROMPTS = ["a large red sphere", "a small blue cube"]


@pytest.fixture(scope="module")
def control(base: Base) -> Control:
    """Return a control whose output convolutions are not zero, so that it has something to say."""
    torch.manual_seed(0)
    control = Controlnet().build(base.unet, base.latent_scale)
    net = control.controlnet
    for conv in (*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(conv.weight, std=0.05)
    return control.eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def alphas_cumprod(base: Base) -> Tensor:
    """Return the products of 1 - beta for the scaled linear schedule, in double precision.

    With a pure end their roots are shifted to end in 0 and scaled to begin as before (Lin et al., arXiv 2305.08891).
    """
    config = base.scheduler.config
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000, dtype=torch.float64) ** 2
    products = torch.cumprod(1 - betas, dim=0)
    if config.rescale_betas_zero_snr:
        roots = products.sqrt()
        products = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return products


def train_controlnet_step(
    base: Base, control: Control, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, image: Tensor
) -> float:
    """Return the loss as diffusers' `train_controlnet.py` computes it, noising and target written out."""
    a = alphas_cumprod(base)[timesteps].sqrt().float()[:, None, None, None]
    s = (1 - alphas_cumprod(base)[timesteps]).sqrt().float()[:, None, None, None]
    noisy = a * latents + s * noise
    down, middle = control.controlnet(
        noisy, timesteps, encoder_hidden_states=text, controlnet_cond=image, return_dict=False
    )
    predicted = base.unet(
        noisy,
        timesteps,
        encoder_hidden_states=text,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    targets = {"epsilon": noise, "v_prediction": a * noise - s * latents}
    return float(((predicted - targets[base.scheduler.config.prediction_type]) ** 2).mean())


@pytest.mark.parametrize("objective", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_the_loss_is_that_of_train_controlnet(base: Base, control: Control, image: Tensor, objective: str) -> None:
    scheduler = DDIMScheduler.from_config(base.scheduler.config, prediction_type=objective)
    base = dataclasses.replace(base, scheduler=scheduler)
    draw = torch.Generator().manual_seed(2)
    latents, noise = (torch.randn(2, 4, 16, 16, generator=draw) for _ in range(2))
    batch = (latents, noise, torch.tensor([3, 803]), base.encode_text(base.token_ids(PROMPTS)), image)
    expected = train_controlnet_step(base, control, *batch)
    assert float(loss(base, control, *batch)) == pytest.approx(expected, rel=1e-5)


def test_the_objectives_differ(base: Base, control: Control, image: Tensor) -> None:
    """Guards the test above: with one target for both it could not fail."""
    batch = (torch.ones(2, 4, 16, 16), torch.zeros(2, 4, 16, 16), torch.tensor([3, 803]), torch.zeros(2, 32, 96), image)
    schedulers = [
        DDIMScheduler.from_config(base.scheduler.config, prediction_type=o) for o in ("epsilon", "v_prediction")
    ]
    with torch.no_grad():
        a, b = (float(loss(dataclasses.replace(base, scheduler=s), control, *batch)) for s in schedulers)
    assert abs(a - b) > 0.01


@pytest.mark.parametrize("objective", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_min_snr_weights_each_sample_as_the_scripts_of_diffusers_do(
    base: Base, control: Control, image: Tensor, objective: str
) -> None:
    scheduler = DDIMScheduler.from_config(base.scheduler.config, prediction_type=objective)
    base = dataclasses.replace(base, scheduler=scheduler)
    timesteps, gamma = torch.tensor([3, 803]), 5.0
    snr = compute_snr(scheduler, timesteps)
    weights = torch.stack([snr, gamma * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    weights = weights / (snr + 1) if objective == "v_prediction" else weights / snr
    assert weights[0] < 0.1 * weights[1] or objective == "v_prediction"
    draw = torch.Generator().manual_seed(2)
    latents, noise = (torch.randn(2, 4, 16, 16, generator=draw) for _ in range(2))
    batch = (latents, noise, timesteps, base.encode_text(base.token_ids(PROMPTS)), image)
    first, second = ([part[i : i + 1] for part in batch] for i in range(2))
    each = [loss(base, control, *one) for one in (first, second)]
    expected = float((weights * torch.stack(each)).mean())
    assert float(loss(base, control, *batch, snr_gamma=gamma)) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(float(torch.stack(each).mean()), rel=0.01)


@torch.no_grad()
def test_a_conditioning_scale_of_zero_is_no_control(base: Base, control: Control, image: Tensor) -> None:
    latents, text = torch.randn(2, 4, 16, 16), base.encode_text(base.token_ids(PROMPTS))
    rest = (latents, torch.tensor([500, 900]), text, image)
    assert torch.equal(denoise(base, control, *rest, scale=0.0), denoise(base, None, *rest))
    assert not torch.equal(denoise(base, control, *rest, scale=1.0), denoise(base, None, *rest))


@torch.no_grad()
def test_the_conditioning_scale_multiplies_every_residual(base: Base, control: Control, image: Tensor) -> None:
    latents, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([500, 900])
    text = base.encode_text(base.token_ids(PROMPTS))
    down, middle = control.controlnet(latents, timesteps, text, image, conditioning_scale=0.5, return_dict=False)
    expected = base.unet(
        latents, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    scaled = denoise(base, control, latents, timesteps, text, image, scale=0.5)
    torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-5)


def test_images_at_a_conditioning_scale_of_zero_are_the_base_alone(base: Base, control: Control, image: Tensor) -> None:
    latents = initial_latents(base, 64, ["a", "b"], 0)
    off, full = (sample(base, control, latents, PROMPTS, image, Sampling(2, 4.0, scale)) for scale in (0.0, 1.0))
    alone = sample(base, None, latents, PROMPTS, image, Sampling(2, 4.0))
    assert torch.equal(off, alone)
    assert float((full - alone).abs().max()) > 0.01


@torch.no_grad()
def test_sampling_is_ddim_with_guidance_written_out(base: Base, control: Control, image: Tensor) -> None:
    """Song et al. 2021, equation 12 with eta 0, on the guided prediction of v (Salimans and Ho 2022)."""
    assert base.scheduler.config.prediction_type == "v_prediction"
    start, steps, guidance = initial_latents(base, 64, ["a", "b"], 0), 3, 4.0
    alphas = alphas_cumprod(base).float()
    empty, text = base.encode_text(base.token_ids(["", ""])), base.encode_text(base.token_ids(PROMPTS))
    x = start
    for t in (999, 666, 332):  # "trailing": 1000 - i * 1000 / 3, rounded, minus one
        without, with_text = (
            denoise(base, control, x, torch.tensor([t, t]), states, image) for states in (empty, text)
        )
        v = without + guidance * (with_text - without)
        a, s = math.sqrt(alphas[t]), math.sqrt(1 - alphas[t])
        clean, noise = a * x - s * v, a * v + s * x
        before = alphas[max(t - 1000 // steps, 0)]  # set_alpha_to_one is off
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
    sampled = sample(base, control, start, PROMPTS, image, Sampling(steps, guidance, scheduler="ddim"))
    torch.testing.assert_close(sampled, base.decode(x), rtol=0, atol=2e-3)


def alone(base: Base, image: Tensor, steps: int, scheduler: str) -> Tensor:
    latents = initial_latents(base, 64, ["a", "b"], 0)
    return sample(base, None, latents, PROMPTS, image, Sampling(steps, 2.0, scheduler=scheduler))


@pytest.fixture(scope="module")
def converged(base: Base, image: Tensor) -> Tensor:
    return alone(base, image, 250, "ddim")


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_scheduler_solves_the_same_equation(base: Base, image: Tensor, converged: Tensor, scheduler: str) -> None:
    """All are solvers of one differential equation: with steps enough they draw the same pictures."""
    coarse, fine = (float((alone(base, image, n, scheduler) - converged).abs().mean()) for n in (5, 30))
    assert fine < 0.01
    assert coarse > 3 * fine


@torch.no_grad()
def test_several_controls_add_up_as_diffusers_adds_them(base: Base, control: Control, image: Tensor) -> None:
    torch.manual_seed(5)
    other = Controlnet(init="gaussian", std=0.05).build(base.unet, base.latent_scale).eval()
    nets = MultiControlNetModel([control.controlnet, other.controlnet])
    latents, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3)), torch.tensor([500, 900])
    text, second = base.encode_text(base.token_ids(PROMPTS)), 1 - image
    down, middle = nets(latents, t, text, [image, second], [1.0, 1.0], return_dict=False)
    both = Summed([control, other])(latents, t, text, torch.cat([image, second], dim=1))
    torch.testing.assert_close([*both.down, both.middle], [*down, middle], rtol=1e-6, atol=1e-6)
    alone = control(latents, t, text, image)
    assert not torch.equal(both.middle, alone.middle)


@torch.no_grad()
def test_an_adapter_and_a_controlnet_add_up_each_in_its_own_place(base: Base, control: Control, image: Tensor) -> None:
    adapter, text = T2IAdapter().build(base.unet, base.latent_scale), base.encode_text(base.token_ids(PROMPTS))
    rest = (torch.randn(2, 4, 16, 16), torch.tensor([500, 900]), text)
    both = Summed([adapter, control])(*rest, torch.cat([image, image], dim=1))
    residuals = control(*rest, image)
    assert all(torch.equal(a, b) for a, b in zip(both.encoder, adapter(*rest, image).encoder, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip((*both.down, both.middle), (*residuals.down, residuals.middle), strict=True)
    )


def test_two_trained_decoders_cannot_be_added(base: Base, image: Tensor) -> None:
    unlocked = Controlnet(unlocked=True).build(base.unet, base.latent_scale)
    text = base.encode_text(base.token_ids(PROMPTS))
    with pytest.raises(UserError, match="only one of several controls"):
        Summed([unlocked, unlocked])(
            torch.zeros(2, 4, 16, 16), torch.tensor([5, 9]), text, torch.cat([image, image], 1)
        )


def test_the_weights_are_those_of_the_paper_and_of_the_authors_code() -> None:
    sides = [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4  # of Stable Diffusion at 512 pixels, the middle last
    assert residual_weights("resolution", 64, sides) == [1] * 3 + [2] * 3 + [4] * 3 + [8] * 4
    guess = [0.0994, 0.1205, 0.1461, 0.1770, 0.2146, 0.2601, 0.3153, 0.3822, 0.4633, 0.5615, 0.6806, 0.8250, 1.0]
    assert residual_weights("guess", 64, sides) == pytest.approx(guess, abs=6e-5)


@pytest.mark.parametrize("weighting", ["resolution", "guess"])
@torch.no_grad()
def test_weighted_control_acts_on_the_branch_with_the_prompt_alone(
    base: Base, control: Control, image: Tensor, weighting: str
) -> None:
    """One step written out: guidance between the base alone without prompt and weighted control with it."""
    start, guidance, t = initial_latents(base, 64, ["a", "b"], 0), 2.0, torch.tensor([999, 999])
    empty, text = base.encode_text(base.token_ids(["", ""])), base.encode_text(base.token_ids(PROMPTS))
    down, middle, *_ = control(start, t, text, image)
    sides = [residual.shape[-1] for residual in (*down, middle)]
    weights = residual_weights(weighting, 16, sides)
    with_text = base.unet(
        start,
        t,
        text,
        down_block_additional_residuals=[r * w for r, w in zip(down, weights[:-1], strict=True)],
        mid_block_additional_residual=middle * weights[-1],
    ).sample
    without = denoise(base, None, start, t, empty, image)
    clean = -(without + guidance * (with_text - without))  # v is minus the image where all is noise
    kept = float(alphas_cumprod(base)[0])  # set_alpha_to_one is off
    expected = base.decode(math.sqrt(kept) * clean + math.sqrt(1 - kept) * start)
    weighted, uniform = (
        sample(base, control, start, PROMPTS, image, Sampling(1, guidance, scheduler="ddim", control_weighting=one))
        for one in (weighting, "uniform")
    )
    torch.testing.assert_close(weighted, expected, rtol=0, atol=2e-3)
    assert float((uniform - expected).abs().max()) > 0.01


def test_a_weighting_is_refused_for_a_method_without_residuals_at_the_skips(base: Base, image: Tensor) -> None:
    adapter, latents = T2IAdapter().build(base.unet, base.latent_scale), initial_latents(base, 64, ["a", "b"], 0)
    both = Summed([adapter, Controlnet().build(base.unet, base.latent_scale)])
    with pytest.raises(UserError, match="control weighting guess is for residuals at the skips alone"):
        sample(base, both, latents, PROMPTS, torch.cat([image, image], dim=1), Sampling(1, control_weighting="guess"))
    with pytest.raises(UserError, match="control weighting guess is for residuals at the skips alone"):
        sample(base, adapter, latents, PROMPTS, image, Sampling(1, control_weighting="guess"))


def test_an_unknown_weighting_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r'no control weighting "gues"; did you mean "guess"\? allowed: guess, res'):
        Sampling(control_weighting="gues")


def test_an_unknown_scheduler_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r'no scheduler "unipcc"; did you mean "unipc"\? allowed: ddim'):
        Sampling(scheduler="unipcc")


def test_starting_noise_is_a_function_of_key_and_seed_alone(base: Base) -> None:
    both = initial_latents(base, 64, ["a", "b"], 0)
    assert both.shape == (2, 4, 16, 16)
    assert torch.equal(initial_latents(base, 64, ["b"], 0)[0], both[1])
    assert torch.equal(initial_latents(base, 64, ["c", "b", "a"], 0)[[2, 1]], both)
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(initial_latents(base, 64, ["a"], 1)[0], both[0])


def test_images_of_one_sample_start_from_noise_of_their_own_and_the_first_from_the_samples(base: Base) -> None:
    numbered = initial_latents(base, 64, ["a", "a", "b", "a"], 0, [0, 1, 1, 2])
    assert torch.equal(numbered[:1], initial_latents(base, 64, ["a"], 0))
    together = np.corrcoef(numbered.flatten(1).numpy())
    assert np.abs(together - np.eye(4)).max() < 0.15


def test_starting_noise_is_standard_normal(base: Base) -> None:
    noise = initial_latents(base, 64, [f"k{i}" for i in range(50)], 0).numpy()
    assert abs(float(noise.mean())) < 4 / noise.size**0.5
    assert float(np.std(noise)) == pytest.approx(1.0, abs=0.02)


def drawn_by(base: Base, control: torch.nn.Module, image: Tensor, weighting: str) -> Tensor:
    settings = Sampling(num_inference_steps=3, control_weighting=weighting)
    with torch.no_grad():
        return sample(base, control, initial_latents(base, 64, ["a", "b"], 0), PROMPTS, image, settings)


@pytest.mark.parametrize(
    ("spec", "weighting"),
    [
        (Controlnet(embedding="paper"), "uniform"),
        (Controlnet(), "resolution"),
        (ControlnetLite(), "guess"),
        (T2IAdapter(), "uniform"),
    ],
)
def test_what_sees_the_image_alone_answers_once_for_all_steps_with_the_same_bits(
    base: Base, control: Control, image: Tensor, spec: Method, weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, and beside another control, each with its own part of the image."""
    torch.manual_seed(2)
    other = spec.build(base.unet, base.latent_scale).eval()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for steering, seen in ((other, image), (Summed([control, other]), torch.cat([image.flip(0), image], dim=1))):
        parts = [part for module in steering.modules() for part in getattr(module, "image_encoders", ())]
        computed = [Counted(next(m for m in part.modules() if isinstance(m, torch.nn.Conv2d))) for part in parts]
        found = drawn_by(base, steering, seen, weighting)
        assert [one.count for one in computed] == ([1] if steering is other else [1, 1])
        again = drawn_by(base, steering, seen.flip(0), weighting)  # other images have answers of their own
        with monkeypatch.context() as patch:
            patch.setattr(diffusion, "encoded_once", lambda control: contextlib.nullcontext())
            assert torch.equal(found, drawn_by(base, steering, seen, weighting))
            assert torch.equal(again, drawn_by(base, steering, seen.flip(0), weighting))
        assert [one.count for one in computed] == [8] * len(parts)


class Counted:
    """How often a module has computed."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.count = 0
        module.register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


def test_an_image_that_was_changed_in_its_place_is_seen_anew() -> None:
    class Reader(torch.nn.Conv2d):
        @property
        def image_encoders(self) -> tuple[torch.nn.Module, ...]:
            return (self,)

    layer = Reader(3, 2, 1)
    image = torch.rand(1, 3, 4, 4)
    with torch.no_grad(), encoded_once(layer):
        first = layer(image)
        assert layer(image) is first
        image += 1
        assert not torch.equal(layer(image), first)
    assert "forward" not in vars(layer)
