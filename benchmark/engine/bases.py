"""Frozen base models, loaded through diffusers: scenes-tiny from the package, Stable Diffusion by hub id or folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmark.base.errors import UserError, did_you_mean, first_line
from benchmark.base.files import canonical_json, sha256
from benchmark.base.memory import keep_freed_memory
from benchmark.engine.pretrained import UNREADABLE, hash_weights, load_whole, quiet_libraries

BUNDLED = {"scenes-tiny": Path(__file__).parents[1] / "scenes" / "weights" / "scenes-tiny"}
# Weight of the prompt and solver: measured for scenes-tiny (docs/LOG.md); else diffusers' and the paper's.
GUIDANCE = {"scenes-tiny": 2.0}
SOLVER = {"scenes-tiny": "unipc"}
_DEFAULT_GUIDANCE, _DEFAULT_GUIDANCE_XL = 7.5, 5.0
_DEFAULT_SOLVER = "ddim"
_AT_A_TIME = 32
# The networks of a base, by the name of their folder.
_NETWORKS: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
_NETWORKS_XL: dict[str, Any] = {**_NETWORKS, "text_encoder_2": CLIPTextModelWithProjection}
_NO_SAFETY_CHECKER = {"safety_checker": None, "requires_safety_checker": False}
# What a base's folder may say it is, with its networks, and what its loading leaves out.
_PIPELINES: dict[str, tuple[type[DiffusionPipeline], dict[str, Any], dict[str, Any]]] = {
    "StableDiffusionPipeline": (StableDiffusionPipeline, _NETWORKS, _NO_SAFETY_CHECKER),
    "StableDiffusionXLPipeline": (StableDiffusionXLPipeline, _NETWORKS_XL, {"add_watermarker": False}),
}
# Fields of a control's configuration that must be those of the U-Net's, under the name they have there.
_MADE_FOR = {
    "block_out_channels": "block_out_channels",
    "channels": "block_out_channels",
    "cross_attention_dim": "cross_attention_dim",
    "addition_embed_type": "addition_embed_type",
}


@dataclass(frozen=True)
class Base:
    """A latent diffusion model with a text encoder; nothing in it is ever trained here.

    `scheduler` holds the schedule of noise of its training; `solver` names how sampling solves it. Stable Diffusion XL
    has a second text encoder with a tokenizer of its own, and may want zeros in place of the states of no prompt.
    """

    name: str
    folder: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer_2: CLIPTokenizer | None = None
    has_zeros_for_no_prompt: bool = False

    @property
    def latent_scale(self) -> int:
        """Image pixels for one latent pixel."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def guidance_scale(self) -> float:
        """The weight of the prompt that suits the model."""
        return GUIDANCE.get(self.name, _DEFAULT_GUIDANCE if self.text_encoder_2 is None else _DEFAULT_GUIDANCE_XL)

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
        second = [] if self.text_encoder_2 is None else [self.text_encoder_2]
        return sha256(canonical_json([hash_weights(m) for m in (self.unet, self.vae, self.text_encoder, *second)]))

    @cached_property
    def vae_sha256(self) -> str:
        """A hash over the autoencoder's weights."""
        return hash_weights(self.vae)

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Return token ids (N, length), cut or padded to the text encoder's length, of two tokenizers side by side."""
        tokenizers = [self.tokenizer] if self.tokenizer_2 is None else [self.tokenizer, self.tokenizer_2]
        return torch.cat([_token_ids(tokenizer, prompts) for tokenizer in tokenizers], dim=1)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Return text states (N, length, width), of Stable Diffusion XL as `split_text` takes them apart."""
        if self.text_encoder_2 is not None:
            return self._encode_twice(token_ids.to(self.device), self.text_encoder_2)
        states: Tensor = self.text_encoder(token_ids.to(self.device))[0]
        return states

    def _encode_twice(self, token_ids: Tensor, second: CLIPTextModelWithProjection) -> Tensor:
        """Return the last states but one of both encoders side by side, the second's embedding as one more token."""
        encoders = (self.text_encoder, second)
        found = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(encoders, token_ids.chunk(2, dim=1), strict=True)
        ]
        states = torch.cat([output.hidden_states[-2] for output in found], dim=-1)
        pooled = found[1].text_embeds
        padded = functional.pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))
        return torch.cat([states, padded[:, None]], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] of scaled latents (N, C, h, w)."""
        few = at_a_time(latents.shape[-1] * self.latent_scale)
        scaled = torch.split(latents / self.vae.config.scaling_factor, few)
        images = torch.cat([self.vae.decode(part, return_dict=False)[0] for part in scaled])
        return (images / 2 + 0.5).clamp(0, 1)


def at_a_time(side: int) -> int:
    """Return how many images of a side a model sees at once: 32 of up to 256 pixels, 8 of 512, 2 of 1024.

    The last maps of Stable Diffusion's decoder take 0.8 GiB for each image of 512 pixels.
    """
    return max(1, min(_AT_A_TIME, _AT_A_TIME * 256**2 // side**2))


def _token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    encoded = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    ids: Tensor = encoded.input_ids
    return ids


def split_text(config: Any, text: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Return the text states a network attends to, and what else it is told, as keywords of its call.

    A network of Stable Diffusion XL is also told the embedding of the whole prompt, and the size of the picture: that
    of the conditioning image, uncropped, as in diffusers' training script and pipeline.

    Args:
        config: Of a U-Net or of a ControlNet made from one.
        text: What `Base.encode_text` gave, (B, length, width).
        image: Conditioning images (B, 3, H, W).
    """
    if config.addition_embed_type is None:
        return text, {}
    sizes = [*image.shape[-2:], 0, 0, *image.shape[-2:]]
    width = config.projection_class_embeddings_input_dim - len(sizes) * config.addition_time_embed_dim
    # filled where they are needed: a copy from outside the GPU cannot be recorded
    time_ids = torch.stack([text.new_full((len(text),), size) for size in sizes], dim=1)
    added = {"text_embeds": text[:, -1, :width], "time_ids": time_ids}
    return text[:, :-1], {"added_cond_kwargs": added}


def refuse_unfit(base: Base, control: nn.Module, name: str) -> None:
    """Refuse a control that was made for another base: its residuals would fit nowhere.

    Raises:
        UserError: In what the two differ.
    """
    for network in control.modules():
        of_control = dict(getattr(network, "config", {}))
        for field, of_base in _MADE_FOR.items():
            found, wanted = of_control.get(field), base.unet.config[of_base]
            if field in of_control and canonical_json(found) != canonical_json(wanted):
                raise UserError(
                    f'{name} is not for "{base.name}" ({field} is {found}, not {wanted}); give its own --base'
                )


def load_base(name: str, device: str = "cpu") -> Base:
    """Return a base by bundled name, hub id or folder, frozen and in evaluation mode, in single precision.

    Where it computes on the processor, the process keeps memory that it frees.

    Raises:
        UserError: The weights are nowhere to be had.
    """
    folder = str(BUNDLED.get(name, name))
    if "/" not in folder and not Path(folder).is_dir():
        raise UserError(f'no base "{name}"; {did_you_mean(name, BUNDLED)}, a diffusers folder, or a hub id')
    quiet_libraries()
    try:
        pipeline = _load_pipeline(name, folder)
    except UserError:
        raise
    except UNREADABLE as error:
        reason = first_line(error)
        raise UserError(
            f'no base "{name}" ({reason}); give {", ".join(BUNDLED)}, a diffusers folder, or a hub id'
        ) from None
    pipeline.to(device)
    if device == "cpu":
        keep_freed_memory()
    second = getattr(pipeline, "text_encoder_2", None)
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder, *([second] if second is not None else [])):
        model.requires_grad_(False).eval()
    return Base(
        name=name,
        folder=folder,
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        # a config of another scheduler may not say it, and what is then usual for pixels would cut latents
        scheduler=DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, thresholding=False),
        text_encoder_2=second,
        tokenizer_2=getattr(pipeline, "tokenizer_2", None),
        has_zeros_for_no_prompt=bool(pipeline.config.get("force_zeros_for_empty_prompt", False)),
    )


def _load_pipeline(name: str, folder: str) -> Any:
    """Return the pipeline of a folder or hub id, in single precision, every weight of its networks read.

    Raises:
        UserError: A model of another kind.
        ValueError: A network lacks weights.
    """
    index = DiffusionPipeline.load_config(folder)
    kind = index.get("_class_name")
    if kind not in _PIPELINES:
        raise UserError(f'base "{name}" is a {kind}; allowed: {", ".join(_PIPELINES)}')
    pipeline_class, networks, left_out = _PIPELINES[kind]
    for part, network in networks.items():
        if index.get(part, [None])[-1] != network.__name__:
            raise UserError(f'base "{name}" has {index.get(part)} for its {part}; allowed: {network.__name__}')
    loaded = {part: load_whole(network, folder, subfolder=part) for part, network in networks.items()}
    pipeline = pipeline_class.from_pretrained(folder, **loaded, **left_out)
    channels = (pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels)
    if channels[0] != channels[1] or getattr(pipeline.vae.config, "latents_mean", None) is not None:
        raise UserError(
            f'base "{name}" is no plain text-to-image model ({channels[0]} channels for latents of {channels[1]}, or '
            "latents that are shifted); take the model it was made from"
        )
    return pipeline
