"""Fitting the bundled models: rounds of the learning rate, and exact resume."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmark.scenes import fitting
from benchmark.scenes.fitting import Stage, fit

_STAGE = Stage("toy", round_images=60, rounds=2, batch=4, learning_rate=0.05)
_POINTS = torch.linspace(-1, 1, 20)[:, None]


class _Cut(Exception):
    """The process ends here."""


def _fit(work: Path, cut: int | None = None, probe: fitting.Probe | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))

    def loss(indices: Tensor, step: int) -> Tensor:
        if step == cut:
            raise _Cut
        value: Tensor = (model(_POINTS[indices]) - _POINTS[indices] ** 2).square().mean()
        return value

    return fit(_STAGE, model, loss, len(_POINTS), work, probe).state_dict()


def test_every_round_rises_stays_and_falls() -> None:
    stage = Stage("toy", round_images=64_000, rounds=2, batch=64, learning_rate=2.0)
    assert (stage.round_steps, stage.steps) == (1000, 2000)
    for first in (0, 1000):
        assert [stage.rate(first + place) for place in (0, 49, 99, 600)] == pytest.approx([0.02, 1.0, 2.0, 2.0])
        assert [stage.rate(first + place) for place in (800, 999)] == pytest.approx([1.0, 2.0 / 400])


def test_it_learns(tmp_path: Path) -> None:
    errors: list[float] = []

    def probe(average: nn.Module, images_seen: int) -> None:
        with torch.no_grad():
            errors.append((average(_POINTS) - _POINTS**2).square().mean().item())

    _fit(tmp_path, probe=probe)
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("cut", [1, 14, 15, 22])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", -1)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = _fit(tmp_path / "whole")
    with pytest.raises(_Cut):
        _fit(tmp_path / "cut", cut=cut)
    again = _fit(tmp_path / "cut")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_probe_sees_the_average_after_every_fifth_of_a_round_but_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    _fit(tmp_path, probe=lambda average, images_seen: seen.append(images_seen))
    assert seen == [12 * i for i in range(1, 10)]
