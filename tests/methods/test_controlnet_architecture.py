"""The paper's architecture and learning dynamics, exactly, on a tiny U-Net (arXiv 2302.05543, sections 3.1 to 3.3)."""

import hashlib
from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from benchmark.base.errors import UserError
from benchmark.methods.controlnet import Control, Controlnet

RATE = 1e-5
SIDE = 16  # of the latent


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE,
        layers_per_block=2,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    unet.requires_grad_(False)
    return unet.eval()


class Bench:
    """A frozen base, a control on it, and one batch to fit."""

    def __init__(self, latent_scale: int = 4) -> None:
        self.unet = tiny_unet()
        self.control = Controlnet().build(self.unet, latent_scale)
        self.net: ControlNetModel = self.control.controlnet
        draw = torch.Generator().manual_seed(1)
        self.latents, self.target = (torch.randn(2, 4, SIDE, SIDE, generator=draw) for _ in range(2))
        self.timesteps = torch.tensor([10, 700])
        self.text = torch.randn(2, 5, 8, generator=draw)
        self.image = torch.rand(2, 3, SIDE * latent_scale, SIDE * latent_scale, generator=draw)

    def predict(self) -> Tensor:
        down, middle, *_ = self.control(self.latents, self.timesteps, self.text, self.image)
        prediction: Tensor = self.unet(
            self.latents,
            self.timesteps,
            self.text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return prediction

    def optimizer(self, weight_decay: float = 0.01) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.control.parameters(), lr=RATE, weight_decay=weight_decay)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        functional.mse_loss(self.predict(), self.target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def outputs(self) -> list[nn.Conv2d]:
        return [*self.net.controlnet_down_blocks, self.net.controlnet_mid_block]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter under the row of the paper's table it belongs to."""
        embedding = self.net.controlnet_cond_embedding
        earlier = chain(embedding.conv_in.parameters(), embedding.blocks.parameters())
        parts = {
            "outputs": [p for conv in self.outputs() for p in conv.parameters()],
            "last conditioning conv": list(embedding.conv_out.parameters()),
            "earlier conditioning convs": list(earlier),
        }
        known = {id(p) for group in parts.values() for p in group}
        return {**parts, "copy": [p for p in self.control.parameters() if id(p) not in known]}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def share_with_gradient(parameters: list[nn.Parameter]) -> float:
    return sum(p.grad is not None and bool(p.grad.any()) for p in parameters) / len(parameters)


def snapshot(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def state_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("latent_scale", [4, 8])
@torch.no_grad()
def test_a_fresh_control_changes_no_bit_of_the_base_output(latent_scale: int) -> None:
    bench = Bench(latent_scale)
    alone = bench.unet(bench.latents, bench.timesteps, bench.text, return_dict=False)[0]
    assert alone.abs().max() > 0.1
    assert (bench.predict() - alone).abs().max().item() == 0.0


def test_the_base_output_depends_on_all_thirteen_residuals(bench: Bench) -> None:
    down, middle, *_ = bench.control(bench.latents, bench.timesteps, bench.text, bench.image)
    residuals = [torch.zeros_like(r, requires_grad=True) for r in (*down, middle)]
    bench.unet(
        bench.latents,
        bench.timesteps,
        bench.text,
        down_block_additional_residuals=residuals[:-1],
        mid_block_additional_residual=residuals[-1],
        return_dict=False,
    )[0].sum().backward()
    assert [bool(r.grad.any()) for r in residuals if r.grad is not None] == [True] * 13


def test_there_are_thirteen_zero_convolutions_of_one_pixel(bench: Bench) -> None:
    assert len(bench.net.controlnet_down_blocks) == 12
    assert len(bench.outputs()) == 13
    assert {conv.kernel_size for conv in bench.outputs()} == {(1, 1)}
    assert not any(bool(p.any()) for p in bench.parts()["outputs"])


def test_only_the_last_layer_of_the_conditioning_encoder_is_zero(bench: Bench) -> None:
    parts = bench.parts()
    assert not any(bool(p.any()) for p in parts["last conditioning conv"])
    assert all(bool(p.any()) for p in parts["earlier conditioning convs"])


@pytest.mark.parametrize(("latent_scale", "convolutions"), [(2, 4), (4, 6), (8, 8)])
def test_the_conditioning_encoder_ends_at_the_latent_resolution(latent_scale: int, convolutions: int) -> None:
    bench = Bench(latent_scale)
    embedding = bench.net.controlnet_cond_embedding
    assert embedding(bench.image).shape == (2, 8, SIDE, SIDE)
    assert sum(isinstance(module, nn.Conv2d) for module in embedding.modules()) == convolutions


def test_the_blocks_leave_at_the_sizes_of_the_skips_they_are_added_to(bench: Bench) -> None:
    down, middle, *_ = bench.control(bench.latents, bench.timesteps, bench.text, bench.image)
    sizes = [(8, 16)] * 3 + [(8, 8)] * 3 + [(8, 4)] + [(16, 4)] * 2 + [(16, 2)] * 3
    assert [(r.shape[1], r.shape[2]) for r in down] == sizes
    assert middle.shape == (2, 16, 2, 2)


def test_the_copy_is_the_base_encoder_and_middle_and_no_decoder(bench: Bench) -> None:
    base, copy = bench.unet.state_dict(), bench.net.state_dict()
    shared = {name for name in copy if not name.startswith("controlnet_")}
    assert shared == {name for name in base if not name.startswith(("up_blocks", "conv_norm_out", "conv_out"))}
    assert all(torch.equal(copy[name], base[name]) for name in shared)
    assert all(copy[name].data_ptr() != base[name].data_ptr() for name in shared)
    assert all(p.requires_grad for p in bench.control.parameters())


def test_gradient_reaches_the_layers_one_update_after_another(bench: Bench) -> None:
    optimizer = bench.optimizer()
    rows = []
    for _ in range(3):
        bench.update(optimizer)
        rows.append({name: share_with_gradient(parameters) for name, parameters in bench.parts().items()})
    assert rows == [
        {"outputs": 1.0, "copy": 0.0, "last conditioning conv": 0.0, "earlier conditioning convs": 0.0},
        {"outputs": 1.0, "copy": 1.0, "last conditioning conv": 1.0, "earlier conditioning convs": 0.0},
        {"outputs": 1.0, "copy": 1.0, "last conditioning conv": 1.0, "earlier conditioning convs": 1.0},
    ]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_first_update_moves_outputs_by_the_learning_rate_and_the_rest_by_its_decay_alone(
    weight_decay: float,
) -> None:
    bench = Bench()
    parts = bench.parts()
    before = {name: snapshot(parameters) for name, parameters in parts.items()}
    bench.update(bench.optimizer(weight_decay))
    largest_move = max(float(p.detach().abs().max()) for p in parts.pop("outputs"))  # from zero
    assert largest_move == pytest.approx(RATE, rel=1e-4)
    for name, parameters in parts.items():
        assert all(torch.equal(p, b * (1 - RATE * weight_decay)) for p, b in zip(parameters, before[name], strict=True))


def test_updates_change_no_bit_of_the_base(bench: Bench) -> None:
    optimizer, before = bench.optimizer(), state_sha256(bench.unet)
    alone = bench.predict().detach()
    for _ in range(3):
        bench.update(optimizer)
    assert not torch.equal(bench.predict(), alone)
    assert state_sha256(bench.unet) == before


def test_an_impossible_latent_scale_is_refused_with_the_possible_ones() -> None:
    with pytest.raises(UserError, match=r"16 is not possible; allowed: \[2, 4, 8\]"):
        Controlnet().build(tiny_unet(), 16)


def counts(modules: Iterator[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_at_the_size_of_stable_diffusion_every_part_has_the_parameters_of_the_released_code() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        control: Control = Controlnet().build(unet, 8)
    net = control.controlnet
    assert counts(iter([unet])) == 859_520_964
    assert counts(iter([control])) == 361_279_120
    assert counts(iter([net.conv_in, net.down_blocks])) == 249_624_320
    assert counts(iter([net.mid_block])) == 97_038_080
    assert counts(iter([net.time_embedding])) == 2_050_560
    assert counts(iter([net.controlnet_cond_embedding])) == 1_086_480
    assert counts(iter([net.controlnet_down_blocks, net.controlnet_mid_block])) == 11_479_680
