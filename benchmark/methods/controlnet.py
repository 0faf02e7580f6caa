"""ControlNet as its authors coded it: a trainable copy of the U-Net's encoder behind zero convolutions.

Zhang, Rao, Agrawala, arXiv 2302.05543; the network is diffusers' `ControlNetModel`, so a checkpoint is one of theirs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from benchmark.base.errors import UserError, did_you_mean
from benchmark.contracts.plugins import Method, Residuals
from benchmark.engine.bases import split_text
from benchmark.engine.checkpoints import load_tensors, save_tensors
from benchmark.engine.pretrained import load_whole
from benchmark.methods._shared import embedding_channels, read_network, zero

_INITS = ("zero", "gaussian")
_EMBEDDINGS = ("code", "paper")
_DECODER = "decoder.safetensors"
_DECODER_PARTS = ("up_blocks.", "conv_norm_out.", "conv_out.")


class PaperEmbedding(nn.Module):
    """The conditioning encoder in the words of the paper: 4 x 4 convolutions of stride 2, ReLU, Gaussian weights.

    As written it cannot be built: four strides of 2 end at half the side of Stable Diffusion's latents, at 128 channels
    where 320 are added. Here the strides stop at the side of the latents, and a zero 1 x 1 convolution, the last of the
    fourteen zero layers, widens the channels. The deviation of the Gaussian is not given: that of He for ReLU.
    """

    def __init__(self, channels: int, latent_scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        strides, before = latent_scale.bit_length() - 1, 3
        for i, width in enumerate((16, 32, 64, 128)):
            halves = i < strides  # else three more pixels, so that an even kernel keeps the side
            conv = nn.Conv2d(before, width, 4, stride=2 if halves else 1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [nn.ZeroPad2d(1 if halves else (1, 2, 1, 2)), conv, nn.ReLU()]
            before = width
        self.blocks = nn.Sequential(*layers)
        self.conv_out = zero(nn.Conv2d(before, channels, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, C, h, w) of an image (B, 3, H, W) in [0, 1]."""
        features: Tensor = self.conv_out(self.blocks(image))
        return features


class Control(nn.Module):
    """Calls a ControlNetModel the way every method is called.

    Args:
        controlnet: The network.
        mid_only: Whether only the middle residual is used.
        decoder: The U-Net's decoder by its own names, where it is trained too.
    """

    def __init__(
        self, controlnet: ControlNetModel, mid_only: bool = False, decoder: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.controlnet = controlnet
        self.mid_only = mid_only
        # in one order, whatever they were read from, for the optimiser's state; a ParameterDict takes no dots in names
        named = sorted((decoder or {}).items())
        self.decoder = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(weight) for name, weight in named})

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return 12 down residuals and a middle one for latents (B, C, h, w) and image (B, 3, H, W) in [0, 1].

        Of Stable Diffusion XL, which has a level less, there are 9 and a middle one.
        """
        states, added = split_text(self.controlnet.config, text, image)
        down, middle = self.controlnet(latents, timesteps, states, image, return_dict=False, **added)
        if self.mid_only:
            down = [residual.new_zeros(residual.shape) for residual in down]
        return Residuals(list(down), middle, weights=self.decoder_weights())

    @property
    def image_encoders(self) -> tuple[nn.Module, ...]:
        """What sees the conditioning image alone."""
        return (self.controlnet.controlnet_cond_embedding,)

    def decoder_weights(self) -> dict[str, Tensor]:
        """Return the trained decoder by the U-Net's own names; nothing where it is locked."""
        return {name.replace("/", "."): weight for name, weight in self.decoder.items()}


@dataclass(frozen=True)
class Controlnet(Method):
    """The paper's architecture with the conditioning encoder of its released code, and what it is compared with.

    Attributes:
        init: Of the output convolutions and the last of the conditioning encoder: "zero", or "gaussian" as in the
            ablation of section 4.2, where the output at the start is not the base's.
        std: Standard deviation of the Gaussian, which the paper does not give.
        embedding: The conditioning encoder: "code" (and diffusers), or "paper" (see `PaperEmbedding`), which diffusers
            does not load.
        mid_only: Control through the middle alone (`only_mid_control` of the released code).
        unlocked: Train the U-Net's decoder too (`sd_locked = False`; the authors advise a fifth of the learning rate).
            A checkpoint then holds it in `decoder.safetensors` under the U-Net's names.
    """

    init: str = "zero"
    std: float = 0.02
    embedding: str = "code"
    mid_only: bool = False
    unlocked: bool = False

    def __post_init__(self) -> None:
        """Refuse variants that do not exist."""
        for field, value, allowed in (("init", self.init, _INITS), ("embedding", self.embedding, _EMBEDDINGS)):
            if value not in allowed:
                raise UserError(f'controlnet has no {field} "{value}"; {did_you_mean(value, allowed)}')
        if not self.std > 0:
            raise UserError(f"controlnet: std={self.std} is not above 0")

    def build(self, unet: nn.Module, latent_scale: int) -> Control:
        """Return a copy of the U-Net's encoder and middle with 13 zero convolutions and a zero-ended image encoder."""
        assert isinstance(unet, UNet2DConditionModel)
        channels = embedding_channels(latent_scale)
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels)
        if self.embedding == "paper":
            controlnet.controlnet_cond_embedding = PaperEmbedding(unet.config.block_out_channels[0], latent_scale)
        if self.init == "gaussian":
            for conv in self._zero_layers(controlnet):
                nn.init.normal_(conv.weight, std=self.std)
        decoder = {n: p.detach().clone() for n, p in unet.named_parameters() if n.startswith(_DECODER_PARTS)}
        return Control(controlnet, self.mid_only, decoder if self.unlocked else None)

    def _zero_layers(self, controlnet: ControlNetModel) -> Iterator[nn.Conv2d]:
        """Yield the layers that begin as zero and are used."""
        if not self.mid_only:
            yield from controlnet.controlnet_down_blocks
        yield controlnet.controlnet_mid_block
        yield controlnet.controlnet_cond_embedding.conv_out

    def save(self, module: nn.Module, folder: Path) -> None:
        """Write `config.json` and safetensors as `ControlNetModel.from_pretrained` reads them."""
        assert isinstance(module, Control)
        module.controlnet.save_pretrained(folder)
        if self.unlocked:
            save_tensors(folder / _DECODER, module.decoder_weights())

    def load(self, folder: str) -> Control:
        """Return the ControlNet of a folder or hub id.

        Raises:
            UserError: There is none, or it is damaged.
        """
        controlnet = read_network(lambda: self._read(folder), folder, "ControlNet")
        decoder = load_tensors(Path(folder) / _DECODER)[0] if self.unlocked else None
        return Control(controlnet, self.mid_only, decoder)

    def _read(self, folder: str) -> ControlNetModel:
        if self.embedding == "code":
            whole: ControlNetModel = load_whole(ControlNetModel, folder)
            return whole
        controlnet = ControlNetModel.from_config(ControlNetModel.load_config(folder))
        config = controlnet.config
        scale = 2 ** (len(config.conditioning_embedding_out_channels) - 1)
        controlnet.controlnet_cond_embedding = PaperEmbedding(config.block_out_channels[0], scale)
        tensors, _ = load_tensors(Path(folder) / "diffusion_pytorch_model.safetensors")
        controlnet.load_state_dict(tensors)
        return controlnet
