"""The scenes source: endless parts, pure functions of (seed, split, index)."""

from itertools import islice

import numpy as np
import pytest

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Part, Sample
from benchmark.sources.scenes import Scenes


def first(source: Scenes, part: Part, count: int, resolution: int = 64) -> list[Sample]:
    return list(islice(source.read(part, resolution), count))


def test_held_out_parts_come_first_and_training_parts_never_end() -> None:
    parts = list(islice(Scenes(val=8, test=24).parts(), 1000))
    assert [(part.name, part.num_samples) for part in parts[:4]] == [
        ("test-000000", 24),
        ("val-000000", 8),
        ("train-000000", 500),
        ("train-000001", 500),
    ]
    assert {part.split for part in parts[2:]} == {"train"}
    assert len({part.name for part in parts}) == 1000


def test_a_part_gives_as_many_samples_as_it_plans_with_keys_of_its_own() -> None:
    source = Scenes(val=8, test=24)
    parts = [Part("test-000000", 24), Part("val-000000", 8), Part("train-000000", 30), Part("train-000001", 30)]
    keys = [[sample.key for sample in source.read(part, 32)] for part in parts]
    assert [len(part_keys) for part_keys in keys] == [24, 8, 30, 30]
    assert len({key for part_keys in keys for key in part_keys}) == 92


def test_reading_twice_gives_the_same_samples() -> None:
    part = Part("train-000007", 500)
    for one, two in zip(first(Scenes(), part, 5), first(Scenes(), part, 5), strict=True):
        assert (one.key, one.caption, one.tags) == (two.key, two.caption, two.tags)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.maps["seg"].array, two.maps["seg"].array)


def test_held_out_sizes_change_no_training_sample() -> None:
    part = Part("train-000000", 500)
    for one, two in zip(first(Scenes(val=8, test=24), part, 3), first(Scenes(), part, 3), strict=True):
        assert one.key == two.key
        np.testing.assert_array_equal(one.image, two.image)


@pytest.mark.parametrize(
    "other", [(Scenes(seed=1), "train-000000"), (Scenes(), "val-000000"), (Scenes(), "train-000001")]
)
def test_another_seed_split_or_part_shows_other_scenes(other: tuple[Scenes, str]) -> None:
    pictures = [np.asarray(sample.image) for sample in first(Scenes(), Part("train-000000", 500), 4)]
    others = [np.asarray(sample.image) for sample in first(other[0], Part(other[1], 500), 4)]
    assert not any(np.array_equal(a, b) for a in pictures for b in others)


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_image_and_map_have_the_resolution_asked_for(resolution: int) -> None:
    (sample,) = first(Scenes(), Part("test-000000", 1), 1, resolution)
    image = np.asarray(sample.image)
    assert image.shape == (resolution, resolution, 3)
    assert image.dtype == np.uint8
    assert sample.maps["seg"].array.shape == (resolution, resolution)
    assert sample.caption


def test_the_scene_does_not_depend_on_the_resolution() -> None:
    small, large = (first(Scenes(), Part("test-000000", 8), 8, resolution) for resolution in (64, 128))
    assert [sample.caption for sample in small] == [sample.caption for sample in large]
    for a, b in zip(small, large, strict=True):
        agreed = a.maps["seg"].array == b.maps["seg"].array[::2, ::2]
        assert agreed.mean() > 0.95


@pytest.mark.parametrize("resolution", [0, 31, 513])
def test_a_resolution_out_of_range_is_refused(resolution: int) -> None:
    with pytest.raises(UserError, match="32 to 512"):
        list(Scenes().read(Part("test-000000", 1), resolution))
