"""What the methods share: zero convolutions, the size of the conditioning encoder, and reading a saved network."""

from collections.abc import Callable
from typing import TypeVar

from diffusers import ModelMixin
from diffusers.configuration_utils import FrozenDict
from torch import nn

from benchmark.base.errors import UserError, first_line
from benchmark.engine.pretrained import UNREADABLE

M = TypeVar("M", bound=ModelMixin)

# Channels of the conditioning encoder at 1, 1/2, 1/4 and 1/8 of the image side, as in diffusers.
_EMBEDDING_CHANNELS = (16, 32, 96, 256)
_STAGES = {2: 2, 4: 3, 8: 4}


def embedding_channels(latent_scale: int) -> tuple[int, ...]:
    """Return the channels of a conditioning encoder that ends at the side of the latents.

    Raises:
        UserError: No such encoder.
    """
    if latent_scale not in _STAGES:
        raise UserError(f"a latent scale of {latent_scale} is not possible; allowed: {[*_STAGES]}")
    return _EMBEDDING_CHANNELS[: _STAGES[latent_scale]]


def zero(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution with weight and bias set to zero (arXiv 2302.05543, section 3.1)."""
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def read_network(read: Callable[[], M], folder: str, what: str) -> M:
    """Return the network that a diffusers loader reads, without the place it was read from in its configuration.

    A resumed run must write what an uninterrupted one writes.

    Raises:
        UserError: There is none, or it is damaged.
    """
    try:
        network = read()
    except UNREADABLE as error:
        reason = first_line(error)
        raise UserError(f"no {what} at {folder} ({reason}); give a folder or a hub id") from None
    network._internal_dict = FrozenDict({n: v for n, v in network.config.items() if n != "_name_or_path"})
    return network
