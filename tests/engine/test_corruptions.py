"""Dirty data: the share that was asked for, the same samples at every size, and everything else clean."""

import numpy as np
import pytest

from benchmark.base.errors import UserError
from benchmark.engine.corruptions import CORRUPTIONS, View, corrupted, parse, shift

KEYS = [f"sample-{i}" for i in range(2000)]
OWN = np.arange(2000)


def test_without_corruptions_every_sample_is_its_own() -> None:
    for view in (corrupted(KEYS, [], 0), corrupted(KEYS, ["wrong_caption=0"], 0), View.clean(2000)):
        assert all(np.array_equal(places, OWN) for places in (view.images, view.captions, view.maps))
        assert not view.shifted.any()


@pytest.mark.parametrize(("name", "part"), [("wrong_caption", "captions"), ("foreign_map", "maps")])
def test_a_wrong_partner_hits_its_share_and_leaves_the_rest(name: str, part: str) -> None:
    view = corrupted(KEYS, [f"{name}=0.2"], 0)
    assert abs(float((getattr(view, part) != OWN).mean()) - 0.2) < 0.03
    others = {"images", "captions", "maps"} - {part}
    assert all(np.array_equal(getattr(view, other), OWN) for other in others)
    assert not view.shifted.any()
    assert (getattr(corrupted(KEYS, [f"{name}=1"], 0), part) != OWN).all()


def test_duplicates_are_whole_pairs_of_one_sample() -> None:
    view = corrupted(KEYS, ["duplicate=0.3"], 0)
    assert np.array_equal(view.images, view.captions)
    assert np.array_equal(view.images, view.maps)
    (places, counts) = np.unique(view.images, return_counts=True)
    assert counts.max() == pytest.approx(600, abs=60)
    assert (counts > 1).sum() == 1
    assert len(places) == 2000 - counts.max() + 1


def test_a_higher_rate_hits_the_same_samples_and_more_and_a_seed_others() -> None:
    few, many = (corrupted(KEYS, [f"shifted_map={rate}"], 0).shifted for rate in (0.1, 0.3))
    assert not (few & ~many).any()
    assert few.sum() < many.sum()
    assert not np.array_equal(few, corrupted(KEYS, ["shifted_map=0.1"], 1).shifted)
    assert np.array_equal(few[:100], corrupted(KEYS[:100], ["shifted_map=0.1"], 0).shifted)


def test_corruptions_add_up() -> None:
    view = corrupted(KEYS, ["wrong_caption=0.5", "foreign_map=0.5"], 0)
    assert 0.2 < float(((view.captions != OWN) & (view.maps != OWN)).mean()) < 0.3


def test_a_shift_moves_by_a_sixteenth() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 10, 20] = 255
    moved = shift(image)
    assert moved.shape == image.shape
    assert [tuple(place) for place in np.argwhere(moved[0, :, :, 0])] == [(14, 24)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrong_captions=0.2", 'did you mean "wrong_caption"'),
        ("wrong_caption", "has no rate from 0 to 1; write wrong_caption=0.2"),
        ("wrong_caption=2", "has no rate"),
        ("duplicate=nan", "has no rate"),
    ],
)
def test_what_is_no_corruption_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(text)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_takes_a_rate(name: str) -> None:
    assert parse(f"{name}=0.25") == (name, 0.25)
