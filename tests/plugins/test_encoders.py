"""The bundled encoders: deterministic, blind to batching, and able to tell the scenes apart."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPTokenizer

from benchmark import registry
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images
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
    with pytest.raises(NotImplementedError, match="Scenes has no text side"):
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
