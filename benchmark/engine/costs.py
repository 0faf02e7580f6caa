"""What images and trainings cost in floating-point operations, counted over shapes alone: nothing is computed."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.engine.bases import Base
from benchmark.engine.controls import Summed, encoded_once
from benchmark.engine.diffusion import denoise, loss


def flops_of_image(base: Base, control: nn.Module | None, side: int, num_inference_steps: int) -> int:
    """Return the operations behind one image: so many steps with its prompt and without, and the decoder.

    Convolutions and products of matrices count, a multiplication and an addition as two; the rest is small.

    Args:
        base: The frozen model.
        control: A method's module, or None for the base alone.
        side: Pixels of a side.
        num_inference_steps: Of the sampler.
    """

    def steps(count: int) -> None:
        latents, timesteps, text, image = _inputs(base, side, 2, _maps_of(control))
        with encoded_once(control):
            for _ in range(count):
                denoise(base, control, latents, timesteps, text, image)

    with torch.no_grad():
        encoding = _count(lambda: _inputs(base, side, 2))
        decoding = _count(lambda: base.decode(_inputs(base, side, 1)[0])) - encoding // 2
        first, both = _count(lambda: steps(1)), _count(lambda: steps(2))
        return first + (num_inference_steps - 1) * (both - first) + decoding


def flops_of_training_image(base: Base, control: nn.Module, side: int) -> int:
    """Return the operations of one image in one update: loss and gradients; latents and prompt are encoded before."""
    trained = [weights for weights in control.parameters() if weights.requires_grad]
    base = replace(base, scheduler=copy.deepcopy(base.scheduler))  # on a GPU it keeps the tensors it met, of no values

    def update() -> None:
        with torch.no_grad():
            latents, timesteps, text, image = _inputs(base, side, 1)
        torch.autograd.grad(loss(base, control, latents, latents, timesteps, text, image), trained, allow_unused=True)

    with torch.no_grad():
        encoding = _count(lambda: _inputs(base, side, 1))
    with torch.enable_grad():
        return _count(update) - encoding


def _maps_of(control: nn.Module | None) -> int:
    """Return how many conditioning images a control reads, three channels each."""
    return len(control.controls) if isinstance(control, Summed) else 1


def _inputs(base: Base, side: int, count: int, maps: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return latents, timesteps, text and conditioning images of so many samples."""
    latent = side // base.latent_scale
    return (
        torch.zeros(count, base.unet.config.in_channels, latent, latent, device=base.device),
        torch.ones(count, dtype=torch.long, device=base.device),
        base.encode_text(base.token_ids([""] * count)),
        torch.zeros(count, 3 * maps, side, side, device=base.device),
    )


def _count(work: Callable[[], object]) -> int:
    """Return the operations of some work on tensors without values; attention is counted where it is two products."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        work()
    return int(counter.get_total_flops())
