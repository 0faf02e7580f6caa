"""Mixed precision: torch's autocast, less the kernels that are slower in bfloat16 than in single precision."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Network = TypeVar("Network", bound=nn.Module)

MIXED_PRECISION = ("no", "bf16")


@contextmanager
def mixed_precision(name: str, *models: nn.Module) -> Iterator[None]:
    """Compute what models do within in the precision of a name of MIXED_PRECISION, the words of accelerate.

    With "bf16" convolutions and products are in bfloat16, weights, sums and group norms in single precision. On a CPU
    torch's group norm takes three times as long in bfloat16 and the backward pass of its fused attention seven times:
    norms get single precision, attention is computed in plain products; by diffusers in its own networks, since torch
    looks for masked rows in every softmax (docs/LOG.md).
    """
    if name == "no":
        yield
        return
    device = next(models[0].parameters()).device.type
    norms = [module for model in models for module in model.modules() if isinstance(module, nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(_as_single) for norm in norms]
    try:
        with torch.autocast(device, torch.bfloat16), _plain_attention(models) if device == "cpu" else nullcontext():
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _plain_attention(models: Sequence[nn.Module]) -> Iterator[None]:
    """Have attention computed in plain products."""
    layers = [module for model in models for module in model.modules() if isinstance(module, Attention)]
    fused = [(layer, layer.processor) for layer in layers if type(layer.processor) is AttnProcessor2_0]
    for layer, _ in fused:
        layer.processor = AttnProcessor()
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        for layer, processor in fused:
            layer.processor = processor


def frozen_for(name: str, network: Network) -> Network:
    """Return what computes the bits of a frozen network in the precision of a name of MIXED_PRECISION, but sooner.

    With "bf16" it is a copy that holds the weights of convolutions and products in bfloat16, which autocast would
    make of them in every step. Weights put in their place in single precision (as a trained decoder's) are still cast.
    """
    if name == "no":
        return network
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    return twin.to(memory_format=layout_for(name, next(twin.parameters()).device))


def layout_for(name: str, device: torch.device) -> torch.memory_format:
    """Return the layout in which a device is fastest in the precision of a name of MIXED_PRECISION.

    That is channels-last on a processor with tiles for bfloat16 (AMX); on one without it is slower (docs/LOG.md).
    """
    tiles = name == "bf16" and device.type == "cpu" and has_tiles()
    return torch.channels_last if tiles else torch.contiguous_format


def has_tiles() -> bool:
    """Whether the processor multiplies matrices of bfloat16 in tiles (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def _as_single(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)
