"""Metrics: pure functions of tables, equal to torchmetrics, and silent about nothing that would bias them."""

from types import SimpleNamespace
from typing import Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel
from torchmetrics.functional.multimodal.clip_score import _clip_score_update
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Metric
from benchmark.contracts.tables import Table
from benchmark.numbers.frechet import Gaussian, frechet_distance

Array = NDArray[np.float32]
Tensors = dict[str, torch.Tensor]
_SPACES = {"scenes": 64, "clip": 64, "clip_text": 64, "scenes_nearest": 2, "inception": 64, "aesthetic": 1}


def _vectors(n: int, seed: int, width: int = 64, shift: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) * np.arange(1, width + 1) ** -0.5 + shift).astype(np.float32)


def _unit(vectors: Array) -> Array:
    scaled: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def _table(n: int, seed: int, shift: float = 0.0) -> Table:
    columns = {name: _vectors(n, seed + i, width, shift) for i, (name, width) in enumerate(_SPACES.items())}
    columns["scenes_nearest"] = np.abs(columns["scenes_nearest"]) + np.float32(1 + shift)
    return Table(tuple(f"{i:05d}" for i in range(n)), {k: _unit(v) if "clip" in k else v for k, v in columns.items()})


@pytest.mark.parametrize("name", registry.names(Metric))
def test_every_metric_gives_finite_scores_with_intervals(name: str) -> None:
    scores = registry.make(Metric, name).score(_table(200, 0, 0.1), _table(200, 10))
    assert scores
    for score in scores:
        assert score.stderr > 0
        assert score.low < score.estimate < score.high
        assert score.n == len(score.influence) == 200
        assert score.stderr == pytest.approx(np.std(score.influence, ddof=1) / np.sqrt(200))


@pytest.mark.parametrize("name", registry.names(Metric))
def test_every_metric_needs_only_columns_of_encoders(name: str) -> None:
    assert set(registry.make(Metric, name).needs) <= set(_SPACES)


@pytest.mark.parametrize(("spec", "needs"), [("fd,space=clip", ("clip",)), ("fd", ("scenes",))])
def test_fd_needs_the_space_it_is_asked_for(spec: str, needs: tuple[str, ...]) -> None:
    assert registry.make(Metric, spec).needs == needs


def test_clip_score_needs_the_space_it_is_asked_for() -> None:
    assert registry.make(Metric, "clip_score,space=large").needs == ("large", "large_text")


def test_a_clip_score_of_another_space_has_another_name() -> None:
    table = _table(20, 0)
    columns = {
        **table.columns,
        "clip:folder/large": table.columns["clip"][::-1],
        "clip:folder/large_text": table.columns["clip_text"],
    }
    other = Table(table.keys, columns)
    named = [
        registry.make(Metric, f"{name},space=clip:folder/large").score(other, other)[0].name
        for name in ("clip_score", "clip_cosine")
    ]
    assert named == ["clip_score-clip:large", "clip_cosine-clip:large"]


def test_fd_is_the_distance_of_torchmetrics() -> None:
    generated, reference = _table(300, 0, 0.1), _table(300, 10)
    (score,) = registry.make(Metric, "fd").score(generated, reference)
    x, y = (torch.from_numpy(table.columns["scenes"]).double() for table in (generated, reference))
    theirs = _compute_fid(x.mean(dim=0), torch.cov(x.T), y.mean(dim=0), torch.cov(y.T))
    assert score.name == "fd-scenes"
    assert score.value == pytest.approx(float(theirs), rel=1e-4)
    assert not score.higher_is_better


def test_fd_estimate_is_far_less_biased_than_the_plug_in_value() -> None:
    keys, reference = tuple(f"{i:03d}" for i in range(256)), _vectors(256, 1)
    spectrum = np.diag(1 / np.arange(1, 65))
    truth = frechet_distance(Gaussian(np.zeros(64), spectrum, 256), Gaussian.fit(reference))
    metric, against = registry.make(Metric, "fd"), Table(keys, {"scenes": reference})
    found = [metric.score(Table(keys, {"scenes": _vectors(256, seed)}), against)[0] for seed in range(2, 14)]
    bias = np.mean([score.value for score in found]) - truth
    assert bias > 0.1 * truth
    assert abs(np.mean([score.estimate for score in found]) - truth) < 0.2 * bias


def test_fd_of_a_set_with_itself_is_nothing() -> None:
    table = _table(200, 0)
    (score,) = registry.make(Metric, "fd").score(table, table)
    assert score.value == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("n", "ranked"), [(127, False), (128, True)])
def test_fd_below_two_images_a_dimension_is_printed_but_not_ranked(n: int, ranked: bool) -> None:
    (score,) = registry.make(Metric, "fd").score(_table(n, 0), _table(n, 10))
    assert score.value > 0
    assert score.unranked == (None if ranked else "n = 127 is below 2 D = 128")


def test_fd_refuses_tables_of_different_samples() -> None:
    short, long = _table(199, 0), _table(200, 10)
    with pytest.raises(UserError, match="different samples"):
        registry.make(Metric, "fd").score(short, long)


def test_fd_does_not_care_for_the_order_of_the_space() -> None:
    generated, reference = _table(200, 0, 0.1), _table(200, 10)
    turned = [Table(t.keys, {"scenes": t.columns["scenes"][:][:, ::-1]}) for t in (generated, reference)]
    a, b = registry.make(Metric, "fd").score(generated, reference)[0], registry.make(Metric, "fd").score(*turned)[0]
    assert (a.value, a.estimate, a.stderr) == pytest.approx((b.value, b.estimate, b.stderr))


def test_clip_score_is_the_mean_cosine_in_percent() -> None:
    table = _table(150, 3)
    image, text = (table.columns[name][:].astype(np.float64) for name in ("clip", "clip_text"))
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(image), torch.from_numpy(text)).numpy()
    (score,) = registry.make(Metric, "clip_score").score(table, table)
    assert score.value == score.estimate == pytest.approx(100 * cosines.mean(), rel=1e-5)
    assert score.stderr == pytest.approx(100 * cosines.std(ddof=1) / np.sqrt(150), rel=1e-5)
    assert score.n == 150
    assert score.higher_is_better


class _Lookup:
    """A CLIP model and its processor, as torchmetrics calls them: a picture or a text is the number of its row."""

    config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=77))

    def __init__(self, image: Array, text: Array) -> None:
        self.image, self.text = torch.from_numpy(image), torch.from_numpy(text)

    def __call__(self, text: list[str] | None = None, images: list[torch.Tensor] | None = None, **_: object) -> Tensors:
        if text is not None:
            ids = torch.tensor([[int(word)] for word in text])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {"pixel_values": torch.stack([image[0, 0, :1] for image in images or []])}

    def to(self, device: object) -> Self:
        return self

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.image[pixel_values[:, 0].long()]

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.text[input_ids[:, 0]]


def test_clip_score_is_that_of_torchmetrics() -> None:
    table = _table(60, 4)
    toy = _Lookup(table.columns["clip"][:], table.columns["clip_text"][:])
    pictures = [torch.full((3, 2, 2), float(i)) for i in range(60)]
    theirs, n = _clip_score_update(pictures, [str(i) for i in range(60)], toy, toy)
    (score,) = registry.make(Metric, "clip_score").score(table, table)
    assert n == 60
    assert score.value == pytest.approx(float(theirs.mean()), rel=1e-4)


def test_clip_score_keeps_negative_cosines() -> None:
    vectors = _unit(_vectors(10, 0))
    table = Table(tuple("abcdefghij"), {"clip": vectors, "clip_text": -vectors})
    (score,) = registry.make(Metric, "clip_score").score(table, table)
    assert score.value == pytest.approx(-100.0, rel=1e-5)


def test_kid_is_that_of_torchmetrics_on_the_full_sample() -> None:
    generated, reference = _table(300, 0, 0.1), _table(300, 10)
    (score,) = registry.make(Metric, "kid").score(generated, reference)
    x, y = (torch.from_numpy(table.columns["scenes"]).double() for table in (generated, reference))
    assert score.name == "kid-scenes"
    assert score.value == score.estimate == pytest.approx(float(poly_mmd(x, y)), rel=1e-6)
    assert not score.higher_is_better


def test_kid_of_two_halves_of_one_world_is_nothing_on_average_and_a_shift_is_seen() -> None:
    kid = registry.make(Metric, "kid")
    alike = [kid.score(_table(400, seed), _table(400, 1000 + seed))[0].estimate for seed in range(20, 50)]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / np.sqrt(len(alike))
    assert kid.score(_table(400, 0, 0.1), _table(400, 1000))[0].low > max(alike)


def test_cmmd_is_a_thousand_squared_discrepancies_of_unit_vectors() -> None:
    generated, reference = _table(200, 0, 0.1), _table(200, 10)
    (score,) = registry.make(Metric, "cmmd").score(generated, reference)
    x, y = (table.columns["clip"][:].astype(np.float64) for table in (generated, reference))
    inside, outside, across = (rbf_kernel(a, b, gamma=1 / 200) for a, b in ((x, x), (y, y), (x, y)))
    others = ~np.eye(200, dtype=bool)
    assert score.name == "cmmd-clip"
    assert score.value == pytest.approx(1000 * (inside.mean() + outside.mean() - 2 * across.mean()), rel=1e-4)
    unbiased = 1000 * (inside[others].mean() + outside[others].mean() - 2 * across.mean())
    assert score.estimate == pytest.approx(unbiased, rel=1e-4)
    means = 10 * float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    assert score.value == pytest.approx(means, rel=0.05)  # what it is with so wide a kernel


def test_cmmd_does_not_care_for_the_length_of_the_vectors() -> None:
    generated, reference = _table(100, 0, 0.1), _table(100, 10)
    longer = Table(generated.keys, {"clip": 3 * generated.columns["clip"][:]})
    a, b = (registry.make(Metric, "cmmd").score(table, reference)[0] for table in (generated, longer))
    assert a.value == pytest.approx(b.value, rel=1e-5)


def test_diversity_is_the_mean_distance_of_two_images_over_that_of_two_real_ones() -> None:
    generated, reference = _table(150, 0), _table(150, 10)
    generated = Table(generated.keys, {"scenes": generated.columns["scenes"][:] / 2})
    (score,) = registry.make(Metric, "diversity").score(generated, reference)
    expected = pdist(generated.columns["scenes"]).mean() / pdist(reference.columns["scenes"]).mean()
    assert score.value == pytest.approx(expected, rel=1e-5)
    assert 0.4 < score.value < 0.6


def test_the_error_of_diversity_is_that_of_leaving_out_samples() -> None:
    generated, reference = _table(80, 0), _table(80, 10)
    diversity = registry.make(Metric, "diversity")
    left_out = []
    for i in range(80):
        kept = [j for j in range(80) if j != i]
        keys, sides = tuple(generated.keys[j] for j in kept), (generated, reference)
        halves = [Table(keys, {"scenes": side.columns["scenes"][:][kept]}) for side in sides]
        left_out.append(diversity.score(*halves)[0].value)
    expected = np.sqrt(79 * np.var(left_out))
    assert diversity.score(generated, reference)[0].stderr == pytest.approx(expected, rel=0.05)


def test_one_picture_for_all_has_no_diversity_and_cannot_be_a_reference() -> None:
    varied = _table(50, 0)
    alike = Table(varied.keys, {"scenes": np.ones((50, 64))})
    assert registry.make(Metric, "diversity").score(alike, varied)[0].value == 0.0
    with pytest.raises(UserError, match="the reference images are all alike"):
        registry.make(Metric, "diversity").score(varied, alike)


def _distances(values: Array, pool: int = 500) -> Table:
    column = np.stack([values, np.full(len(values), pool)], axis=1)
    return Table(tuple(f"{i:05d}" for i in range(len(values))), {"scenes_nearest": column})


def test_nearest_is_nothing_for_copies_and_one_for_images_as_far_as_unseen_ones() -> None:
    nearest, unseen = registry.make(Metric, "nearest"), _distances(np.linspace(1, 3, 50, dtype=np.float32))
    copies = _distances(np.zeros(50, np.float32))
    (none,), (same,) = nearest.score(copies, unseen), nearest.score(unseen, unseen)
    assert (none.value, same.value, same.stderr) == (0.0, 1.0, 0.0)
    assert none.definition["num_training_images"] == 500
    with pytest.raises(UserError, match="all real images were trained on"):
        nearest.score(unseen, copies)


def test_the_error_of_nearest_is_that_of_leaving_out_samples() -> None:
    rng = np.random.default_rng(0)
    found, real = (rng.gamma(3, size=90).astype(np.float32) for _ in range(2))
    left_out = [np.delete(found, i).mean() / np.delete(real, i).mean() for i in range(90)]
    (score,) = registry.make(Metric, "nearest").score(_distances(found), _distances(real))
    assert score.stderr == pytest.approx(np.sqrt(89 * np.var(left_out)), rel=0.05)


@pytest.mark.parametrize("name", ["kid", "cmmd", "diversity"])
def test_distances_refuse_tables_of_different_samples(name: str) -> None:
    with pytest.raises(UserError, match="different samples"):
        registry.make(Metric, name).score(_table(199, 0), _table(200, 10))


def test_tables_refuse_what_cannot_be_trusted() -> None:
    with pytest.raises(UserError, match='column "x" has 2 rows for 1 keys'):
        Table(("a",), {"x": np.zeros((2, 3))})
    with pytest.raises(UserError, match='column "x" holds values that are not finite'):
        Table(("a",), {"x": np.array([[np.nan]])})


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a")])
def test_a_table_out_of_order_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="have to be sorted and each there once"):
        Table(keys, {"x": np.zeros((2, 1))})
