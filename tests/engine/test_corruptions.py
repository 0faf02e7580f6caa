"""Dirty data: the share that was asked for, the same samples at every size, and everything else clean."""

from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from benchmark.base.errors import UserError
from benchmark.engine.corruptions import CORRUPTIONS, DAMAGES, View, corrupted, damage, parse, shift
from benchmark.numbers.quality import grey_of, read_header, sharpness

KEYS = [f"sample-{i}" for i in range(2000)]
OWN = np.arange(2000)


def test_without_corruptions_every_sample_is_its_own() -> None:
    for view in (corrupted(KEYS, [], 0), corrupted(KEYS, ["wrong_caption=0"], 0), View.clean(2000)):
        assert all(np.array_equal(places, OWN) for places in (view.images, view.captions, view.maps))
        assert not view.shifted.any()
        assert not view.damaged.any()
        assert [(names, places.tolist()) for names, places in view.by_damage()] == [((), OWN.tolist())]


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


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_hits_its_share_of_the_images_and_no_caption_or_map(name: str) -> None:
    view = corrupted(KEYS, [f"{name}=0.2"], 0)
    assert all(np.array_equal(places, OWN) for places in (view.images, view.captions, view.maps))
    clean, hit = view.by_damage()
    assert (clean[0], hit[0]) == ((), (name,))
    assert abs(len(hit[1]) / 2000 - 0.2) < 0.03
    assert sorted([*clean[1], *hit[1]]) == OWN.tolist()


def test_damages_add_up_and_a_duplicate_is_as_damaged_as_its_original() -> None:
    kinds = dict(corrupted(KEYS, ["jpeg=0.5", "blur=0.5"], 0).by_damage())
    assert set(kinds) == {(), ("blur",), ("jpeg",), ("blur", "jpeg")}
    view = corrupted(KEYS, ["jpeg=0.5", "duplicate=0.9"], 0)
    copies = view.images == np.bincount(view.images).argmax()
    assert copies.sum() > 1700
    assert len(np.unique(view.damaged[copies], axis=0)) == 1


@pytest.mark.parametrize("side", [64, 256])
def test_a_damaged_image_is_what_hygiene_counts_as_one(side: int) -> None:
    """Blur against the sharpness hygiene reads, JPEG against Pillow's own at the same quality."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    assert np.array_equal(damage(image, ()), image)
    soft = damage(image, ["blur"])
    assert sharpness(grey_of(soft)) < 50 < sharpness(grey_of(image))
    assert soft.mean() == pytest.approx(image.mean(), abs=1)
    file = BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=10, subsampling="4:2:0")
    assert read_header(file.getvalue()).jpeg_quality == 10
    by_pillow = np.asarray(PIL.Image.open(file).convert("RGB"), np.int64)
    assert np.abs(damage(image, ["jpeg"]).astype(np.int64) - by_pillow).mean() < 1
    assert np.array_equal(damage(image, ["blur", "jpeg"]), damage(soft, ["jpeg"]))


def test_a_higher_rate_hits_the_same_samples_and_more_and_a_seed_others() -> None:
    few, many = (corrupted(KEYS, [f"shifted_map={rate}"], 0).shifted for rate in (0.1, 0.3))
    assert not (few & ~many).any()
    assert few.sum() < many.sum()
    assert not np.array_equal(few, corrupted(KEYS, ["shifted_map=0.1"], 1).shifted)
    assert np.array_equal(few[:100], corrupted(KEYS[:100], ["shifted_map=0.1"], 0).shifted)


def test_corruptions_add_up() -> None:
    view = corrupted(KEYS, ["wrong_caption=0.5", "foreign_map=0.5"], 0)
    assert 0.2 < float(((view.captions != OWN) & (view.maps != OWN)).mean()) < 0.3


def test_a_wrong_caption_does_not_fit_a_foreign_map() -> None:
    for count in (3, 7, 2000):
        view = corrupted(KEYS[:count], ["wrong_caption=1", "foreign_map=1"], 0)
        own = np.arange(count)
        assert (view.captions != own).all()
        assert (view.maps != own).all()
        assert count == 3 or (view.captions != view.maps).all()  # of three, half and a third of the way are the same


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
