"""A network is read whole or not at all: what a file lacks, the libraries draw at random, with a warning."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Encoder, Method
from benchmark.engine.bases import BUNDLED, Base, load_base
from benchmark.engine.pretrained import hash_weights, load_whole, single_precision, within_memory
from benchmark.scenes.models import CLIP_FOLDER
from tests.small_bases import write_base
from tests.weights import without_weight

PARTS = {"unet": "conv_in.weight", "vae": "decoder.conv_out.bias", "text_encoder": "final_layer_norm.weight"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED["scenes-tiny"], tmp_path / "base"))


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base("sdxl", tmp_path_factory.mktemp("bases") / "sdxl", 16)


@pytest.mark.parametrize(("part", "weight"), PARTS.items())
def test_a_base_that_lacks_a_weight(part: str, weight: str, folder: Path) -> None:
    gone = without_weight(folder / part, weight)
    with pytest.raises(UserError, match=rf'no base ".*" \(.* lacks 1 weights, .*{gone} among them\); give'):
        load_base(str(folder))


def test_a_base_whose_second_text_encoder_lacks_a_weight(xl: Path, tmp_path: Path) -> None:
    load_base(str(xl))
    copy = Path(shutil.copytree(xl, tmp_path / "xl"))
    without_weight(copy / "text_encoder_2", "text_projection")
    with pytest.raises(UserError, match=r"CLIPTextModelWithProjection lacks 1 weights, text_projection.weight among"):
        load_base(str(copy))


@pytest.mark.parametrize(
    ("part", "found"), [("text_encoder", [None, None]), ("vae", ["diffusers", "AutoencoderTiny"]), ("unet", None)]
)
def test_a_base_with_another_network_or_none(part: str, found: list[str | None] | None, folder: Path) -> None:
    """As the refiner of Stable Diffusion XL, which has no first text encoder."""
    index = json.loads((folder / "model_index.json").read_text())
    rest = {name: value for name, value in index.items() if name != part}
    (folder / "model_index.json").write_text(json.dumps(rest if found is None else {**rest, part: found}))
    with pytest.raises(UserError, match=rf"has .* for its {part}; allowed: [A-Z]\w+"):
        load_base(str(folder))


def test_two_loads_of_a_base_agree(folder: Path) -> None:
    assert load_base(str(folder)).weights_sha256 == load_base("scenes-tiny").weights_sha256


@pytest.mark.parametrize("name", ["controlnet", "controlnet_lite", "t2i_adapter"])
def test_a_control_that_lacks_a_weight(name: str, base: Base, tmp_path: Path) -> None:
    method = registry.make(Method, name)
    method.save(method.build(base.unet, base.latent_scale), tmp_path)
    gone = without_weight(tmp_path, "conv_in.weight")
    with pytest.raises(UserError, match=f"lacks . weights, {gone} among them"):
        method.load(str(tmp_path))


def test_an_encoder_that_lacks_a_weight(tmp_path: Path) -> None:
    shutil.copytree(CLIP_FOLDER, tmp_path / "clip")
    gone = without_weight(tmp_path / "clip", "visual_projection")
    with pytest.raises(UserError, match=f"no CLIP .* lacks 1 weights, {gone} among them"):
        registry.make(Encoder, f"clip:{tmp_path / 'clip'}").encode_texts(["a sphere"])
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    whole = load_whole(Dinov2Model, tmp_path / "dino")
    assert hash_weights(whole) == hash_weights(load_whole(Dinov2Model, str(tmp_path / "dino")))
    assert {weight.dtype for weight in whole.parameters()} == {torch.float32}
    gone = without_weight(tmp_path / "dino", "layernorm.bias")
    with pytest.raises(UserError, match=f"no DINOv2 .* lacks 1 weights, {gone} among them"):
        registry.make(Encoder, f"dinov2:{tmp_path / 'dino'}").identity()


def test_a_gpu_without_room_is_told_of_in_one_line() -> None:
    line = r"no room for it on the GPU \(tried to allocate.*\); give less"
    with pytest.raises(UserError, match=line), within_memory("give less"):
        raise torch.OutOfMemoryError("tried to allocate 24 GiB\nand more")


def test_vectors_are_computed_without_tf32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with single_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32 == before
