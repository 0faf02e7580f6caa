"""Operations counted over shapes are those counted layer by layer while images are really made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from benchmark import registry
from benchmark.contracts.plugins import Method
from benchmark.engine.bases import Base, load_base
from benchmark.engine.costs import flops_of_image, flops_of_training_image
from benchmark.engine.diffusion import Sampling, sample
from tests.small_bases import write_base

STEPS = 3


@contextmanager
def counted(*modules: nn.Module) -> Iterator[list[int]]:
    """Count convolutions, linear layers and attention by hooks: two operations a multiplication, by the definitions."""
    counts: list[int] = []

    def linear(layer: nn.Linear, _: Any, output: torch.Tensor) -> None:
        counts.append(2 * output.numel() * layer.in_features)

    def convolution(layer: nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        counts.append(2 * output.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] ** 2)

    def attention(layer: Attention, args: Any, keywords: dict[str, Any], _: Any) -> None:
        hidden = args[0] if args else keywords["hidden_states"]
        hidden = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden  # the autoencoder's is of pixels
        others = keywords.get("encoder_hidden_states")
        keys = hidden.shape[1] if others is None else others.shape[1]
        counts.append(2 * 2 * hidden.shape[0] * hidden.shape[1] * keys * layer.to_q.out_features)

    handles = []
    for module in (layer for each in modules for layer in each.modules()):
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(linear))
        elif isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(convolution))
        elif isinstance(module, Attention):
            handles.append(module.register_forward_hook(attention, with_kwargs=True))
    yield counts
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module", params=["scenes-tiny", "sd15"])
def any_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    if request.param == "scenes-tiny":
        return load_base("scenes-tiny")
    return load_base(str(write_base("sd15", tmp_path_factory.mktemp("base") / "small", 8)))


@pytest.mark.parametrize("steered", [False, True])
def test_an_image_costs_what_its_layers_count(any_base: Base, steered: bool) -> None:
    control = registry.make(Method, "controlnet").build(any_base.unet, any_base.latent_scale) if steered else None
    text = next(module for module in vars(any_base).values() if "TextModel" in type(module).__name__)
    parts = [any_base.unet, any_base.vae, *([control] if control else [])]
    latent = 64 // any_base.latent_scale
    latents = torch.zeros(1, any_base.unet.config.in_channels, latent, latent)
    with counted(*parts) as counts, torch.no_grad():
        sample(any_base, control, latents, [""], torch.zeros(1, 3, 64, 64), Sampling(num_inference_steps=STEPS))
    with counted(text) as words, torch.no_grad():
        tokens = any_base.token_ids(["", ""])
        any_base.encode_text(tokens)
    looks = text.config.num_hidden_layers * 4 * 2 * tokens.shape[1] ** 2 * text.config.hidden_size  # of another class
    assert flops_of_image(any_base, control, 64, STEPS) == sum(counts) + sum(words) + looks


def test_counting_computes_nothing_and_leaves_no_gradient(any_base: Base) -> None:
    control = registry.make(Method, "controlnet").build(any_base.unet, any_base.latent_scale)
    before = {name: value.clone() for name, value in control.state_dict().items()}
    alone = flops_of_image(any_base, None, 64, 1)
    forward = flops_of_image(any_base, control, 64, 1) - alone + flops_of_image(any_base, None, 64, 2) - alone
    update = flops_of_training_image(any_base, control, 64)
    # A forward pass is of two branches. Backwards the control takes twice its own, the decoder of the base once.
    assert forward / 2 < update < 3 * forward / 2
    assert all(weights.grad is None for weights in control.parameters())
    assert all(torch.equal(value, before[name]) for name, value in control.state_dict().items())
