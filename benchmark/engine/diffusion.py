"""One loss and one sampler for every method: the frozen U-Net with residuals added to its skips and middle."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
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
from benchmark.engine.bases import GUIDANCE, SOLVER, Base
from benchmark.engine.latents import pixels, to_uint8

# Deterministic solvers that read the whole of a base's schedule, a pure end included (arXiv 2305.08891).
SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,  # arXiv 2010.02502
    "dpm++": DPMSolverMultistepScheduler,  # arXiv 2211.01095
    "euler": EulerDiscreteScheduler,  # arXiv 2206.00364, algorithm 2 without noise
    "unipc": UniPCMultistepScheduler,  # arXiv 2302.04867
}
# How residuals act under classifier-free guidance. "uniform": alike, on both branches. The others act on the branch
# with the prompt alone. "resolution": times the latents' side over the residual's, the 64 / h of arXiv 2302.05543,
# section 3.4 (1 to 8 at 512 pixels). "guess": the guess mode of the authors' code, 0.825 to the power of a residual's
# distance from the middle.
CONTROL_WEIGHTINGS = ("uniform", "resolution", "guess")
_GUESS_DECAY = 0.825


@dataclass(frozen=True)
class Sampling:
    """How images are generated; the words are diffusers', the defaults those of scenes-tiny."""

    num_inference_steps: int = 15
    guidance_scale: float = GUIDANCE["scenes-tiny"]
    conditioning_scale: float = 1.0
    eval_seed: int = 0
    scheduler: str = SOLVER["scenes-tiny"]
    control_weighting: str = "uniform"

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
        text: States (B, tokens, width).
        image: Conditioning images (B, 3, H, W) in [0, 1].
        scale: Multiplies every residual.
    """
    residuals = Residuals() if control is None else control(latents, timesteps, text, image)
    _check_can_be_computed_again(base, residuals)
    keywords: dict[str, Any] = {"return_dict": False}
    if residuals.middle is not None:
        keywords["down_block_additional_residuals"] = [residual * scale for residual in residuals.down]
        keywords["mid_block_additional_residual"] = residuals.middle * scale
    with _added_to_encoder(base.unet, [residual * scale for residual in residuals.encoder]):
        output = functional_call(base.unet, dict(residuals.weights), (latents, timesteps, text), keywords)
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


def initial_latents(base: Base, side: int, keys: Sequence[str], seed: int) -> Tensor:
    """Return the starting noise (N, C, h, w) of each sample: a function of its key and the evaluation seed alone."""
    shape = (base.unet.config.in_channels, side // base.latent_scale, side // base.latent_scale)
    noise = [torch.from_numpy(Stream(seed, f"latents:{key}").normal(shape)) for key in keys]
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
        settings: Steps, guidance, conditioning scale, control weighting and scheduler.
    """
    scheduler = SCHEDULERS[settings.scheduler].from_config(base.scheduler.config)
    scheduler.set_timesteps(settings.num_inference_steps, device=base.device)
    text = base.encode_text(base.token_ids(["", *prompts]))
    both = torch.cat([text[:1].expand(len(prompts), -1, -1), text[1:]])
    latents = latents.to(base.device) * scheduler.init_noise_sigma
    images = torch.cat([image, image]).to(base.device)
    if control is not None and settings.control_weighting != "uniform":
        control = _WithPromptAlone(control, settings.control_weighting)
    for timestep in scheduler.timesteps:
        pair = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        prediction = denoise(base, control, pair, timestep, both, images, settings.conditioning_scale)
        without, with_text = prediction.chunk(2)
        guided = without + settings.guidance_scale * (with_text - without)
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return base.decode(latents)


class Summed(nn.Module):
    """Several controls whose residuals are added without weights (arXiv 2302.05543, section 3.4).

    Each reads its own three channels of the conditioning image, (B, 3 k, H, W).
    """

    def __init__(self, controls: Sequence[nn.Module]) -> None:
        super().__init__()
        self.controls = nn.ModuleList(controls)

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return the sum of what every control gives for its own part of the image."""
        parts = image.chunk(len(self.controls), dim=1)
        found: Iterator[Residuals] = (
            control(latents, timesteps, text, part) for control, part in zip(self.controls, parts, strict=True)
        )
        return reduce(_added, found)


def _added(a: Residuals, b: Residuals) -> Residuals:
    if a.weights and b.weights:
        raise UserError("only one of several controls may train part of the U-Net; leave the other out")
    middles = _sums(*([] if one.middle is None else [one.middle] for one in (a, b)))
    return Residuals(
        down=_sums(a.down, b.down),
        middle=middles[0] if middles else None,
        encoder=_sums(a.encoder, b.encoder),
        weights={**a.weights, **b.weights},
    )


def _sums(a: Sequence[Tensor], b: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the sums of residuals in the same places; what only one side has stays as it is."""
    return [x + y for x, y in zip(a, b, strict=True)] if a and b else a or b


class _WithPromptAlone(nn.Module):
    """A control that acts on the second half of a batch, the branch with the prompt, with weighted residuals."""

    def __init__(self, control: nn.Module, weighting: str) -> None:
        super().__init__()
        self.control = control
        self.weighting = weighting

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return residuals (2 B, ...) that are zero in their first half."""
        half = len(latents) // 2
        found: Residuals = self.control(latents[half:], timesteps, text[half:], image[half:])
        if found.middle is None:
            raise UserError(
                f"control weighting {self.weighting} is for methods with residuals at the skips; use uniform"
            )
        residuals = [*found.down, found.middle]
        weights = residual_weights(self.weighting, latents.shape[-1], [residual.shape[-1] for residual in residuals])
        both = [
            torch.cat([torch.zeros_like(residual), residual * weight])
            for residual, weight in zip(residuals, weights, strict=True)
        ]
        return found._replace(down=both[:-1], middle=both[-1])


def residual_weights(weighting: str, latent_side: int, sides: Sequence[int]) -> list[float]:
    """Return the weight of each residual, the middle last, from its side and that of the latents."""
    if weighting == "resolution":
        return [latent_side / side for side in sides]
    return [_GUESS_DECAY ** (len(sides) - 1 - i) for i in range(len(sides))]


def draw(
    base: Base,
    control: nn.Module | None,
    keys: Sequence[str],
    prompts: Sequence[str],
    conditioning: NDArray[np.uint8],
    settings: Sampling,
) -> NDArray[np.uint8]:
    """Return images, uint8 (B, S, S, 3), of B keys, prompts and conditioning images, uint8 (B, S, S, 3 k)."""
    latents = initial_latents(base, conditioning.shape[1], keys, settings.eval_seed)
    return to_uint8(sample(base, control, latents, prompts, pixels(conditioning), settings))
