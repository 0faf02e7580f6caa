"""ControlNet as its authors coded it: a trainable copy of the U-Net's encoder behind zero convolutions.

Zhang, Rao, Agrawala, arXiv 2302.05543; the network is diffusers' `ControlNetModel`, so a checkpoint is one of theirs.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Method

# Channels of the conditioning encoder at 1, 1/2, 1/4 and 1/8 of the image side, as in diffusers.
_EMBEDDING_CHANNELS = (16, 32, 96, 256)
_STAGES = {2: 2, 4: 3, 8: 4}


class Control(nn.Module):
    """Calls a ControlNetModel the way every method is called."""

    def __init__(self, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.controlnet = controlnet

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return (12 down residuals, middle residual) for latents (B, C, h, w) and image (B, 3, H, W) in [0, 1]."""
        down, middle = self.controlnet(latents, timesteps, text, image, return_dict=False)
        return list(down), middle


@dataclass(frozen=True)
class Controlnet(Method):
    """The paper's architecture with the conditioning encoder of its released code."""

    def build(self, unet: nn.Module, latent_scale: int) -> Control:
        """Return a copy of the U-Net's encoder and middle with 13 zero convolutions and a zero-ended image encoder."""
        assert isinstance(unet, UNet2DConditionModel)
        if latent_scale not in _STAGES:
            raise UserError(f"controlnet: a latent scale of {latent_scale} is not possible; allowed: {[*_STAGES]}")
        channels = _EMBEDDING_CHANNELS[: _STAGES[latent_scale]]
        return Control(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels))

    def save(self, module: nn.Module, folder: Path) -> None:
        """Write `config.json` and safetensors as `ControlNetModel.from_pretrained` reads them."""
        assert isinstance(module, Control)
        module.controlnet.save_pretrained(folder)

    def load(self, folder: str) -> Control:
        """Return the ControlNet of a folder or hub id.

        Raises:
            UserError: There is none, or it is damaged.
        """
        try:
            controlnet = ControlNetModel.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"no ControlNet at {folder} ({reason}); give a folder or a hub id") from None
        # diffusers notes where it loaded from; a resumed run must write what an uninterrupted one writes
        config = {name: value for name, value in controlnet.config.items() if name != "_name_or_path"}
        controlnet._internal_dict = FrozenDict(config)
        return Control(controlnet)
