"""The four prompt settings of the paper's ablation."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.base.errors import UserError
from benchmark.engine.imagesets import (
    PROMPTS,
    comparable,
    image_path,
    prompts,
    read_images,
    shuffled_step,
    write_image,
)

CAPTIONS = ["a red cube", "a blue cone", "a person", "a green sphere", "two cubes"]


def test_full_and_none_are_the_caption_and_nothing() -> None:
    assert prompts("full", CAPTIONS) == CAPTIONS
    assert prompts("none", CAPTIONS) == [""] * 5


def test_insufficient_is_the_papers_sentence_for_all() -> None:
    assert set(prompts("insufficient", CAPTIONS)) == {"a high-quality, detailed, and professional image"}


def test_shuffled_maps_are_never_those_of_the_captions_that_conflict() -> None:
    for count in range(3, 60):
        captions = [str(i) for i in range(count)]
        asked = [int(text) for text in prompts("conflicting", captions)]
        away = [(i + shuffled_step("conflicting", count)) % count for i in range(count)]
        assert all(a != b and a != i for i, (a, b) in enumerate(zip(away, asked, strict=True)))
        assert shuffled_step("full", count) == count // 2


def test_conflicting_is_every_caption_once_and_never_with_its_own_sample() -> None:
    found = prompts("conflicting", CAPTIONS)
    assert sorted(found) == sorted(CAPTIONS)
    assert all(a != b for a, b in zip(found, CAPTIONS, strict=True))


@pytest.mark.parametrize("captions", [["", ""], ["a red cube"], ["same", "same", "same"]])
def test_conflicting_prompts_need_captions_that_differ(captions: list[str]) -> None:
    with pytest.raises(UserError, match="need captions that differ"):
        prompts("conflicting", captions)


@pytest.mark.parametrize("setting", PROMPTS)
def test_every_setting_gives_a_prompt_for_each_sample(setting: str) -> None:
    assert len(prompts(setting, CAPTIONS)) == 5


def test_an_image_with_a_flipped_bit_or_cut_short_is_never_scored_as_another(tmp_path: Path) -> None:
    """Decoding alone lets a few of these pass as another picture; a bit behind the last pixel is none of it."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    write_image(tmp_path, "a", picture)
    path = image_path(tmp_path, "a")
    whole = path.read_bytes()
    flips = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    damaged = [*flips, *(whole[:i] for i in range(0, len(whole), 29))]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            assert np.array_equal(read_images(tmp_path, ["a"], 16)[0], picture)
        except UserError as error:
            refused += "a.png" in str(error)
    assert refused > 0.95 * len(damaged)


def test_a_key_of_any_length_has_a_file_name_of_its_own(tmp_path: Path) -> None:
    """Percent-encoded, a letter of Japanese takes nine characters; a file system takes 255 in all."""
    picture = np.zeros((4, 4, 3), np.uint8)
    keys = [f"写真/{'長' * 60}{end}.jpg" for end in "ab"]
    for key in keys:
        write_image(tmp_path, key, picture)
    assert len({image_path(tmp_path, key) for key in keys}) == 2
    assert read_images(tmp_path, keys, 4).shape == (2, 4, 4, 3)
    assert image_path(tmp_path, "more/tall-05.png").name == "more%2Ftall-05.png.png"


def test_a_base_is_compared_by_its_weights_wherever_it_lies() -> None:
    config = {"dataset": {"name": "d", "path": "x"}, "batch": 4, "base": {"name": "/data/sd15", "weights_sha256": "w"}}
    hub = {**config, "base": {"name": "org/sd15", "weights_sha256": "w"}, "batch": 8}
    other = {**config, "base": {"name": "/data/sd15", "weights_sha256": "v"}}
    bundled = {**config, "base": {"name": "scenes-tiny", "weights_sha256": "w"}}
    assert comparable(config) == comparable(hub) != comparable(other)
    assert comparable(bundled)["base"] == bundled["base"]  # of committed records
