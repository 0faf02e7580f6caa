"""Mixed precision: close to single precision, in single precision where it must be, and gone afterwards."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import nn

from benchmark.contracts.plugins import Method
from benchmark.engine import precision
from benchmark.engine.bases import Base
from benchmark.engine.diffusion import loss
from benchmark.engine.precision import frozen_for, mixed_precision
from benchmark.methods.controlnet import Controlnet
from benchmark.methods.t2i_adapter import T2IAdapter


@pytest.fixture(scope="module")
def control(base: Base) -> nn.Module:
    """Return a ControlNet all of which takes part."""
    return loud(Controlnet(), base)


def loud(method: Method, base: Base) -> nn.Module:
    """Return a method's module whose zero layers no longer hold zeros."""
    torch.manual_seed(0)
    control = method.build(base.unet, base.latent_scale)
    for parameter in control.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return control


def gradient(base: Base, control: nn.Module, name: str) -> tuple[float, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 4, 16, 16, generator=draw) for _ in range(2))
    text = base.encode_text(base.token_ids(["a red cube"] * 4))
    image = torch.rand(4, 3, 64, 64, generator=draw)
    control.zero_grad()
    with mixed_precision(name, base.unet, control):
        value = loss(base, control, latents, noise, torch.tensor([3, 300, 600, 950]), text, image)
    value.backward()  # type: ignore[no-untyped-call]
    return value.item(), torch.cat([p.grad.flatten() for p in control.parameters() if p.grad is not None])


def test_loss_and_gradient_are_those_of_single_precision_nearly(base: Base, control: nn.Module) -> None:
    single, mixed = gradient(base, control, "no"), gradient(base, control, "bf16")
    assert mixed[0] == pytest.approx(single[0], rel=5e-3)
    assert mixed[0] != single[0]
    assert torch.nn.functional.cosine_similarity(single[1], mixed[1], dim=0) > 0.98
    assert mixed[1].dtype == torch.float32


def test_norms_see_single_precision_within_and_nothing_is_left_behind(base: Base, control: nn.Module) -> None:
    seen = []
    norm = next(module for module in control.modules() if isinstance(module, nn.GroupNorm))
    watch = norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].dtype))
    gradient(base, control, "bf16")
    watch.remove()
    assert seen == [torch.float32]
    assert not any(module._forward_pre_hooks for model in (base.unet, control) for module in model.modules())
    assert not torch.is_autocast_enabled("cpu")


def test_without_instructions_for_bfloat16_training_is_nearly_the_same(
    base: Base, control: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for has in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16", lambda has=has: has)
        found.append(gradient(base, control, "bf16"))
    (value, gradients), (rounded, others) = found
    assert rounded == pytest.approx(value, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(gradients, others, dim=0) > 0.99


def test_without_instructions_for_bfloat16_factors_and_products_are_rounded(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    draw = torch.Generator().manual_seed(0)
    x, layer = torch.randn(2, 8, 16, 16, generator=draw), nn.Conv2d(8, 4, 3)
    a, b = torch.randn(3, 5, 7, generator=draw), torch.randn(3, 7, 2, generator=draw)
    with mixed_precision("bf16", base.unet):
        found = [layer(x), torch.bmm(a, b), a @ b, nn.functional.linear(a, b[0].T)]
    assert {product.dtype for product in found} == {torch.bfloat16}

    def exact(value: torch.Tensor) -> torch.Tensor:
        return value.detach().bfloat16().double()

    weight, bias = exact(layer.weight), exact(layer.bias) if layer.bias is not None else None
    products = exact(a) @ exact(b)
    wanted = [nn.functional.conv2d(exact(x), weight, bias), products, products, exact(a) @ exact(b[0])]
    for product, true in zip(found, wanted, strict=True):
        torch.testing.assert_close(product.double(), true, rtol=2**-8, atol=1e-4)  # half a unit of its last bit


@pytest.mark.parametrize("has", {precision.has_bfloat16(), False})
@pytest.mark.parametrize("method", [Controlnet(), Controlnet(unlocked=True), T2IAdapter()], ids=str)
def test_the_frozen_copy_computes_the_same_bits(
    base: Base, method: Method, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_tiles", lambda: False)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    control = loud(method, base)
    faster = replace(base, unet=frozen_for("bf16", base.unet))
    (value, gradients), (sooner, others) = (gradient(one, control, "bf16") for one in (base, faster))
    assert value == sooner
    assert torch.equal(gradients, others)
    assert {p.dtype for p in base.unet.parameters()} == {torch.float32}


def test_the_frozen_copy_in_channels_last_computes_nearly_the_same(
    base: Base, control: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_tiles", lambda: True)
    faster = replace(base, unet=frozen_for("bf16", base.unet))
    assert faster.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    (value, gradients), (sooner, others) = (gradient(one, control, "bf16") for one in (base, faster))
    assert sooner == pytest.approx(value, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(gradients, others, dim=0) > 0.99


def test_without_mixed_precision_nothing_is_copied(base: Base) -> None:
    assert frozen_for("no", base.unet) is base.unet


def test_attention_is_put_back(base: Base, control: nn.Module) -> None:
    layers = [module for module in base.unet.modules() if isinstance(module, Attention)]
    before, within = [layer.processor for layer in layers], []
    watch = layers[0].register_forward_pre_hook(lambda layer, _: within.append(type(layer.processor)))
    gradient(base, control, "bf16")
    watch.remove()
    assert within == [AttnProcessor]
    assert [layer.processor for layer in layers] == before
    assert {type(processor) for processor in before} == {AttnProcessor2_0}
