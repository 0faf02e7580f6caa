"""The bundled encoders: deterministic, blind to batching, and able to tell the scenes apart."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images, Metric
from benchmark.contracts.tables import Table, label
from benchmark.scenes.models import CLIP_FOLDER, REFEREE_FILE
from benchmark.scenes.splits import Example, example

_COUNT = 70  # more than one batch
bundled = pytest.mark.parametrize("name", ["clip", "scenes"])


@cache
def _examples() -> list[Example]:
    return [example(0, "test", i, 64) for i in range(_COUNT)]


@cache
def _images() -> Images:
    return np.stack([e.render.image for e in _examples()])


@cache
def _encoder(name: str) -> Encoder:
    return registry.make(Encoder, name)


@cache
def _vectors(name: str) -> NDArray[np.float32]:
    return _encoder(name).encode(_images())


def test_both_bundled_encoders_are_listed() -> None:
    assert {"clip", "scenes"} <= set(registry.names(Encoder))


@bundled
def test_every_image_has_a_finite_vector_of_its_own(name: str) -> None:
    vectors = _vectors(name)
    assert vectors.shape == (_COUNT, 64)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == _COUNT


@bundled
def test_batches_do_not_change_vectors(name: str) -> None:
    few = [_encoder(name).encode(_images()[i : i + 1])[0] for i in (0, 63, 64, 69)]
    assert np.allclose(_vectors(name)[[0, 63, 64, 69]], few, atol=1e-5)


@bundled
def test_a_fresh_encoder_gives_the_same_bits(name: str) -> None:
    assert np.array_equal(registry.make(Encoder, name).encode(_images()[:8]), _encoder(name).encode(_images()[:8]))


@pytest.mark.parametrize(("name", "file"), [("clip", CLIP_FOLDER / "model.safetensors"), ("scenes", REFEREE_FILE)])
def test_identity_is_the_hash_of_the_weights(name: str, file: Path) -> None:
    identity = _encoder(name).identity()
    assert identity["weights_sha256"] == sha256_file(file)
    assert name in identity["space"]


def test_scenes_has_no_text_side() -> None:
    with pytest.raises(UserError, match="Scenes encodes no texts"):
        _encoder("scenes").encode_texts(["a small red cube"])


def test_clip_vectors_have_unit_length() -> None:
    texts = _encoder("clip").encode_texts([e.caption for e in _examples()])
    assert texts.shape == (_COUNT, 64)
    assert np.linalg.norm(_vectors("clip"), axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(texts, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_clip_image_vectors_are_those_of_the_model_on_pixels_in_minus_one_to_one() -> None:
    pixels = torch.from_numpy(_images()[:6].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        model = CLIPModel.from_pretrained(CLIP_FOLDER, dtype=torch.float32).eval()
        states = model.vision_model(pixels).pooler_output @ model.visual_projection.weight.T
    expected = states / states.norm(dim=1, keepdim=True)
    assert np.allclose(_vectors("clip")[:6], expected.numpy(), atol=1e-4)


def test_clip_text_vectors_do_not_depend_on_padding() -> None:
    captions = sorted((e.caption for e in _examples()), key=len)
    together = _encoder("clip").encode_texts(captions)
    alone = [_encoder("clip").encode_texts([captions[i]])[0] for i in (0, 30, _COUNT - 1)]
    assert np.allclose(together[[0, 30, _COUNT - 1]], alone, atol=1e-5)


def test_clip_reads_every_caption_whole() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CLIP_FOLDER)
    lengths = [len(tokenizer(example(0, "val", i, 8).caption)["input_ids"]) for i in range(300)]
    assert max(lengths) <= tokenizer.model_max_length
    assert tokenizer.model_max_length == 48


def test_clip_survives_texts_it_has_never_seen() -> None:
    texts = ["", "une tour Eiffel à Paris 🗼", "red " * 200]
    vectors = _encoder("clip").encode_texts(texts)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == 3


def test_clip_finds_the_caption_of_a_scene() -> None:
    texts = _encoder("clip").encode_texts([e.caption for e in _examples()])
    best = (_vectors("clip") @ texts.T).argmax(axis=1)
    assert (best == np.arange(_COUNT)).mean() > 0.85


def test_clip_takes_images_of_any_size() -> None:
    large = np.stack([e.render.image.repeat(2, axis=0).repeat(2, axis=1) for e in _examples()[:4]])
    assert (_encoder("clip").encode(large) * _vectors("clip")[:4]).sum(axis=1).min() > 0.9


def test_scenes_vectors_move_more_for_another_scene_than_for_noise() -> None:
    noise = np.random.default_rng(0).integers(-2, 3, _images().shape)
    noisy = np.clip(_images() + noise, 0, 255).astype(np.uint8)
    moved = np.linalg.norm(_encoder("scenes").encode(noisy) - _vectors("scenes"), axis=1)
    apart = np.linalg.norm(_vectors("scenes")[1:] - _vectors("scenes")[:-1], axis=1)
    assert np.median(moved) < 0.25 * np.median(apart)


@pytest.fixture(scope="module")
def released_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of another size and random weights, as it is published: model, tokenizer and image processor."""
    folder = tmp_path_factory.mktemp("hub") / "clip-tiny"
    tokenizer = CLIPTokenizer.from_pretrained(CLIP_FOLDER)
    common = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    words = common | ids | {"vocab_size": len(tokenizer), "max_position_embeddings": 48}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=words, vision_config=common | {"image_size": 32, "patch_size": 8}, projection_dim=24
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_any_clip_gives_the_vectors_of_its_own_model(released_clip: Path) -> None:
    encoder = registry.make(Encoder, f"clip:{released_clip}")
    texts, images = [e.caption for e in _examples()[:6]], _images()[:6]
    model, tokenizer = CLIPModel.from_pretrained(released_clip).eval(), CLIPTokenizer.from_pretrained(released_clip)
    pixels = CLIPImageProcessorPil.from_pretrained(released_clip)(list(images), return_tensors="pt").pixel_values
    with torch.inference_mode():
        words = tokenizer(texts, padding=True, return_tensors="pt")
        out = model(pixel_values=pixels, **words)
    assert pixels.shape == (6, 3, 32, 32)
    assert np.allclose(encoder.encode(images), out.image_embeds.numpy(), atol=1e-5)
    assert np.allclose(encoder.encode_texts(texts), out.text_embeds.numpy(), atol=1e-5)
    cosines = cosine_similarity(out.image_embeds, out.text_embeds)
    table = Table(tuple("abcdef"), {"clip:x": encoder.encode(images), "clip:x_text": encoder.encode_texts(texts)})
    for name, scale in (("clip_score", 100), ("clip_cosine", 1)):
        (score,) = registry.make(Metric, f"{name},space=clip:x").score(table, table)
        assert score.name == f"{name}-clip:x"
        assert score.value == pytest.approx(scale * float(cosines.mean()), rel=1e-4)


def test_the_folder_of_a_clip_stays_out_of_its_identity_and_its_hash_does_not(released_clip: Path) -> None:
    identity = registry.make(Encoder, f"clip:{released_clip}").identity()
    assert identity["space"] == "clip-clip-tiny"
    assert identity["weights_sha256"] == sha256_file(released_clip / "model.safetensors")
    assert str(released_clip.parent) not in str(identity)


def test_a_clip_in_several_files_is_told_apart_by_all_of_them(released_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip-tiny"
    shutil.copytree(released_clip, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model, found = CLIPModel.from_pretrained(released_clip), []
    for _ in range(2):
        model.save_pretrained(folder, max_shard_size="20KB")
        encoder = registry.make(Encoder, f"clip:{folder}")
        found.append((encoder.identity(), encoder.encode(_images()[:2])))
        with torch.no_grad():
            model.visual_projection.weight[0, 0] += 1
    assert len(list(folder.glob("*.safetensors"))) > 1
    (before, vectors), (after, _) = found
    assert np.array_equal(vectors, registry.make(Encoder, f"clip:{released_clip}").encode(_images()[:2]))
    assert before["weights_sha256"] != after["weights_sha256"]


class Improved(nn.Module):
    """The improved predictor as its own code defines it, for vectors of 24 numbers."""

    def __init__(self) -> None:
        super().__init__()
        wide = [nn.Linear(24, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)]
        self.layers = nn.Sequential(*wide, nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(vectors)
        return scores


def predictors() -> dict[str, nn.Module]:
    """Both of LAION's predictors, with random weights."""
    torch.manual_seed(1)
    return {"linear": nn.Linear(24, 1).eval(), "improved": Improved().eval()}


@pytest.mark.parametrize("kind", ["linear", "improved"])
def test_aesthetic_scores_are_those_of_the_published_predictors(kind: str, released_clip: Path, tmp_path: Path) -> None:
    predictor = predictors()[kind]
    torch.save(predictor.state_dict(), tmp_path / "head.pth")
    encoder = registry.make(Encoder, f"aesthetic:{tmp_path / 'head.pth'},clip={released_clip}")
    with torch.inference_mode():
        vectors = torch.from_numpy(registry.make(Encoder, f"clip:{released_clip}").encode(_images()[:6]))
        expected = predictor(vectors).numpy()
    assert encoder.encode(_images()[:6]).shape == (6, 1)
    assert np.allclose(encoder.encode(_images()[:6]), expected, rtol=1e-4)
    metric = registry.make(Metric, f"clip_aesthetic:{tmp_path / 'head.pth'},clip={released_clip}")
    (column,) = metric.needs
    tables = [Table(tuple("abcdef"), {column: x.astype(np.float64)}) for x in (expected, expected[::-1])]
    (score,) = metric.score(*tables)
    assert (score.name, score.higher_is_better, score.n) == ("clip_aesthetic", True, 6)
    assert score.value == pytest.approx(float(expected.mean()), rel=1e-4)
    assert score.stderr == pytest.approx(float(stats.sem(expected[:, 0])), rel=1e-4)


def test_the_places_of_an_aesthetic_predictor_and_its_clip_stay_out_of_records(
    released_clip: Path, tmp_path: Path
) -> None:
    torch.save(predictors()["linear"].state_dict(), tmp_path / "head.pth")
    spec = f"aesthetic:{tmp_path / 'head.pth'},clip={released_clip}"
    assert label(spec) == "aesthetic:head.pth,clip=clip-tiny"
    identity = registry.make(Encoder, spec).identity()
    assert identity["space"] == "aesthetic on clip-clip-tiny"
    assert str(tmp_path) not in str(identity)
    other = registry.make(Encoder, f"aesthetic:{tmp_path / 'head.pth'},clip=scenes").identity()
    assert identity["weights_sha256"] != other["weights_sha256"]


def test_an_aesthetic_predictor_that_cannot_be_used_is_refused(released_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the aesthetic predictor is missing: put sa_0_4_vit_l_14_linear\.pth"):
        registry.make(Encoder, f"aesthetic:{tmp_path / 'none.pth'},clip={released_clip}").encode(_images()[:1])
    torch.save(predictors()["linear"].state_dict(), tmp_path / "head.pth")
    with pytest.raises(UserError, match="predicts from 24 numbers, scenes gives 64"):
        registry.make(Encoder, f"aesthetic:{tmp_path / 'head.pth'},clip=scenes").encode(_images()[:1])
    with_relu = {f"layers.{i}.{kind}": torch.zeros(4, 4) for i in (0, 3, 6, 9, 11) for kind in ("weight", "bias")}
    wide = nn.Linear(24, 3).state_dict()
    more = predictors()["linear"].state_dict() | {"more": torch.zeros(1)}
    for state, reason in ((with_relu, "no aesthetic predictor"), (wide, "another network"), (more, "another network")):
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(UserError, match=reason):
            registry.make(Encoder, f"aesthetic:{tmp_path / 'other.pth'},clip={released_clip}").encode(_images()[:1])


@pytest.fixture(scope="module")
def released_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of random weights, in the layout of the hub."""
    folder = tmp_path_factory.mktemp("hub") / "dinov2-tiny"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 518, "patch_size": 14}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def test_dinov2_is_the_class_token_of_transformers_on_its_own_processor(released_dinov2: Path) -> None:
    processor = BitImageProcessorPil(
        size={"height": 224, "width": 224},
        do_center_crop=False,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    pixels = processor(list(_images()[:5]), return_tensors="pt").pixel_values
    with torch.inference_mode():
        expected = Dinov2Model.from_pretrained(released_dinov2).eval()(pixels).last_hidden_state[:, 0]
    found = registry.make(Encoder, f"dinov2:{released_dinov2}").encode(_images()[:5])
    assert found.dtype == np.float32
    assert found.std(axis=0).max() > 1e-3
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_dinov2_does_not_care_for_batches_and_is_known_by_its_weights(
    released_dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = registry.make(Encoder, f"dinov2:{released_dinov2}")
    whole = one.encode(_images()[:5])
    monkeypatch.setattr("benchmark.encoders.dinov2._BATCH", 2)
    np.testing.assert_allclose(one.encode(_images()[:5]), whole, atol=1e-5)
    elsewhere = shutil.copytree(released_dinov2, tmp_path / "copy")
    assert registry.make(Encoder, f"dinov2:{elsewhere}").identity() == one.identity()
    model = Dinov2Model.from_pretrained(released_dinov2)
    torch.nn.init.constant_(model.layernorm.bias, 0.5)
    model.save_pretrained(tmp_path / "other")
    assert registry.make(Encoder, f"dinov2:{tmp_path / 'other'}").identity() != one.identity()


@pytest.mark.parametrize(("spec", "told"), [("clip:nowhere/none", "no CLIP"), ("dinov2:nowhere/none", "no DINOv2")])
def test_a_model_that_is_not_to_be_had_is_one_line(spec: str, told: str) -> None:
    with pytest.raises(UserError, match=f'{told} "nowhere/none" .*give a hub id or a folder'):
        registry.make(Encoder, spec).encode(_images()[:1])
