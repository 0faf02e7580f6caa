"""Anchors: every score beside its floor and ceiling, with the error of the joint statistic."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.numbers.anchors import ANCHORS, anchored

Array = NDArray[np.float64]
_LEVELS = {"run": 0.6, "real": 0.98, "vae": 0.9, "no_control": 0.2, "shuffled": 0.1}


def _scores(total: Array) -> dict[str, Array]:
    accuracy = total[..., 0] / total[..., 1]
    return {"accuracy": accuracy, "odds": accuracy**2}


def _rows(n: int = 40, **levels: float) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(50, 100, n).astype(np.float64)
    share = {name: np.clip(level + 0.05 * rng.normal(size=n), 0, 1) for name, level in {**_LEVELS, **levels}.items()}
    return {name: np.stack([share[name] * pixels, pixels], axis=1) for name in ANCHORS}


def test_every_score_has_every_anchor() -> None:
    rows = _rows()
    result = anchored(rows, _scores, {"referee": "toy"})
    assert set(result) == {"accuracy", "odds"}
    for name in ANCHORS:
        score = getattr(result["accuracy"], name)
        assert score.name == f"accuracy.{name}"
        assert score.value == pytest.approx(rows[name][:, 0].sum() / rows[name][:, 1].sum())
        assert getattr(result["odds"], name).value == pytest.approx(score.value**2)
        assert score.n == 40
        assert score.higher_is_better
        assert score.definition == {"referee": "toy"}


def test_normalised_control_is_the_place_between_floor_and_ceiling() -> None:
    result = anchored(_rows(), _scores, {})["accuracy"]
    run, floor, ceiling = result.run.value, result.no_control.value, result.vae.value
    assert result.normalised is not None
    assert result.normalised.value == pytest.approx((run - floor) / (ceiling - floor))
    assert 0.5 < result.normalised.value < 0.65


@pytest.mark.parametrize(("source", "place"), [("no_control", 0.0), ("vae", 1.0)])
def test_a_run_that_is_an_anchor_has_that_anchors_place_without_error(source: str, place: float) -> None:
    rows = _rows()
    normalised = anchored({**rows, "run": rows[source]}, _scores, {})["accuracy"].normalised
    assert normalised is not None
    assert (normalised.value, normalised.stderr) == pytest.approx((place, 0.0), abs=1e-12)


def test_the_error_of_normalised_control_leaves_out_whole_images() -> None:
    rows = _rows(20)

    def place(kept: Array) -> float:
        run, vae, floor = (
            rows[name][kept][:, 0].sum() / rows[name][kept][:, 1].sum() for name in ("run", "vae", "no_control")
        )
        return float((run - floor) / (vae - floor))

    left_out = [place(np.delete(np.arange(20), i)) for i in range(20)]
    normalised = anchored(rows, _scores, {})["accuracy"].normalised
    assert normalised is not None
    assert normalised.stderr == pytest.approx(np.sqrt(19 * np.var(left_out)))
    assert (normalised.low, normalised.high) == pytest.approx(
        (normalised.value - 1.96 * normalised.stderr, normalised.value + 1.96 * normalised.stderr)
    )


def test_control_below_the_floor_is_negative_and_above_the_ceiling_more_than_one() -> None:
    below, above = (anchored(_rows(run=level), _scores, {})["accuracy"].normalised for level in (0.1, 0.95))
    assert below is not None
    assert above is not None
    assert below.value < 0
    assert above.value > 1


def test_without_room_between_floor_and_ceiling_nothing_is_normalised() -> None:
    rows = _rows()
    assert anchored({**rows, "vae": rows["no_control"]}, _scores, {})["accuracy"].normalised is None
    assert anchored(_rows(vae=0.15), _scores, {})["accuracy"].normalised is None


def _with_mistakes(total: Array) -> dict[str, Array]:
    share = total[..., 0] / total[..., 1]
    return {"accuracy": share, "mistakes": 1 - share}


def test_normalised_control_of_an_error_grows_with_control() -> None:
    result = anchored(_rows(), _with_mistakes, {}, frozenset({"mistakes"}))
    accuracy, mistakes = result["accuracy"], result["mistakes"]
    assert accuracy.normalised is not None
    assert mistakes.normalised is not None
    assert mistakes.normalised.value == pytest.approx(accuracy.normalised.value)
    assert mistakes.normalised.stderr == pytest.approx(accuracy.normalised.stderr)
    assert mistakes.normalised.higher_is_better
    assert not mistakes.run.higher_is_better
    assert accuracy.run.higher_is_better


def test_an_error_without_room_has_no_normalised_control() -> None:
    no_room = _rows(vae=0.2, no_control=0.9)
    result = anchored(no_room, _with_mistakes, {}, frozenset({"mistakes"}))
    assert result["accuracy"].normalised is None
    assert result["mistakes"].normalised is None


def test_gain_is_the_paired_difference_between_own_and_foreign_maps() -> None:
    rows = _rows(20)
    result = anchored(rows, _scores, {})["accuracy"]

    def difference(kept: Array) -> float:
        own, foreign = (rows[name][kept][:, 0].sum() / rows[name][kept][:, 1].sum() for name in ("run", "shuffled"))
        return float(own - foreign)

    left_out = [difference(np.delete(np.arange(20), i)) for i in range(20)]
    assert result.gain is not None
    assert result.gain.value == pytest.approx(result.run.value - result.shuffled.value)
    assert result.gain.stderr == pytest.approx(np.sqrt(19 * np.var(left_out)))


def test_gain_of_a_condition_that_is_ignored_is_nothing_and_of_an_error_grows_with_control() -> None:
    ignored = _rows(run=0.1)
    gain = anchored({**ignored, "run": ignored["shuffled"]}, _with_mistakes, {}, frozenset({"mistakes"}))
    assert (gain["accuracy"].gain.value, gain["accuracy"].gain.stderr) == (0.0, 0.0)  # type: ignore[union-attr]
    followed = anchored(_rows(), _with_mistakes, {}, frozenset({"mistakes"}))
    assert followed["mistakes"].gain is not None
    assert followed["mistakes"].gain.value == pytest.approx(followed["accuracy"].gain.value)  # type: ignore[union-attr]
    assert followed["mistakes"].gain.value > 0.4


def test_room_that_one_sample_alone_makes_gives_no_normalised_score() -> None:
    """Without that sample ceiling and floor are the same, and what lies between them is no number."""
    rows = {name: np.array([[level, 1.0], [0.0, 0.0], [0.0, 0.0]]) for name, level in _LEVELS.items()}
    found = anchored(rows, lambda total: {"hits": total[..., 0] / np.maximum(total[..., 1], 1)}, {})["hits"]
    assert found.normalised is None
    assert found.run.value == pytest.approx(0.6)
