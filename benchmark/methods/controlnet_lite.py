"""ControlNet-lite, of the paper's ablation: one convolution from scratch in place of each copied block.

Zhang, Rao, Agrawala, arXiv 2302.05543, section 4.2 and figure 8 (c). No code of it was released.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn
from torch.nn import functional

from benchmark.contracts.plugins import Method, Residuals
from benchmark.engine.pretrained import load_whole
from benchmark.methods._shared import embedding_channels, read_network, zero


class ControlnetLiteModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A chain of 3 x 3 convolutions, one for each skip of a U-Net and one for its middle, behind zero convolutions.

    It sees noisy latents and conditioning image, and, having no blocks to take them, neither timestep nor prompt.

    Args:
        in_channels: Of the latents.
        block_out_channels: Of the U-Net's levels.
        layers_per_block: Blocks of a level.
        conditioning_embedding_out_channels: Of the conditioning encoder, as in `ControlNetModel`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int,
        block_out_channels: tuple[int, ...],
        layers_per_block: int,
        conditioning_embedding_out_channels: tuple[int, ...],
    ) -> None:
        super().__init__()
        first, last = block_out_channels[0], block_out_channels[-1]
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            first, block_out_channels=conditioning_embedding_out_channels
        )
        self.blocks = nn.ModuleList()
        widths = [first]
        for level, width in enumerate(block_out_channels):
            down = [2] if level < len(block_out_channels) - 1 else []
            for stride in [1] * layers_per_block + down:
                self.blocks.append(nn.Conv2d(widths[-1], width, 3, stride, padding=1))
                widths.append(width)
        self.mid_block = nn.Conv2d(last, last, 3, padding=1)
        self.outputs = nn.ModuleList(zero(nn.Conv2d(width, width, 1)) for width in [*widths, last])

    @property
    def image_encoders(self) -> tuple[nn.Module, ...]:
        """What sees the conditioning image alone."""
        return (self.controlnet_cond_embedding,)

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return 12 down residuals and a middle one for latents (B, C, h, w) and image (B, 3, H, W) in [0, 1]."""
        x = self.conv_in(latents) + self.controlnet_cond_embedding(image)
        features = [x]
        for block in (*self.blocks, self.mid_block):
            features.append(block(functional.silu(features[-1])))
        *down, middle = (output(feature) for output, feature in zip(self.outputs, features, strict=True))
        return Residuals(down, middle)


@dataclass(frozen=True)
class ControlnetLite(Method):
    """One convolution for each block of the encoder, trained from scratch, behind the same zero convolutions."""

    def build(self, unet: nn.Module, latent_scale: int) -> ControlnetLiteModel:
        """Return a module whose residuals fit a U-Net's skips and middle, all zero at the start."""
        assert isinstance(unet, UNet2DConditionModel)
        config = unet.config
        channels = embedding_channels(latent_scale)
        widths = tuple(config.block_out_channels)
        model: ControlnetLiteModel = ControlnetLiteModel(config.in_channels, widths, config.layers_per_block, channels)
        return model

    def save(self, module: nn.Module, folder: Path) -> None:
        """Write `config.json` and safetensors, as `ControlnetLiteModel.from_pretrained` reads them."""
        assert isinstance(module, ControlnetLiteModel)
        module.save_pretrained(folder)

    def load(self, folder: str) -> ControlnetLiteModel:
        """Return the module of a folder.

        Raises:
            UserError: There is none, or it is damaged.
        """
        model: ControlnetLiteModel = read_network(
            lambda: load_whole(ControlnetLiteModel, folder), folder, "ControlNet-lite"
        )
        return model
