"""Mixed precision: torch's autocast, less the kernels that are slower in bfloat16 than in single precision."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

MIXED_PRECISION = ("no", "bf16")


@contextmanager
def mixed_precision(name: str, *models: nn.Module) -> Iterator[None]:
    """Compute what models do within in the precision of a name of MIXED_PRECISION, the words of accelerate.

    With "bf16" convolutions and products are in bfloat16, weights, sums and group norms in single precision. On a CPU
    torch's group norm takes three times as long in bfloat16 and the backward pass of its fused attention seven times:
    norms get single precision, attention is computed in plain products (docs/LOG.md).
    """
    if name == "no":
        yield
        return
    device = next(models[0].parameters()).device.type
    norms = [module for model in models for module in model.modules() if isinstance(module, nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(_as_single) for norm in norms]
    attention = sdpa_kernel([SDPBackend.MATH]) if device == "cpu" else nullcontext()
    try:
        with torch.autocast(device, torch.bfloat16), attention:
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _as_single(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)
