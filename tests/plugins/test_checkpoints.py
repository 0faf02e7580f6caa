"""Transformers checkpoints: real classes from a configuration, random weights saved in the hub's layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    pipeline,
)

from benchmark import build, evaluate, registry, study, train
from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Annotator, Condition, Images, Map
from benchmark.numbers.inverse_depth import over_greatest
from tests.weights import without_weight

_SMALL = {"height": 64, "width": 64}
_CROP = data.astronaut()[:96, 180:276]
_IMAGES: Images = np.stack([_CROP, data.coffee()[100:196, 200:296], _CROP[::-1]])


def _spread(model: Any, seed: int) -> Any:
    """Make random weights large enough that outputs differ from pixel to pixel."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
            if name == "head.head.4.weight":  # a rectifier follows
                parameter.data.abs_()
        elif "bias" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def _segformer(folder: Path, classes: int) -> Path:
    config = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 16, 16, 16], decoder_hidden_size=16, num_attention_heads=[1, 1, 2, 2]
    )
    config.num_labels = classes
    _spread(SegformerForSemanticSegmentation(config), 0).save_pretrained(folder)
    SegformerImageProcessor(size=_SMALL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _segformer(tmp_path_factory.mktemp("segformer"), 150)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpt")
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    _spread(DPTForDepthEstimation(config), 1).save_pretrained(folder)
    DPTImageProcessor(size=_SMALL).save_pretrained(folder)
    return folder


def _depth_anything(folder: Path, kind: str) -> Path:
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        patch_size=14,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=80,
    )
    _spread(DepthAnythingForDepthEstimation(config), 2).save_pretrained(folder)
    DPTImageProcessor(size={"height": 56, "width": 56}, ensure_multiple_of=14).save_pretrained(folder)
    return folder


def _made(name: str, folder: Path, fields: str = "") -> Annotator:
    return registry.make(Annotator, f"{name}:{folder}{fields}")


def test_ids_are_the_best_class_of_scores_enlarged_to_the_image(segformer: Path) -> None:
    found = _made("transformers_seg", segformer).annotate(_IMAGES)
    model = SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    processor = SegformerImageProcessor.from_pretrained(segformer)
    for map_, image in zip(found, _IMAGES, strict=True):
        with torch.inference_mode():
            scores = model(**processor(images=Image.fromarray(image), return_tensors="pt")).logits
        large = torch.nn.functional.interpolate(scores, (96, 96), mode="bilinear", align_corners=False)
        assert map_.array.dtype == np.uint16
        assert (map_.array == large[0].argmax(dim=0).numpy()).mean() > 0.999
        assert len(np.unique(map_.array)) > 5


def test_the_number_of_classes_must_be_the_palettes(segformer: Path, tmp_path: Path) -> None:
    annotator = _made("transformers_seg", segformer)
    assert annotator.num_classes == 150
    with pytest.raises(UserError, match="tells 150 classes apart, but seg holds 7"):
        registry.check_fits(registry.make(Condition, "seg"), annotator)
    seven = _made("transformers_seg", _segformer(tmp_path, 7))
    registry.check_fits(registry.make(Condition, "seg"), seven)
    assert registry.make(Condition, "seg").check(seven.annotate(_IMAGES)[0], 96) is None


def test_identity_pins_weights_configuration_and_processor(segformer: Path) -> None:
    assert _made("transformers_seg", segformer).identity() == {
        "weights_sha256": sha256_file(segformer / "model.safetensors"),
        "config_sha256": sha256_file(segformer / "config.json"),
        "processor_sha256": sha256_file(segformer / "preprocessor_config.json"),
    }


def test_relative_inverse_depth_is_what_the_librarys_pipeline_gives(dpt: Path) -> None:
    condition, annotator = registry.make(Condition, "relative_depth"), _made("transformers_depth", dpt)
    assert annotator.condition == "relative_depth"
    estimate = pipeline("depth-estimation", model=str(dpt))
    for map_, image in zip(annotator.annotate(_IMAGES), _IMAGES, strict=True):
        inverse = estimate(Image.fromarray(image))["predicted_depth"].numpy()
        stretched = (inverse - inverse.min()) / np.ptp(inverse)
        assert condition.check(map_, 96) is None
        assert np.allclose(map_.array, np.maximum(inverse, 0) / inverse.max(), atol=2e-4)
        assert np.abs(condition.render(map_, 96)[..., 0] - 255 * stretched).max() < 0.6
        assert stretched.std() > 0.05


def test_the_headline_of_relative_depth_ignores_scale_and_shift() -> None:
    condition, inverse = registry.make(Condition, "relative_depth"), np.random.default_rng(0).uniform(3, 9, (32, 32))
    row = condition.scores(condition.compare(Map(over_greatest(inverse)), Map(over_greatest(40 * inverse + 700))))
    assert float(row[condition.headline]) == pytest.approx(0, abs=1e-5)
    assert float(row["rmse"]) == pytest.approx(0, abs=1e-5)


def test_metres_and_relative_depth_do_not_mix(dpt: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cond", "depth", "--annotator", f"transformers_depth:{dpt}", "--source", f"folder:{photos}"]
    assert build.main(words) == 2
    assert "makes relative_depth maps, not depth" in capsys.readouterr().err


def test_metric_checkpoints_give_metres(tmp_path: Path) -> None:
    folder = _depth_anything(tmp_path, "metric")
    annotator = _made("transformers_depth", folder)
    assert annotator.identity()["scale"] == "metres"
    assert annotator.condition == "depth"
    for map_, image in zip(annotator.annotate(_IMAGES), _IMAGES, strict=True):
        metres = pipeline("depth-estimation", model=str(folder))(Image.fromarray(image))["predicted_depth"].numpy()
        assert np.allclose(map_.array, np.clip(metres, 0, 65.535), atol=1e-3)
        assert registry.make(Condition, "depth").check(map_, 96) is None


def test_the_scale_is_the_checkpoints_own_or_has_to_be_told(dpt: Path, tmp_path: Path) -> None:
    assert _made("transformers_depth", dpt).identity()["scale"] == "relative"
    assert _made("transformers_depth", dpt, ",scale=metres").identity()["scale"] == "metres"
    assert _made("transformers_depth", _depth_anything(tmp_path / "a", "relative")).identity()["scale"] == "relative"
    (tmp_path / "b").mkdir()
    config = json.loads((dpt / "config.json").read_text()) | {"backbone_config": {"model_type": "dinov2"}}
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    for file in ("model.safetensors", "preprocessor_config.json"):
        (tmp_path / "b" / file).symlink_to(dpt / file)
    with pytest.raises(UserError, match="add scale=relative or scale=metres"):
        _made("transformers_depth", tmp_path / "b").identity()
    with pytest.raises(UserError, match='no scale "metric"; did you mean'):
        _made("transformers_depth", dpt, ",scale=metric")


@pytest.mark.parametrize("name", ["transformers_seg", "transformers_depth"])
def test_maps_do_not_depend_on_the_batch(name: str, request: pytest.FixtureRequest) -> None:
    annotator = _made(name, request.getfixturevalue("segformer" if name.endswith("seg") else "dpt"))
    together = annotator.annotate(_IMAGES)
    for i, map_ in enumerate(together):
        alone = annotator.annotate(_IMAGES[i : i + 1])[0].array
        assert np.mean(np.abs(alone.astype(np.float64) - map_.array) > 1e-3) < 0.001


def test_bad_checkpoints_end_in_one_line(segformer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        _made("transformers_seg", tmp_path).annotate(_IMAGES)
    with pytest.raises(UserError, match="cannot be loaded"):
        _made("transformers_depth", segformer, ",scale=relative").annotate(_IMAGES)


def test_maps_of_a_checkpoint_are_built_and_its_hashes_are_in_the_plan(photos: Path, dpt: Path, tmp_path: Path) -> None:
    words = ["--cond", "relative_depth", "--annotator", f"transformers_depth:{dpt}", "--source", f"folder:{photos}"]
    assert build.main([*words, "--workers", "1", "--out", str(tmp_path / "set")]) == 0
    plan: dict[str, Any] = json.loads((tmp_path / "set" / "plan.json").read_text())
    assert plan["annotators"]["relative_depth"]["model"] == str(dpt)
    identity = plan["annotator_identities"]["relative_depth"]
    assert identity["weights_sha256"] == sha256_file(dpt / "model.safetensors")
    assert identity["scale"] == "relative"


_STUDY = """
[build]
cond = ["relative_depth"]
source = "folder:{photos}"
annotator = ["transformers_depth:{dpt}"]
workers = 1
[train]
cond = "relative_depth"
steps = 1
batch = 4
probe_every = 1
referee = "transformers_depth:{dpt}"
[generate]
num_inference_steps = 1
[evaluate]
metric = ["kid"]
[grid]
seed = [0]
"""


def test_a_study_of_photographs_is_read_back_by_the_checkpoint_that_annotated_them(
    photos: Path, dpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "depth.toml").write_text(_STUDY.format(photos=photos, dpt=dpt))
    assert study.main(["run", str(tmp_path / "depth.toml"), "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out" / "results").rglob("*.json")
    record, weights = json.loads(path.read_text()), sha256_file(dpt / "model.safetensors")
    assert [score["name"] for score in record["scores"]] == ["kid-scenes"]
    for referee in (record["referee"], record["training"]["referee"]):
        assert referee["spec"].startswith(f"transformers_depth,model={dpt}")
        assert referee["weights_sha256"] == weights
    probe = json.loads((tmp_path / "out" / "runs" / "seed-0" / "curve.jsonl").read_text().splitlines()[-1])["probe"]
    assert probe["aligned_rmse"] > 0
    # nothing reads such pictures unless it is named: the referee of scenes would give numbers that mean nothing
    (data,) = (tmp_path / "out" / "datasets").iterdir()
    images = tmp_path / "out" / "images"
    commands = {
        train: ["--dataset", str(data), "--cond", "relative_depth", "--batch", "4", "--out", str(tmp_path / "x")],
        evaluate: ["--images", str(images / "seed-0"), "--no-control", str(images / "no_control"), "--metric", "kid"],
    }
    capsys.readouterr()
    for command, words in commands.items():
        assert command.main(words) == 2
        assert (
            "reads relative_depth off images of scenes alone, not of folder; give --referee" in capsys.readouterr().err
        )


def _depth_without(part: str, dpt: Path, place: Path) -> list[Map]:
    copy = Path(shutil.copytree(dpt, place))
    without_weight(copy, part)
    return _made("transformers_depth", copy).annotate(_IMAGES)


def test_weights_that_a_file_lacks_are_refused_unless_nothing_reads_them(dpt: Path, tmp_path: Path) -> None:
    """Intel's DPT leaves out the unit of the first fusion layer that takes a residual: that layer is given none."""
    whole = _made("transformers_depth", dpt).annotate(_IMAGES)
    found = _depth_without("fusion_stage.layers.0.residual_layer1.", dpt, tmp_path / "first")
    for one, other in zip(whole, found, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    with pytest.raises(UserError, match=r"cannot be loaded \(.* lacks 4 weights, .*layers.1.residual_layer1"):
        _depth_without("fusion_stage.layers.1.residual_layer1.", dpt, tmp_path / "second")
