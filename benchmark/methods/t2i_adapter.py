"""T2I-Adapter: features of the conditioning image alone, added inside the U-Net's encoder.

Mou et al., arXiv 2302.08453; the network is diffusers' `T2IAdapter`, so a checkpoint is one of theirs.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers import T2IAdapter as T2IAdapterModel
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Method, Residuals
from benchmark.engine.pretrained import load_whole
from benchmark.methods._shared import read_network


class Adapter(nn.Module):
    """Calls a T2IAdapter the way every method is called."""

    def __init__(self, adapter: T2IAdapterModel) -> None:
        super().__init__()
        self.adapter = adapter

    @property
    def image_encoders(self) -> tuple[nn.Module, ...]:
        """What sees the conditioning image alone: all of it."""
        return (self.adapter,)

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return a residual for each level of the encoder, of the conditioning image (B, 3, H, W) in [0, 1] alone."""
        return Residuals(encoder=self.adapter(image))


@dataclass(frozen=True)
class T2IAdapter(Method):
    """The full adapter of the paper. Its layers begin at random: at the start the output is not the base's.

    Attributes:
        num_res_blocks: Residual blocks of each level.
    """

    num_res_blocks: int = 2

    def build(self, unet: nn.Module, latent_scale: int) -> Adapter:
        """Return an adapter with the widths of a U-Net's levels.

        Raises:
            UserError: A U-Net of Stable Diffusion XL, whose adapters have other places.
        """
        assert isinstance(unet, UNet2DConditionModel)
        if unet.config.addition_embed_type is not None:
            raise UserError("t2i_adapter is for Stable Diffusion 1 and 2; with XL take controlnet or controlnet_lite")
        return Adapter(
            T2IAdapterModel(
                channels=list(unet.config.block_out_channels),
                num_res_blocks=self.num_res_blocks,
                downscale_factor=latent_scale,
            )
        )

    def save(self, module: nn.Module, folder: Path) -> None:
        """Write `config.json` and safetensors as `T2IAdapter.from_pretrained` reads them."""
        assert isinstance(module, Adapter)
        module.adapter.save_pretrained(folder)

    def load(self, folder: str) -> Adapter:
        """Return the adapter of a folder or hub id.

        Raises:
            UserError: There is none, or it is damaged.
        """
        return Adapter(read_network(lambda: load_whole(T2IAdapterModel, folder), folder, "T2I-Adapter"))
