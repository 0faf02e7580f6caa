"""One loss and one sampler for every method: the frozen U-Net with residuals added to its skips and middle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.seeds import Stream
from benchmark.engine.bases import GUIDANCE, SOLVER, Base
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

    def __post_init__(self) -> None:
        """Refuse a scheduler that is none of `SCHEDULERS`."""
        if self.scheduler not in SCHEDULERS:
            raise UserError(f'no scheduler "{self.scheduler}"; {did_you_mean(self.scheduler, SCHEDULERS)}')


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
        text: States (B, tokens, width).
        image: Conditioning images (B, 3, H, W) in [0, 1].
        scale: Multiplies every residual.
    """
    residuals = {}
    if control is not None:
        down, middle = control(latents, timesteps, text, image)
        residuals = {
            "down_block_additional_residuals": [residual * scale for residual in down],
            "mid_block_additional_residual": middle * scale,
        }
    prediction: Tensor = base.unet(latents, timesteps, text, return_dict=False, **residuals)[0]
    return prediction


def loss(
    base: Base, control: nn.Module, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, image: Tensor
) -> Tensor:
    """Return the mean squared error of the base's own objective (noise or v), as in equation 5 of the paper."""
    noisy = base.scheduler.add_noise(latents, noise, timesteps)
    prediction = denoise(base, control, noisy, timesteps, text, image)
    is_v = base.scheduler.config.prediction_type == "v_prediction"
    target = base.scheduler.get_velocity(latents, noise, timesteps) if is_v else noise
    return functional.mse_loss(prediction.float(), target.float())


def initial_latents(base: Base, side: int, keys: Sequence[str], seed: int) -> Tensor:
    """Return the starting noise (N, C, h, w) of each sample: a function of its key and the evaluation seed alone."""
    shape = (base.unet.config.in_channels, side // base.latent_scale, side // base.latent_scale)
    noise = [torch.from_numpy(Stream(seed, f"latents:{key}").normal(shape)) for key in keys]
    return torch.stack(noise)


@torch.no_grad()
def sample(
    base: Base, control: nn.Module | None, latents: Tensor, prompts: Sequence[str], image: Tensor, settings: Sampling
) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1]: classifier-free guidance with control on both branches.

    Args:
        base: The frozen model.
        control: A method's module, or None for the base alone.
        latents: Standard normal (B, C, h, w).
        prompts: B texts.
        image: Conditioning images (B, 3, H, W) in [0, 1].
        settings: Steps, guidance, conditioning scale and scheduler.
    """
    scheduler = SCHEDULERS[settings.scheduler].from_config(base.scheduler.config)
    scheduler.set_timesteps(settings.num_inference_steps, device=base.device)
    text = base.encode_text(base.token_ids(["", *prompts]))
    both = torch.cat([text[:1].expand(len(prompts), -1, -1), text[1:]])
    latents = latents.to(base.device) * scheduler.init_noise_sigma
    images = torch.cat([image, image]).to(base.device)
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
) -> NDArray[np.uint8]:
    """Return an image, uint8 (B, S, S, 3), for each of B keys, prompts and conditioning images, uint8 (B, S, S, 3)."""
    latents = initial_latents(base, conditioning.shape[1], keys, settings.eval_seed)
    return to_uint8(sample(base, control, latents, prompts, pixels(conditioning), settings))
