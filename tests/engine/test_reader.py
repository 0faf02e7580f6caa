"""Subsets, order and draws of training: functions of named seeds, and nothing else."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmark.base.errors import UserError
from benchmark.engine.reader import Batch, TrainingData, batch_rows, choose_rows, draw_batch

KEYS = [f"scenes-0-train-{i:08d}" for i in range(1000)]


def chosen(
    num_samples: int | None,
    replicate: int = 0,
    keys: list[str] = KEYS,
    subset_seed: int = 0,
    is_shuffled: bool = True,
) -> list[str]:
    return [keys[i] for i in choose_rows(keys, num_samples, replicate, subset_seed, is_shuffled)]


def test_another_subset_seed_gives_another_subset() -> None:
    assert set(chosen(100)) != set(chosen(100, subset_seed=1))


def test_a_smaller_subset_lies_inside_every_larger_one() -> None:
    for small, large in [(1, 10), (10, 100), (100, 999)]:
        assert set(chosen(small)) < set(chosen(large))
        assert chosen(small) == chosen(large)[:small]


def test_replicates_of_a_size_share_no_row_and_cover_all_rows() -> None:
    blocks = [chosen(250, replicate) for replicate in range(4)]
    assert [len(set(block)) for block in blocks] == [250] * 4
    assert sorted(key for block in blocks for key in block) == KEYS


def test_a_subset_depends_on_the_keys_not_on_their_order() -> None:
    assert chosen(100, keys=KEYS[::-1]) == chosen(100)
    assert chosen(100) != KEYS[:100]


def test_a_subset_of_a_shuffled_dataset_is_the_same_when_the_dataset_grows() -> None:
    keys = [f"scenes-0-train-{i:08d}" for i in range(100_000)]
    for size, replicate in [(300, 2), (10_000, 2), (30_000, 0), (30_000, 2)]:
        needed = 30_000 if size * (replicate + 1) <= 30_000 else 90_000
        assert chosen(size, replicate, keys[:needed]) == chosen(size, replicate, keys)
    assert sorted(chosen(None, keys=keys)) == keys


def test_a_subset_of_a_dataset_in_its_own_order_is_drawn_from_the_whole_of_it() -> None:
    keys = [f"row-{i:08d}" for i in range(100_000)]
    places = {key: i for i, key in enumerate(keys)}
    late = sum(places[key] >= 30_000 for key in chosen(10_000, keys=keys, is_shuffled=False))
    assert 6_900 < late < 7_100
    assert all(places[key] < 30_000 for key in chosen(10_000, keys=keys))


def test_no_size_takes_every_row_once() -> None:
    assert sorted(chosen(None)) == KEYS


@pytest.mark.parametrize(("num_samples", "replicate"), [(1001, 0), (501, 1), (None, 1), (0, 0), (10, 100), (10, -1)])
def test_a_subset_that_the_dataset_cannot_give_is_refused(num_samples: int | None, replicate: int) -> None:
    with pytest.raises(UserError, match="1000 training pairs are too few"):
        choose_rows(KEYS, num_samples, replicate, 0, is_shuffled=True)


def test_the_refusal_names_the_size_to_build() -> None:
    with pytest.raises(UserError, match="build with --size 1800"):
        choose_rows(KEYS, 600, 2, 0, is_shuffled=True)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (12, 4), (7, 7), (100, 1)])
def test_every_epoch_visits_every_row_once(count: int, batch: int) -> None:
    visited = np.concatenate([batch_rows(count, batch, step, 0) for step in range(count)])
    epochs = visited.reshape(batch, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()


def test_epochs_have_different_orders() -> None:
    first, second = (batch_rows(50, 50, step, 0) for step in range(2))
    assert (first != second).any()
    assert (first != np.arange(50)).any()


def test_the_rows_of_a_step_are_a_function_of_the_step_and_the_order_seed() -> None:
    late = batch_rows(10, 4, 1000, 0)
    for step in range(3):
        batch_rows(10, 4, step, 0)
    assert (batch_rows(10, 4, 1000, 0) == late).all()
    assert any((batch_rows(10, 4, step, 1) != batch_rows(10, 4, step, 0)).any() for step in range(3))


def training_data(count: int, mean: float = 0.0, std: float = 1.0) -> TrainingData:
    moments = torch.stack([torch.full((count, 4, 8, 8), value) for value in (mean, std)], dim=1)
    images: NDArray[np.uint8] = np.zeros((count, 16, 16, 3), dtype=np.uint8)
    images[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    images[..., 0] = 255
    return TrainingData(
        moments, images, torch.arange(count)[:, None] + torch.arange(1, 6), torch.zeros(5, dtype=torch.long)
    )


def draw(
    data: TrainingData, step: int = 0, noise_seed: int = 0, scaling_factor: float = 1.0, empty_prompt_rate: float = 0.0
) -> Batch:
    return draw_batch(data, np.arange(len(data)), step, noise_seed, scaling_factor, empty_prompt_rate)


def same(a: Batch, b: Batch) -> dict[str, bool]:
    return {
        name: torch.equal(getattr(a, name), getattr(b, name)) for name in ("latents", "noise", "timesteps", "token_ids")
    }


def test_a_batch_is_a_function_of_its_rows_step_and_noise_seed() -> None:
    data = training_data(50)
    assert all(same(draw(data, 3, 7, 1.0, 0.5), draw(data, 3, 7, 1.0, 0.5)).values())
    assert not any(same(draw(data, 3, 7, 1.0, 0.5), draw(data, 4, 7, 1.0, 0.5)).values())
    assert not any(same(draw(data, 3, 7, 1.0, 0.5), draw(data, 3, 8, 1.0, 0.5)).values())


def test_a_batch_holds_the_rows_asked_for_in_their_order() -> None:
    data, rows = training_data(50), np.array([7, 3, 3])
    batch = draw_batch(data, rows, 0, 0, 1.0, 0.0)
    assert torch.equal(batch.token_ids, data.token_ids[[7, 3, 3]])
    assert batch.image.shape == (3, 3, 16, 16)
    assert (batch.image[:, 0] == 1.0).all()
    assert torch.equal(batch.image[:, 1:, 0, 0], torch.tensor([7.0, 3.0, 3.0])[:, None].expand(3, 2) / 255)


def test_prompts_are_emptied_at_the_rate_asked_for() -> None:
    data = training_data(4000)
    shares = {
        rate: float((draw(data, empty_prompt_rate=rate).token_ids == 0).all(dim=1).float().mean())
        for rate in (0, 0.2, 1)
    }
    assert shares[0] == 0.0
    assert shares[1] == 1.0
    assert shares[0.2] == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 4000) ** 0.5)


def test_an_emptied_prompt_is_the_empty_prompt_and_the_others_are_whole() -> None:
    data = training_data(100)
    tokens = draw(data, empty_prompt_rate=0.5).token_ids
    kept = (tokens == data.token_ids).all(dim=1)
    assert 0 < int(kept.sum()) < 100
    assert not tokens[~kept].any()


def test_latents_are_drawn_from_the_posterior_and_scaled() -> None:
    latents = draw(training_data(400, mean=3.0, std=0.5), scaling_factor=2.0).latents
    assert float(latents.mean()) == pytest.approx(6.0, abs=0.02)
    assert float(latents.std()) == pytest.approx(1.0, abs=0.02)


def test_a_posterior_without_width_gives_its_mean() -> None:
    assert (draw(training_data(20, mean=3.0, std=0.0), scaling_factor=0.5).latents == 1.5).all()


def test_noise_is_standard_normal_and_independent_of_the_posterior_draw() -> None:
    batch = draw(training_data(400))
    assert float(batch.noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(batch.noise.std()) == pytest.approx(1.0, abs=0.02)
    correlation = torch.corrcoef(torch.stack([batch.noise.flatten(), batch.latents.flatten()]))[0, 1]
    assert abs(float(correlation)) < 4 / batch.noise.numel() ** 0.5


def test_timesteps_cover_the_schedule_evenly() -> None:
    timesteps = draw(training_data(20_000)).timesteps
    assert timesteps.min() == 0
    assert timesteps.max() == 999
    counts = torch.bincount(timesteps // 100, minlength=10)
    assert float((counts - 2000).abs().max()) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
