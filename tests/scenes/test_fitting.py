"""Fitting the bundled models: rounds of the learning rate, and exact resume."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmark.engine.checkpoints import load_tensors
from benchmark.scenes import fitting
from benchmark.scenes.fitting import Stage, fit, go_on

_STAGE = Stage("toy", rounds=(60, 60), batch=4, learning_rate=0.05)
_POINTS = torch.linspace(-1, 1, 20)[:, None]


class _Cut(Exception):
    """The process ends here."""


def _products() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def _convolutions() -> nn.Module:
    layers = (nn.Unflatten(1, (1, 1, 1)), nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 3, padding=1))
    return nn.Sequential(*layers, nn.Flatten()).to(memory_format=torch.channels_last)


def _fit(
    work: Path,
    cut: int | None = None,
    probe: fitting.Probe | None = None,
    make: Callable[[], nn.Module] = _products,
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = make()

    def loss(indices: Tensor, step: int) -> Tensor:
        if step == cut:
            raise _Cut
        value: Tensor = (model(_POINTS[indices]) - _POINTS[indices] ** 2).square().mean()
        return value

    return fit(_STAGE, model, loss, len(_POINTS), work, probe).state_dict()


def test_every_round_rises_stays_and_falls() -> None:
    stage = Stage("toy", rounds=(64_000, 64_000, 32_000), batch=64, learning_rate=2.0)
    assert stage.steps == 2500
    assert [stage.rate(2000 + place) for place in (0, 99, 400, 499)] == pytest.approx([0.02, 2.0, 1.0, 2.0 / 200])
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


@pytest.mark.parametrize("make", [_products, _convolutions])
@pytest.mark.parametrize("cut", [1, 14, 15, 22])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    cut: int, make: Callable[[], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", -1)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = _fit(tmp_path / "whole", make=make)
    with pytest.raises(_Cut):
        _fit(tmp_path / "cut", cut=cut, make=make)
    again = _fit(tmp_path / "cut", make=make)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_probe_sees_the_average_after_every_fifth_of_a_round_but_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    _fit(tmp_path, probe=lambda average, images_seen: seen.append(images_seen))
    assert seen == [12 * i for i in range(1, 10)]


def test_a_finished_model_goes_through_the_last_round_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    finished = nn.Linear(1, 1).half()
    before = finished.weight.float().item()
    go_on(_STAGE, finished, tmp_path, seconds=90.0)
    seen: list[tuple[int, float]] = []
    model = nn.Linear(1, 1)

    def loss(indices: Tensor, step: int) -> Tensor:
        seen.append((step, model.weight.item()))
        value: Tensor = model(_POINTS[indices]).square().mean()
        return value

    fit(_STAGE, model, loss, len(_POINTS), tmp_path)
    assert [step for step, _ in seen] == list(range(15, 30))
    assert seen[0][1] == before
    _, metadata = load_tensors(tmp_path / "toy.safetensors")
    assert int(metadata["seconds"]) >= 90


def test_a_checkpoint_is_not_overwritten_by_a_finished_model(tmp_path: Path) -> None:
    _fit(tmp_path)
    whole = (tmp_path / "toy.safetensors").read_bytes()
    go_on(_STAGE, nn.Linear(1, 1), tmp_path, seconds=0.0)
    assert (tmp_path / "toy.safetensors").read_bytes() == whole
