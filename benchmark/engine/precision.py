"""Mixed precision: torch's autocast, less the kernels that are slower in bfloat16 than in single precision."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

Network = TypeVar("Network", bound=nn.Module)

MIXED_PRECISION = ("no", "bf16")
_PRODUCTS = {
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}


@contextmanager
def mixed_precision(name: str, *models: nn.Module) -> Iterator[None]:
    """Compute what models do within in the precision of a name of MIXED_PRECISION, the words of accelerate.

    With "bf16" convolutions and products are in bfloat16, weights, sums and group norms in single precision. On a CPU
    torch's group norm takes three times as long in bfloat16 and the backward pass of its fused attention seven times:
    norms get single precision, attention is computed in plain products; by diffusers in its own networks, since torch
    looks for masked rows in every softmax (docs/LOG.md). A processor without instructions for bfloat16 multiplies the
    rounded numbers in single precision: torch's own kernels would take ten times as long there.
    """
    if name == "no":
        yield
        return
    device = next(models[0].parameters()).device.type
    norms = [module for model in models for module in model.modules() if isinstance(module, nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(_as_single) for norm in norms]
    try:
        with torch.autocast(device, torch.bfloat16), ExitStack() as stack:
            if device == "cpu":
                stack.enter_context(_plain_attention(models))
            if device == "cpu" and not has_bfloat16():
                stack.enter_context(_SinglePrecisionProducts())  # type: ignore[no-untyped-call]
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _SinglePrecisionProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Convolutions and products of bfloat16, and their backward passes, computed in single precision and rounded."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func not in _PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):  # or it would put them in bfloat16 again
            found = func(*_in(torch.float32, args), **named)
        return found.bfloat16() if isinstance(found, Tensor) else _in(torch.bfloat16, found)


def _in(dtype: torch.dtype, values: Iterable[object]) -> tuple[object, ...]:
    return tuple(value.to(dtype) if isinstance(value, Tensor) else value for value in values)


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


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 that torch's convolutions and products use (AVX-512)."""
    built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built_in and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _as_single(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)
