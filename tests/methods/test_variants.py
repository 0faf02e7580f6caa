"""Every method and variant on the bundled base: what it does at the start, what it trains, what it leaves on disk."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Method
from benchmark.engine.bases import Base
from benchmark.engine.diffusion import denoise, loss
from benchmark.methods.controlnet import Control, Controlnet, PaperEmbedding
from benchmark.methods.controlnet_lite import ControlnetLite
from benchmark.methods.t2i_adapter import T2IAdapter

UNCHANGED_AT_THE_START = [
    "controlnet",
    "controlnet,embedding=paper",
    "controlnet,mid_only=true",
    "controlnet,unlocked=true",
    "controlnet_lite",
]
CHANGED_AT_THE_START = ["controlnet,init=gaussian", "controlnet,init=gaussian,mid_only=true", "t2i_adapter"]
every_variant = pytest.mark.parametrize("spec", UNCHANGED_AT_THE_START + CHANGED_AT_THE_START)
RATE = 1e-3


@pytest.fixture(scope="module")
def batch(base: Base) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return latents, noise, timesteps, text states and conditioning image of two samples."""
    draw = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 4, 16, 16, generator=draw) for _ in range(2))
    text = base.encode_text(base.token_ids(["a large red sphere", ""]))
    return latents, noise, torch.tensor([100, 800]), text, torch.rand(2, 3, 64, 64, generator=draw)


def fresh(spec: str, base: Base) -> tuple[Method, nn.Module]:
    method = registry.make(Method, spec)
    torch.manual_seed(0)
    return method, method.build(base.unet, base.latent_scale)


@torch.no_grad()
def predict(base: Base, module: nn.Module | None, batch: tuple[Tensor, ...]) -> Tensor:
    latents, _, timesteps, text, image = batch
    return denoise(base, module, latents, timesteps, text, image)


def update(base: Base, module: nn.Module, batch: Any, times: int = 1) -> float:
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE)
    for _ in range(times):
        optimizer.zero_grad()
        value = loss(base, module, *batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(value.detach())


def state_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("spec", UNCHANGED_AT_THE_START)
def test_what_begins_with_zero_convolutions_changes_no_bit_at_the_start(spec: str, base: Base, batch: Any) -> None:
    assert torch.equal(predict(base, fresh(spec, base)[1], batch), predict(base, None, batch))


@pytest.mark.parametrize("spec", CHANGED_AT_THE_START)
def test_what_begins_at_random_changes_the_output_at_the_start(spec: str, base: Base, batch: Any) -> None:
    assert float((predict(base, fresh(spec, base)[1], batch) - predict(base, None, batch)).abs().max()) > 1e-5


@every_variant
def test_updates_move_what_is_drawn_and_no_bit_of_the_base(spec: str, base: Base, batch: Any) -> None:
    before, module = state_sha256(base.unet), fresh(spec, base)[1]
    start = predict(base, module, batch)
    assert 0 < update(base, module, batch, times=2) < 10
    assert float((predict(base, module, batch) - start).abs().max()) > 1e-5
    assert state_sha256(base.unet) == before
    assert not any(p.requires_grad for p in base.unet.parameters())


@every_variant
def test_a_saved_module_comes_back_with_every_bit(spec: str, base: Base, batch: Any, tmp_path: Path) -> None:
    method, module = fresh(spec, base)
    update(base, module, batch, times=2)
    method.save(module, tmp_path / "a")
    loaded = method.load(str(tmp_path / "a"))
    assert torch.equal(predict(base, loaded.eval(), batch), predict(base, module.eval(), batch))
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in module.named_parameters()]
    method.save(loaded, tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert [(tmp_path / "a" / f).read_bytes() for f in files] == [(tmp_path / "b" / f).read_bytes() for f in files]


@pytest.mark.parametrize("spec", ["controlnet", "controlnet,embedding=paper", "controlnet_lite", "t2i_adapter"])
def test_a_folder_without_weights_is_refused_in_one_line(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no [\w-]+ at .*; give a folder or a hub id$|does not exist"):
        registry.make(Method, spec).load(str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("controlnet,init=gausian", 'no init "gausian"; did you mean "gaussian"'),
        ("controlnet,embedding=v3", 'no embedding "v3"; allowed: code, paper'),
        ("controlnet,std=0", "std=0.0 is not above 0"),
        ("controlnet,mid_only=yes", "no truth value; allowed: true, false"),
    ],
)
def test_a_variant_that_does_not_exist_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.make(Method, spec)


def test_a_module_whose_weights_are_in_the_decoder_is_what_diffusers_makes_of_its_two_files(
    base: Base, batch: Any, tmp_path: Path
) -> None:
    method, module = fresh("controlnet,unlocked=true", base)
    update(base, module, batch, times=2)
    method.save(module, tmp_path)
    unet = UNet2DConditionModel.from_config(base.unet.config)
    unet.load_state_dict(base.unet.state_dict() | load_file(tmp_path / "decoder.safetensors"))
    net = ControlNetModel.from_pretrained(tmp_path)
    latents, _, timesteps, text, image = batch
    with torch.no_grad():
        down, middle = net(latents, timesteps, text, image, return_dict=False)
        expected = unet(
            latents, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
    torch.testing.assert_close(predict(base, module, batch), expected, rtol=0, atol=1e-6)


def test_an_unlocked_decoder_is_all_that_follows_the_middle_and_moves_at_the_first_update(
    base: Base, batch: Any
) -> None:
    _, module = fresh("controlnet,unlocked=true", base)
    own = {name for name, _ in base.unet.named_parameters()}
    copied = {name for name, _ in ControlNetModel.from_unet(base.unet).named_parameters()}
    assert isinstance(module, Control)
    weights = module.decoder_weights
    assert set(weights()) == own - copied
    before = {name: weight.detach().clone() for name, weight in weights().items()}
    update(base, module, batch)
    assert all(not torch.equal(weight, before[name]) for name, weight in weights().items())


def test_gaussian_outputs_have_the_deviation_asked_for_and_everything_learns_at_once(base: Base, batch: Any) -> None:
    """Paper.md, section 6: no layer waits for another, unlike behind zero convolutions."""
    module = Controlnet(init="gaussian", std=0.05).build(base.unet, base.latent_scale)
    outputs = [*module.controlnet.controlnet_down_blocks, module.controlnet.controlnet_mid_block]
    weights = torch.cat([conv.weight.flatten() for conv in outputs])
    assert float(weights.detach().std()) == pytest.approx(0.05, rel=0.02)
    update(base, module, batch)
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_with_the_middle_alone_the_other_outputs_stay_zero(base: Base, batch: Any, tmp_path: Path) -> None:
    """So a ControlNetModel that adds all thirteen draws the same."""
    method = Controlnet(mid_only=True)
    module = method.build(base.unet, base.latent_scale)
    update(base, module, batch, times=2)
    assert bool(module.controlnet.controlnet_mid_block.weight.any())
    assert not any(bool(p.any()) for p in module.controlnet.controlnet_down_blocks.parameters())
    method.save(module, tmp_path)
    assert torch.equal(predict(base, Controlnet().load(str(tmp_path)), batch), predict(base, module, batch))


@pytest.mark.parametrize(("latent_scale", "strided"), [(2, 1), (4, 2), (8, 3)])
def test_the_encoder_in_the_words_of_the_paper_ends_at_the_latents(latent_scale: int, strided: int) -> None:
    embedding = PaperEmbedding(320, latent_scale)
    convs = [m for m in embedding.blocks if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [16, 32, 64, 128]
    assert {conv.kernel_size for conv in convs} == {(4, 4)}
    assert [conv.stride for conv in convs] == [(2, 2)] * strided + [(1, 1)] * (4 - strided)
    assert embedding(torch.rand(1, 3, 64, 64)).shape == (1, 320, 64 // latent_scale, 64 // latent_scale)


def test_controlnet_lite_has_one_convolution_for_each_block_and_far_fewer_parameters() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        lite = ControlnetLite().build(unet, 8)
        full = Controlnet().build(unet, 8)
    assert len(lite.blocks) + len([lite.conv_in, lite.mid_block]) == 13 == len(lite.outputs)
    count, whole = (sum(p.numel() for p in module.parameters()) for module in (lite, full))
    assert count < whole / 3


def test_an_adapter_has_the_size_of_the_published_one() -> None:
    """77 million parameters (arXiv 2302.08453, table 3)."""
    with torch.device("meta"):
        adapter = T2IAdapter().build(UNet2DConditionModel(cross_attention_dim=768), 8)
    assert round(sum(p.numel() for p in adapter.parameters()) / 1e6) == 77


def test_an_adapter_adds_where_diffusers_adds(base: Base) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 16, 16),
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    like_stable_diffusion = replace(base, unet=unet.requires_grad_(False).eval())
    module = T2IAdapter().build(unet, 4)
    draw = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 16, 16, generator=draw), torch.randn(2, 5, 96, generator=draw)
    rest = (torch.tensor([10, 700]), text, torch.rand(2, 3, 64, 64, generator=draw))
    with torch.no_grad():
        features = module.adapter(rest[-1])
        expected = unet(latents, *rest[:2], down_intrablock_additional_residuals=[f.clone() for f in features]).sample
        alone = unet(latents, *rest[:2]).sample
        ours = denoise(like_stable_diffusion, module, latents, *rest)
        off = denoise(like_stable_diffusion, module, latents, *rest, scale=0.0)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert float((expected - alone).abs().max()) > 1e-3
    assert torch.equal(off, alone)


@pytest.mark.parametrize(
    ("spec", "shortest"),
    [
        ("controlnet,init=zero", "controlnet"),
        ("controlnet,mid_only=true,std=0.02", "controlnet,mid_only=true"),
        ("t2i_adapter,num_res_blocks=1", "t2i_adapter,num_res_blocks=1"),
    ],
)
def test_a_method_is_named_by_the_fields_that_differ(spec: str, shortest: str) -> None:
    method = registry.make(Method, spec)
    assert registry.spec(method) == shortest
    assert registry.make(Method, shortest) == method
