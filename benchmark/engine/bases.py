"""Frozen base models, loaded through diffusers: scenes-tiny from the package, Stable Diffusion by hub id or folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, sha256

BUNDLED = {"scenes-tiny": Path(__file__).parents[1] / "scenes" / "weights" / "scenes-tiny"}
# Weight of the prompt and solver: measured for scenes-tiny (docs/LOG.md); else diffusers' and the paper's.
GUIDANCE = {"scenes-tiny": 2.0}
SOLVER = {"scenes-tiny": "unipc"}
_DEFAULT_GUIDANCE = 7.5
_DEFAULT_SOLVER = "ddim"


@dataclass(frozen=True)
class Base:
    """A latent diffusion model with a text encoder; nothing in it is ever trained here.

    `scheduler` holds the schedule of noise of its training; `solver` names how sampling solves it.
    """

    name: str
    folder: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler

    @property
    def latent_scale(self) -> int:
        """Image pixels for one latent pixel."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def guidance_scale(self) -> float:
        """The weight of the prompt that suits the model."""
        return GUIDANCE.get(self.name, _DEFAULT_GUIDANCE)

    @property
    def solver(self) -> str:
        """The name of the scheduler, in `diffusion.SCHEDULERS`, that images are sampled with unless told otherwise."""
        return SOLVER.get(self.name, _DEFAULT_SOLVER)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.unet.device
        return device

    @cached_property
    def weights_sha256(self) -> str:
        """A hash over every weight: the same model from a hub and from a folder is the same."""
        return sha256(canonical_json([hash_weights(m) for m in (self.unet, self.vae, self.text_encoder)]))

    @cached_property
    def vae_sha256(self) -> str:
        """A hash over the autoencoder's weights."""
        return hash_weights(self.vae)

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Return token ids (N, length), cut or padded to the text encoder's length."""
        encoded = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        ids: Tensor = encoded.input_ids
        return ids

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Return text states (N, length, width)."""
        states: Tensor = self.text_encoder(token_ids.to(self.device))[0]
        return states

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] of scaled latents (N, C, h, w)."""
        images: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        return (images / 2 + 0.5).clamp(0, 1)


def quiet_libraries() -> None:
    """Keep diffusers and transformers from drawing their own bars and notices between our lines."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def hash_weights(module: nn.Module) -> str:
    """Return a hash over the names and values of a module's weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_base(name: str, device: str = "cpu") -> Base:
    """Return a base by bundled name, hub id or folder, frozen and in evaluation mode, in single precision.

    Raises:
        UserError: The weights are nowhere to be had.
    """
    folder = str(BUNDLED.get(name, name))
    if "/" not in folder and not Path(folder).is_dir():
        raise UserError(f'no base "{name}"; {did_you_mean(name, BUNDLED)}, a diffusers folder, or a hub id')
    quiet_libraries()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, safety_checker=None, requires_safety_checker=False
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'no base "{name}" ({reason}); give {", ".join(BUNDLED)}, a diffusers folder, or a hub id'
        ) from None
    pipeline.to(device)
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        model.requires_grad_(False).eval()
    return Base(
        name=name,
        folder=folder,
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler=DDIMScheduler.from_config(pipeline.scheduler.config),
    )


def choose_device(wanted: str | None) -> str:
    """Return the device asked for, by default "cuda" where there is one, else "cpu".

    Raises:
        UserError: The device does not exist here.
    """
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda") or (wanted == "cuda" and not torch.cuda.is_available()):
        raise UserError(f'no device "{wanted}" here; allowed: cpu{", cuda" if torch.cuda.is_available() else ""}')
    return wanted
