"""Mixed precision: close to single precision, in single precision where it must be, and gone afterwards."""

import pytest
import torch
from torch import nn

from benchmark.engine.bases import Base
from benchmark.engine.diffusion import loss
from benchmark.engine.precision import mixed_precision
from benchmark.methods.controlnet import Control, Controlnet


@pytest.fixture(scope="module")
def control(base: Base) -> Control:
    """Return a ControlNet whose zero layers no longer hold zeros, so that all of it takes part."""
    torch.manual_seed(0)
    control = Controlnet().build(base.unet, base.latent_scale)
    for parameter in control.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return control


def gradient(base: Base, control: Control, name: str) -> tuple[float, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 4, 16, 16, generator=draw) for _ in range(2))
    text = base.encode_text(base.token_ids(["a red cube"] * 4))
    image = torch.rand(4, 3, 64, 64, generator=draw)
    control.zero_grad()
    with mixed_precision(name, base.unet, control):
        value = loss(base, control, latents, noise, torch.tensor([3, 300, 600, 950]), text, image)
    value.backward()  # type: ignore[no-untyped-call]
    return value.item(), torch.cat([p.grad.flatten() for p in control.parameters() if p.grad is not None])


def test_loss_and_gradient_are_those_of_single_precision_nearly(base: Base, control: Control) -> None:
    single, mixed = gradient(base, control, "no"), gradient(base, control, "bf16")
    assert mixed[0] == pytest.approx(single[0], rel=5e-3)
    assert mixed[0] != single[0]
    assert torch.nn.functional.cosine_similarity(single[1], mixed[1], dim=0) > 0.98
    assert mixed[1].dtype == torch.float32


def test_norms_see_single_precision_within_and_nothing_is_left_behind(base: Base, control: Control) -> None:
    seen = []
    norm = next(module for module in control.modules() if isinstance(module, nn.GroupNorm))
    watch = norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].dtype))
    gradient(base, control, "bf16")
    watch.remove()
    assert seen == [torch.float32]
    assert not any(module._forward_pre_hooks for model in (base.unet, control) for module in model.modules())
    assert not torch.is_autocast_enabled("cpu")
