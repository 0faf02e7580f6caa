"""One loss and one sampler for every method: the frozen U-Net with residuals added to its skips and middle."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.seeds import Stream
from benchmark.contracts.plugins import Residuals
from benchmark.engine.bases import GUIDANCE, SOLVER, Base, split_text
from benchmark.engine.controls import CONTROL_WEIGHTINGS, WithPromptAlone, encoded_once
from benchmark.engine.latents import pixels, to_uint8

# Deterministic solvers that read the whole of a base's schedule, a pure end included (arXiv 2305.08891).
SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,  # arXiv 2010.02502
    "dpm++": DPMSolverMultistepScheduler,  # arXiv 2211.01095
    "euler": EulerDiscreteScheduler,  # arXiv 2206.00364, algorithm 2 without noise
    "unipc": UniPCMultistepScheduler,  # arXiv 2302.04867
}


@dataclass(frozen=True)
class Sampling:
    """How images are generated; the words are diffusers', the defaults those of scenes-tiny."""

    num_inference_steps: int = 15
    guidance_scale: float = GUIDANCE["scenes-tiny"]
    conditioning_scale: float = 1.0
    eval_seed: int = 0
    scheduler: str = SOLVER["scenes-tiny"]
    control_weighting: str = "uniform"
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        """Refuse a scheduler that is none of `SCHEDULERS`, or a weighting that is none of `CONTROL_WEIGHTINGS`."""
        if self.scheduler not in SCHEDULERS:
            raise UserError(f'no scheduler "{self.scheduler}"; {did_you_mean(self.scheduler, SCHEDULERS)}')
        if self.control_weighting not in CONTROL_WEIGHTINGS:
            hint = did_you_mean(self.control_weighting, CONTROL_WEIGHTINGS)
            raise UserError(f'no control weighting "{self.control_weighting}"; {hint}')


def denoise(
    base: Base,
    control: nn.Module | None,
    latents: Tensor,
    timesteps: Tensor,
    text: Tensor,
    image: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """Return the U-Net's prediction (B, C, h, w) with the control's residuals, scaled, added to it.

    Args:
        base: The frozen model.
        control: A method's module, or None for the base alone.
        latents: Noisy latents (B, C, h, w).
        timesteps: (B,) or a scalar.
        text: States (B, tokens, width) as the base encodes them.
        image: Conditioning images (B, 3, H, W) in [0, 1].
        scale: Multiplies every residual.
    """
    residuals = Residuals() if control is None else control(latents, timesteps, text, image)
    _check_can_be_computed_again(base, residuals)
    states, added = split_text(base.unet.config, text, image)
    keywords: dict[str, Any] = {"return_dict": False, **added}
    if residuals.middle is not None:
        keywords["down_block_additional_residuals"] = [residual * scale for residual in residuals.down]
        keywords["mid_block_additional_residual"] = residuals.middle * scale
    with _added_to_encoder(base.unet, [residual * scale for residual in residuals.encoder]):
        output = functional_call(base.unet, dict(residuals.weights), (latents, timesteps, states), keywords)
    prediction: Tensor = output[0]
    return prediction


def _check_can_be_computed_again(base: Base, residuals: Residuals) -> None:
    """Refuse what gradient checkpointing would get wrong: the second pass finds neither these residuals nor weights."""
    if (residuals.encoder or residuals.weights) and torch.is_grad_enabled() and base.unet.is_gradient_checkpointing:
        raise UserError("gradient checkpointing is not possible with a method that changes the inside of the U-Net")


@contextmanager
def _added_to_encoder(unet: UNet2DConditionModel, residuals: Sequence[Tensor]) -> Iterator[None]:
    """Add a residual to the hidden state of each level of the encoder before it is halved, as T2I-Adapter does.

    diffusers' own argument for it adds after the halving in levels without attention, where sizes no longer agree.
    """
    handles = []
    for block, residual in zip(unet.down_blocks, residuals, strict=bool(residuals)):
        last = block.attentions[-1] if getattr(block, "attentions", None) else block.resnets[-1]
        handles.append(last.register_forward_hook(partial(_plus, residual)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plus(residual: Tensor, _: nn.Module, __: Any, output: Any) -> Any:
    return (output[0] + residual, *output[1:]) if isinstance(output, tuple) else output + residual


def loss(
    base: Base,
    control: nn.Module,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    text: Tensor,
    image: Tensor,
    *,
    snr_gamma: float | None = None,
) -> Tensor:
    """Return the mean squared error of the base's own objective (noise or v), as in equation 5 of the paper.

    With `snr_gamma` each sample is weighted by Min-SNR (Hang et al., arXiv 2303.09556).
    """
    noisy = base.scheduler.add_noise(latents, noise, timesteps)
    prediction = denoise(base, control, noisy, timesteps, text, image)
    is_v = base.scheduler.config.prediction_type == "v_prediction"
    target = base.scheduler.get_velocity(latents, noise, timesteps) if is_v else noise
    if snr_gamma is None:
        return functional.mse_loss(prediction.float(), target.float())
    each = functional.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
    return (each * min_snr_weights(base, timesteps, snr_gamma)).mean()


def min_snr_weights(base: Base, timesteps: Tensor, gamma: float) -> Tensor:
    """Return the weights (B,) of Min-SNR: min(SNR, gamma) / SNR where noise is predicted, over SNR + 1 where v is."""
    kept: Tensor = base.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = kept / (1 - kept)
    if base.scheduler.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)


def initial_latents(
    base: Base, side: int, keys: Sequence[str], seed: int, numbers: Sequence[int] | None = None
) -> Tensor:
    """Return the starting noise (N, C, h, w) of each image: a function of its sample's key, the seed and its number.

    Args:
        base: The frozen model.
        side: Pixels of a side.
        keys: N keys.
        seed: The evaluation seed.
        numbers: Which image of its sample each is (default: the first of all, 0).
    """
    shape = (base.unet.config.in_channels, side // base.latent_scale, side // base.latent_scale)
    pairs = zip(keys, numbers or [0] * len(keys), strict=True)
    noise = [torch.from_numpy(Stream(seed, f"latents:{key}", number).normal(shape)) for key, number in pairs]
    return torch.stack(noise)


@torch.no_grad()
def sample(
    base: Base, control: nn.Module | None, latents: Tensor, prompts: Sequence[str], image: Tensor, settings: Sampling
) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] by classifier-free guidance.

    Args:
        base: The frozen model.
        control: A method's module, or None for the base alone.
        latents: Standard normal (B, C, h, w).
        prompts: B texts.
        image: Conditioning images (B, 3, H, W) in [0, 1].
        settings: Steps, guidance, conditioning scale, control weighting, scheduler and negative prompt.
    """
    scheduler = SCHEDULERS[settings.scheduler].from_config(base.scheduler.config)
    scheduler.set_timesteps(settings.num_inference_steps, device=base.device)
    text = base.encode_text(base.token_ids([settings.negative_prompt, *prompts]))
    zeros = base.has_zeros_for_no_prompt and not settings.negative_prompt
    nothing = torch.zeros_like(text[:1]) if zeros else text[:1]
    both = torch.cat([nothing.expand(len(prompts), -1, -1), text[1:]])
    latents = latents.to(base.device) * scheduler.init_noise_sigma
    images = torch.cat([image, image]).to(base.device)
    if control is not None and settings.control_weighting != "uniform":
        control = WithPromptAlone(control, settings.control_weighting)
    with encoded_once(control):
        for timestep in scheduler.timesteps:
            pair = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
            prediction = denoise(base, control, pair, timestep, both, images, settings.conditioning_scale)
            without, with_text = prediction.chunk(2)
            guided = without + settings.guidance_scale * (with_text - without)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return base.decode(latents)


def draw(
    base: Base,
    control: nn.Module | None,
    keys: Sequence[str],
    prompts: Sequence[str],
    conditioning: NDArray[np.uint8],
    settings: Sampling,
    numbers: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Return images, uint8 (B, S, S, 3), of B keys, prompts and conditioning images, uint8 (B, S, S, 3 k).

    `numbers` says which image of its sample each is, as in `initial_latents`.
    """
    latents = initial_latents(base, conditioning.shape[1], keys, settings.eval_seed, numbers)
    return to_uint8(sample(base, control, latents, prompts, pixels(conditioning), settings))
