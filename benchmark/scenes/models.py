"""The networks of the bundled world: their architectures, and the weights that ship with the package.

`scenes-tiny` is a Stable Diffusion 2 style model (v-prediction, 12 encoder blocks and a middle) on 16 x 16 x 4 latents.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPTextModel

from benchmark.engine.checkpoints import load_tensors
from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.palette import COLOURS, SEG_CLASSES

WEIGHTS = Path(__file__).parent / "weights"
REFEREE_FILE = WEIGHTS / "referee" / "model.safetensors"
CLIP_FOLDER = WEIGHTS / "clip"
RESOLUTION = 64
LATENT_CHANNELS, LATENT_SIDE = 4, 16
TEXT_WIDTH, TEXT_TOKENS = 96, 48
FEATURES = 64


def build_vae() -> AutoencoderKL:
    """Return the untrained autoencoder: (B, 3, 64, 64) in [-1, 1] to (B, 4, 16, 16) latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=RESOLUTION,
    )


def build_unet() -> UNet2DConditionModel:
    """Return the untrained denoiser: four levels of two blocks, cross attention at 8 x 8 and 4 x 4.

    Attention at 16 x 16 would halve the speed on a CPU, most of it in the backward pass, for a picture of four pixels
    a latent that the convolutions draw.
    """
    cross, plain = "CrossAttnDownBlock2D", "DownBlock2D"
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=2,
        block_out_channels=(32, 64, 96, 96),
        down_block_types=(plain, cross, cross, plain),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(1, 2, 3, 3),  # diffusers reads these as the number of heads
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Return the noise schedule: Stable Diffusion's betas, rescaled to end in pure noise, where sampling begins.

    Without the rescaling the last training step keeps 7 % of the image, most of it in the mean of the latents, and what
    sampling makes from pure noise varies too little there (Lin et al., arXiv 2305.08891).
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # as Stable Diffusion has it; trailing spacing does not use it
        timestep_spacing="trailing",
    )


def _text_config(vocabulary: int, bos: int, eos: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=FEATURES,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )


def build_text_encoder(vocabulary: int, bos: int, eos: int) -> CLIPTextModel:
    """Return the untrained text encoder of the base: token ids (B, 48) to states (B, 48, 96)."""
    return CLIPTextModel(_text_config(vocabulary, bos, eos))


def build_clip(vocabulary: int, bos: int, eos: int) -> CLIPModel:
    """Return the untrained CLIP of the CLIP score: 64 x 64 images in 8 x 8 patches, 64-dimensional projections."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": RESOLUTION,
        "patch_size": 8,
        "projection_dim": FEATURES,
    }
    text = _text_config(vocabulary, bos, eos).to_dict()
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=FEATURES))


@dataclass(frozen=True)
class Reading:
    """What the referee sees in images, at their resolution.

    Attributes:
        seg: Class logits (B, 7, H, W) in the order of `palette.SEG_CLASSES`.
        colour: Logits (B, 9, H, W): none, then the paints in the order of `palette.COLOURS`.
        depth: Metres (B, H, W).
        normal: Unit vectors (B, 3, H, W), camera space.
        boundary: Strength (B, H, W) in [0, 1].
        lines: Probability (B, H, W) that a straight edge passes.
        joints: Probabilities (B, 18, H, W) that a visible keypoint lies here.
    """

    seg: Tensor
    colour: Tensor
    depth: Tensor
    normal: Tensor
    boundary: Tensor
    lines: Tensor
    joints: Tensor


class Referee(nn.Module):
    """A small U-shaped network that reads the world's truth off an image: one trunk, one map for each kind of truth.

    What the whole image shows (how far the camera stands) reaches every pixel through `context`. The mean of the
    bottleneck is the 64-dimensional space of the Frechet distance.
    """

    CHANNELS = (len(SEG_CLASSES), 1 + len(COLOURS), 1, 3, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16)
        self.down = nn.ModuleList([_block(16, 32), _block(32, 64), _block(64, FEATURES)])
        self.up = nn.ModuleList([_block(FEATURES + 64, 64), _block(64 + 32, 48), _block(48 + 16, 32)])
        self.heads = nn.Conv2d(32, sum(self.CHANNELS), 1)
        joints = nn.Conv2d(32, len(KEYPOINTS), 1)
        assert joints.bias is not None
        nn.init.constant_(joints.bias, -5.0)  # joints are rare: begin with the belief that there are none
        self.joints = nn.Sequential(*_layer(32, 32), joints)
        context = nn.Linear(128, FEATURES)
        nn.init.zeros_(context.weight)
        nn.init.zeros_(context.bias)
        self.context = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * FEATURES, 128), nn.ReLU(), context
        )

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return feature maps at sides 64, 32, 16 and 8 of images (B, 3, 64, 64) in [-1, 1]."""
        maps = [self.stem(images)]
        for block in self.down:
            maps.append(block(functional.max_pool2d(maps[-1], 2)))
        return maps

    def raw(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the heads before their activations, in the order of `Reading`; depth as its logarithm."""
        *skips, x = self.encode(images)
        x = x + self.context(x)[:, :, None, None]
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return *self.heads(x).split(self.CHANNELS, dim=1), self.joints(x)

    def forward(self, images: Tensor) -> Reading:
        """Return what is seen in images (B, 3, H, W) in [-1, 1]; H and W are multiples of 8."""
        seg, colour, log_depth, normal, boundary, lines, joints = self.raw(images)
        return Reading(
            seg=seg,
            colour=colour,
            depth=log_depth[:, 0].exp(),
            normal=functional.normalize(normal, dim=1),
            boundary=boundary[:, 0].sigmoid(),
            lines=lines[:, 0].sigmoid(),
            joints=joints.sigmoid(),
        )

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 64) mean bottleneck activations of images (B, 3, 64, 64) in [-1, 1]."""
        return self.encode(images)[-1].mean(dim=(2, 3))


def load_referee(file: Path = REFEREE_FILE) -> Referee:
    """Return a referee, the bundled one unless told otherwise, ready to judge in single precision."""
    tensors, _ = load_tensors(file)
    referee = Referee()
    referee.load_state_dict(tensors)
    return referee.to(memory_format=torch.channels_last).eval()


def build_image_processor() -> CLIPImageProcessorPil:
    """Return the preprocessing of the bundled CLIP: 64 x 64, values in [-1, 1]."""
    side, half = {"height": RESOLUTION, "width": RESOLUTION}, [0.5, 0.5, 0.5]
    return CLIPImageProcessorPil(size=side, do_center_crop=False, image_mean=half, image_std=half)


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """Return images uint8 (B, H, W, 3) as float (B, 3, H, W) in [-1, 1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_layer(inputs, outputs), *_layer(outputs, outputs))


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
