"""Real bases shrunk in width: configuration, classes, wiring and folder layout of the hub, with random weights."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmark.scenes.tokenizer import build_tokenizer

TOKENS = 77
# as the hub has it for all of them: some words are of another scheduler than the one they stand with
_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def write_base(kind: str, folder: Path, divisor: int) -> Path:
    """Write "sd15", "sd2" (v-prediction, 768) or "sdxl" (base 1.0) with every width divided; return the folder.

    Depth, number of heads and resolution levels stay; norms have 64 groups over the divisor, 16 at a quarter.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = {"sd15": _sd15, "sd2": _sd2, "sdxl": _sdxl}[kind](divisor)
    pipeline.save_pretrained(folder)
    return folder


def _sd15(divisor: int) -> StableDiffusionPipeline:
    unet = _unet(divisor, sample_size=64, cross_attention_dim=768 // divisor, attention_head_dim=8)
    text = CLIPTextModel(_text(divisor, 768, 12, 12, "quick_gelu"))
    return _pipeline(divisor, unet, text, _tokenizer("<|endoftext|>"), PNDMScheduler.from_config(_SCHEDULE))


def _sd2(divisor: int) -> StableDiffusionPipeline:
    unet = _unet(
        divisor,
        sample_size=96,
        cross_attention_dim=1024 // divisor,
        attention_head_dim=(5, 10, 20, 20),
        use_linear_projection=True,
    )
    text = CLIPTextModel(_text(divisor, 1024, 23, 16, "gelu"))
    scheduler = DDIMScheduler.from_config({**_SCHEDULE, "prediction_type": "v_prediction"})
    return _pipeline(divisor, unet, text, _tokenizer("!"), scheduler)


def _sdxl(divisor: int) -> StableDiffusionXLPipeline:
    unet = _unet(
        divisor,
        widths=(320, 640, 1280),
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2048 // divisor,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256 // divisor,
        projection_class_embeddings_input_dim=2816 // divisor,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(divisor, 0.13025),
        text_encoder=CLIPTextModel(_text(divisor, 768, 12, 12, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_text(divisor, 1280, 32, 20, "gelu")),
        tokenizer=_tokenizer("<|endoftext|>"),
        tokenizer_2=_tokenizer("!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler.from_config({**_SCHEDULE, "timestep_spacing": "leading"}),
        add_watermarker=False,
    )


def _pipeline(divisor: int, unet: Any, text: Any, tokenizer: Any, scheduler: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=_vae(divisor, 0.18215),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet(divisor: int, widths: tuple[int, ...] = (320, 640, 1280, 1280), **more: Any) -> UNet2DConditionModel:
    """Return a U-Net; the types of blocks are those of Stable Diffusion 1 and 2, diffusers' default, unless given."""
    return UNet2DConditionModel(
        block_out_channels=tuple(width // divisor for width in widths), norm_num_groups=64 // divisor, **more
    )


def _vae(divisor: int, scaling_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=tuple(width // divisor for width in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=64 // divisor,
        sample_size=512,
        scaling_factor=scaling_factor,
    )


def _text(divisor: int, width: int, layers: int, heads: int, activation: str) -> CLIPTextConfig:
    tokenizer = build_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width // divisor,
        intermediate_size=4 * width // divisor,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        projection_dim=width // divisor,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _tokenizer(padding: str) -> CLIPTokenizer:
    """Return the tokenizer of the bundled world at CLIP's length; Stable Diffusion 2 and bigG pad with "!"."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = TOKENS
    tokenizer.pad_token = padding
    return tokenizer
