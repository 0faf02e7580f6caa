"""The training loop: what it may not change, and that stopping it anywhere changes nothing."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.files import sha256
from benchmark.contracts.plugins import Method
from benchmark.engine import precision
from benchmark.engine.bases import Base
from benchmark.engine.checkpoints import newest_checkpoint
from benchmark.engine.journal import read_curve
from benchmark.engine.reader import TrainingData
from benchmark.engine.training import Diverged, Recipe, Trainee, train
from benchmark.methods.controlnet import Controlnet

SEEDS = {"init": 0, "order": 0, "noise": 0}
Save = Callable[[nn.Module, Path], None]


class PowerCut(Exception):
    """Stands for anything that ends a process."""


@pytest.fixture(scope="module")
def data(base: Base) -> TrainingData:
    draw = torch.Generator().manual_seed(0)
    moments = torch.randn(6, 2, 4, 16, 16, generator=draw).abs()
    images = torch.randint(0, 256, (6, 64, 64, 3), generator=draw, dtype=torch.uint8).numpy()
    return TrainingData(moments, images, base.token_ids([f"a red cube {i}" for i in range(6)]), base.token_ids([""])[0])


def recipe(steps: int = 3, batch: int = 2, learning_rate: float = 1e-3, checkpoint_every: int = 1) -> Recipe:
    return Recipe(steps, batch, learning_rate, 0.01, 0.5, SEEDS, checkpoint_every)


def trainee(base: Base, save: Save | None = None, method: Method | None = None) -> Trainee:
    method = method or Controlnet()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = method.build(base.unet, base.latent_scale)
    return Trainee(module, save or method.save, lambda folder: method.load(str(folder)))


def cut_in_save(number: int, method: Method | None = None) -> Save:
    """Return a save that is cut off in the middle of its n-th checkpoint."""
    calls = 0

    def save(module: nn.Module, folder: Path) -> None:
        nonlocal calls
        calls += 1
        (method or Controlnet()).save(module, folder)
        if calls == number:
            raise PowerCut

    return save


def files(checkpoint: Path) -> dict[str, str]:
    """Return the hash of every file: weights, their configuration, and the optimiser's state."""
    found = sorted(p for p in checkpoint.rglob("*") if p.is_file())
    return {str(p.relative_to(checkpoint)): sha256(p.read_bytes()) for p in found}


def tensors(checkpoint: Path) -> dict[str, str]:
    """Return the hashes of weights and optimiser state."""
    return {name: digest for name, digest in files(checkpoint).items() if name.endswith(".safetensors")}


def damage(path: Path, how: str) -> None:
    """Cut a file in half, turn one bit in the middle of it, or delete it."""
    if how == "missing":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if how == "bit" else content[: len(content) // 2])


def curve(run: Path) -> list[dict[str, Any]]:
    return read_curve(run)


def state_sha256(module: nn.Module) -> str:
    return sha256(b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values()))


@pytest.fixture(scope="module")
def uninterrupted(base: Base, data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted")
    train(base, trainee(base), data, recipe(), run)
    return run


def test_training_moves_the_control_and_no_bit_of_the_base(base: Base, data: TrainingData, tmp_path: Path) -> None:
    models = (base.unet, base.vae, base.text_encoder)
    pupil, before = trainee(base), [state_sha256(model) for model in models]
    fresh = state_sha256(pupil.module)
    train(base, pupil, data, recipe(2), tmp_path)
    assert state_sha256(pupil.module) != fresh
    assert [state_sha256(model) for model in models] == before
    assert all(p.grad is None for model in models for p in model.parameters())


def test_a_last_checkpoint_holds_weights_configuration_and_optimizer(uninterrupted: Path) -> None:
    checkpoint = newest_checkpoint(uninterrupted)
    assert checkpoint.name == "step-3"
    assert set(files(checkpoint)) == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "state/curve.jsonl",
        "state/optimizer.safetensors",
        "state/sha256.json",
    }
    assert [p.name for p in (uninterrupted / "checkpoints").iterdir()] == ["step-3"]


def test_the_same_training_gives_the_same_bits(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    assert files(train(base, trainee(base), data, recipe(), tmp_path)) == files(newest_checkpoint(uninterrupted))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_cut_off_in_a_checkpoint_resumes_to_the_same_bits(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path, number: int
) -> None:
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(number)), data, recipe(), tmp_path)
    assert (tmp_path / "checkpoints" / f".step-{number}.tmp").exists()
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == number - 1
    resumed = train(base, trainee(base), data, recipe(), tmp_path)
    assert tensors(resumed) == tensors(newest_checkpoint(uninterrupted))
    assert (tmp_path / "curve.jsonl").read_bytes() == (uninterrupted / "curve.jsonl").read_bytes()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-3"]


@pytest.mark.parametrize(
    "spec", ["controlnet,unlocked=true", "controlnet,mid_only=true", "controlnet_lite", "t2i_adapter"]
)
def test_every_method_resumes_to_the_same_bits(base: Base, data: TrainingData, tmp_path: Path, spec: str) -> None:
    """Some parameters have no state of the optimiser, or another order in a file than in the module."""
    method = registry.make(Method, spec)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = train(base, trainee(base, method=method), data, recipe(checkpoint_every=2), tmp_path / "whole")
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(2, method), method), data, recipe(checkpoint_every=2), tmp_path / "parts")
    resumed = train(base, trainee(base, method=method), data, recipe(checkpoint_every=2), tmp_path / "parts")
    assert files(resumed) == files(whole)


def test_the_layout_of_weights_changes_a_run_by_rounding_alone(
    base: Base, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for name, tiles in (("plain", False), ("tiles", True)):
        monkeypatch.setattr(precision, "has_tiles", lambda tiles=tiles: tiles)
        (tmp_path / name).mkdir()
        train(base, trainee(base), data, replace(recipe(8), mixed_precision="bf16"), tmp_path / name)
        losses.append([row["loss"] for row in curve(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("spec", ["controlnet", "controlnet,unlocked=true", "controlnet_lite"])
def test_mixed_precision_resumes_to_the_same_bits_in_the_layout_of_any_processor(
    base: Base, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: bool, spec: str
) -> None:
    monkeypatch.setattr(precision, "has_tiles", lambda: tiles)
    method, form = registry.make(Method, spec), replace(recipe(5, checkpoint_every=2), mixed_precision="bf16")
    form = replace(form, ema_decay=0.5)  # two saves in each checkpoint
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    pupil = trainee(base, method=method)
    whole = train(base, pupil, data, form, tmp_path / "whole")
    kernels = [weight for weight in pupil.module.parameters() if weight.dim() == 4 and min(weight.shape) > 1]
    assert all(weight.is_contiguous() is not tiles for weight in kernels)
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(3, method), method), data, form, tmp_path / "parts")
    assert files(train(base, trainee(base, method=method), data, form, tmp_path / "parts")) == files(whole)


def test_a_run_is_resumed_from_its_checkpoint_not_from_its_trainee(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    train(base, trainee(base), data, recipe(2), tmp_path)
    other = trainee(base)
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.fill_(7.0)
    assert tensors(train(base, other, data, recipe(), tmp_path)) == tensors(newest_checkpoint(uninterrupted))


def test_a_resumed_checkpoint_holds_no_trace_of_the_interruption(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(3)), data, recipe(), tmp_path)
    assert files(train(base, trainee(base), data, recipe(), tmp_path)) == files(newest_checkpoint(uninterrupted))


def test_checkpoints_only_come_when_asked_for_and_do_not_change_the_weights(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(2)), data, recipe(checkpoint_every=2), tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").glob("step-*")] == ["step-2"]
    resumed = train(base, trainee(base), data, recipe(checkpoint_every=2), tmp_path)
    assert tensors(resumed) == tensors(newest_checkpoint(uninterrupted))


def test_the_newest_checkpoint_is_the_one_with_the_most_updates(tmp_path: Path) -> None:
    for name in ("step-9", "step-100", ".step-200.tmp", "step-300.tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_checkpoint(tmp_path).name == "step-100"


def test_a_run_without_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".step-1.tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no checkpoint; train it"):
        newest_checkpoint(tmp_path)


def test_the_curve_counts_updates_and_images(base: Base, data: TrainingData, tmp_path: Path) -> None:
    train(base, trainee(base), data, recipe(12, checkpoint_every=100), tmp_path)
    assert [(row["step"], row["images_seen"]) for row in curve(tmp_path)] == [(1, 2), (11, 22), (12, 24)]
    assert all(np.isfinite(row["loss"]) and row["loss"] > 0 for row in curve(tmp_path))


@pytest.mark.parametrize(
    "tail", ['{"step": 3, "loss": 9.9, "images_seen": 6}\n', '{"step": 3, "lo'], ids=["later", "half-written"]
)
def test_curve_lines_later_than_the_checkpoint_or_half_written_are_dropped(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path, tail: str
) -> None:
    train(base, trainee(base), data, recipe(1), tmp_path)
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write(tail)
    train(base, trainee(base), data, recipe(), tmp_path)
    assert curve(tmp_path) == curve(uninterrupted)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_learning_rate_is_that_of_diffusers(schedule: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs, ours = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=10), []
    expected = []
    for step in range(10):
        expected.append(optimizer.param_groups[0]["lr"] * (min(1.0, (step + 1) / warmup) if warmup else 1.0))
        ours.append(replace(recipe(10), schedule=schedule, warmup_steps=warmup).rate(step))
        optimizer.step()
        theirs.step()
    assert ours == pytest.approx(expected)


def test_a_schedule_changes_the_weights(base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path) -> None:
    other = train(base, trainee(base), data, replace(recipe(), schedule="linear"), tmp_path)
    assert tensors(other) != tensors(newest_checkpoint(uninterrupted))


def test_a_batch_in_parts_has_the_same_gradient(base: Base, data: TrainingData, tmp_path: Path) -> None:
    for parts in (1, 2):
        (tmp_path / str(parts)).mkdir()
        train(base, trainee(base), data, replace(recipe(), gradient_accumulation_steps=parts), tmp_path / str(parts))
    whole, halves = ([row["loss"] for row in curve(tmp_path / name)] for name in ("1", "2"))
    assert halves == pytest.approx(whole, rel=1e-5)
    assert abs(whole[-1] - whole[0]) > 1e-3


@pytest.mark.parametrize("name", ["no", "bf16"])
def test_gradient_checkpointing_changes_no_bit(base: Base, data: TrainingData, tmp_path: Path, name: str) -> None:
    plain = replace(recipe(2), mixed_precision=name)
    base, runs = replace(base, unet=copy.deepcopy(base.unet)), [tmp_path / arm for arm in ("plain", "checkpointed")]
    for run, form in zip(runs, (plain, replace(plain, gradient_checkpointing=True)), strict=True):
        run.mkdir()
        assert base.unet.is_gradient_checkpointing is False
        train(base, trainee(base), data, form, run)
    assert base.unet.is_gradient_checkpointing
    assert tensors(newest_checkpoint(runs[0])) == tensors(newest_checkpoint(runs[1]))


@pytest.mark.parametrize("spec", ["t2i_adapter", "controlnet,unlocked=true"])
def test_gradient_checkpointing_is_refused_where_it_would_be_wrong(
    base: Base, data: TrainingData, tmp_path: Path, spec: str
) -> None:
    base, pupil = replace(base, unet=copy.deepcopy(base.unet)), trainee(base, method=registry.make(Method, spec))
    with pytest.raises(UserError, match="not possible with a method that changes the inside"):
        train(base, pupil, data, replace(recipe(), gradient_checkpointing=True), tmp_path)


def test_gradients_are_cut_only_where_they_are_longer(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    for name, norm in (("short", 1e-7), ("long", 1e7)):
        (tmp_path / name).mkdir()
        train(base, trainee(base), data, replace(recipe(), max_grad_norm=norm), tmp_path / name)
    assert tensors(newest_checkpoint(tmp_path / "long")) == tensors(newest_checkpoint(uninterrupted))
    assert tensors(newest_checkpoint(tmp_path / "short")) != tensors(newest_checkpoint(uninterrupted))


def test_the_running_average_is_that_of_diffusers(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    """Its checkpoints hold the average, and in their state the weights of a run without one."""
    averaged, start = train(base, trainee(base), data, replace(recipe(), ema_decay=0.15), tmp_path), trainee(base)
    expected = EMAModel(start.module.parameters(), decay=0.15)
    for steps in (1, 2, 3):
        run = tmp_path / str(steps)
        run.mkdir()
        expected.step(start.load(train(base, trainee(base), data, recipe(steps), run)).parameters())
    for ours, theirs in zip(start.load(averaged).parameters(), expected.shadow_params, strict=True):
        torch.testing.assert_close(ours.data, theirs.data, rtol=1e-5, atol=1e-8)
    weights = "diffusion_pytorch_model.safetensors"
    raw = tensors(newest_checkpoint(uninterrupted))
    assert tensors(averaged)[f"state/weights/{weights}"] == raw[weights] != tensors(averaged)[weights]
    assert tensors(averaged)["state/optimizer.safetensors"] == raw["state/optimizer.safetensors"]


def test_a_run_with_an_average_resumes_to_the_same_bits(base: Base, data: TrainingData, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    form = replace(recipe(checkpoint_every=2), ema_decay=0.5)
    whole = train(base, trainee(base), data, form, tmp_path / "whole")
    with pytest.raises(PowerCut):  # in the second checkpoint: each holds the average and the weights it is of
        train(base, trainee(base, cut_in_save(3)), data, form, tmp_path / "parts")
    assert files(train(base, trainee(base), data, form, tmp_path / "parts")) == files(whole)


def test_a_probe_is_noted_before_training_on_time_and_at_the_end_and_changes_no_weight(
    base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path
) -> None:
    seen: list[bool] = []

    def probe(module: nn.Module | None) -> dict[str, float]:
        seen.append(module is not None and not module.training)
        return {"miou": float(len(seen))}

    probed = train(base, trainee(base), data, replace(recipe(), probe_every=2), tmp_path, probe)
    assert [(row["step"], row["probe"]) for row in curve(tmp_path) if "probe" in row] == [
        (0, {"miou": 1.0}),
        (2, {"miou": 2.0}),
        (3, {"miou": 3.0}),
    ]
    assert seen == [False, True, True]
    assert tensors(probed) == tensors(newest_checkpoint(uninterrupted))


@pytest.mark.parametrize("number", [1, 2])
def test_a_resumed_run_probes_no_step_twice(base: Base, data: TrainingData, tmp_path: Path, number: int) -> None:
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(number)), data, replace(recipe(), probe_every=1), tmp_path, lambda _: {})
    train(base, trainee(base), data, replace(recipe(), probe_every=1), tmp_path, lambda _: {})
    assert [row["step"] for row in curve(tmp_path) if "probe" in row] == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", ["init", "order", "noise"])
def test_each_seed_matters(base: Base, data: TrainingData, uninterrupted: Path, tmp_path: Path, seed: str) -> None:
    pupil, seeds = trainee(base), {**SEEDS, seed: 1}
    if seed == "init":
        torch.manual_seed(1)
        pupil = Trainee(Controlnet().build(base.unet, base.latent_scale), pupil.save, pupil.load)
    other = train(base, pupil, data, Recipe(3, 2, 1e-3, 0.01, 0.5, seeds, 1), tmp_path)
    assert tensors(other) != tensors(newest_checkpoint(uninterrupted))


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint(
    base: Base, data: TrainingData, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="at update 2"):
        train(base, trainee(base), data, recipe(learning_rate=1e30), tmp_path)
    assert newest_checkpoint(tmp_path).name == "step-1"
    assert len(curve(tmp_path)) == 1


@pytest.mark.parametrize("file", ["state/optimizer.safetensors", "diffusion_pytorch_model.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["cut", "missing", "bit"])
def test_a_damaged_checkpoint_is_an_error_that_names_it(
    base: Base, data: TrainingData, tmp_path: Path, file: str, how: str
) -> None:
    damage(train(base, trainee(base), data, recipe(1), tmp_path) / file, how)
    with pytest.raises(UserError, match="step-1"):
        train(base, trainee(base), data, recipe(), tmp_path)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("diffusion_pytorch_model.safetensors", "bit"),
        ("state/optimizer.safetensors", "bit"),
        ("state/optimizer.safetensors", "cut"),
        ("state/sha256.json", "cut"),
        ("config.json", "missing"),
    ],
)
def test_after_damage_the_checkpoint_before_is_used_and_the_end_is_the_same(
    base: Base,
    data: TrainingData,
    uninterrupted: Path,
    tmp_path: Path,
    file: str,
    how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(3)), data, recipe(), tmp_path)
    damage(tmp_path / "checkpoints" / "step-2" / file, how)
    resumed = train(base, trainee(base), data, recipe(), tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert "step-2 is damaged" in line
    assert Path(file).name in line
    assert line.endswith("and deleted; going on from step-1")
    assert files(resumed) == files(newest_checkpoint(uninterrupted))
    assert (tmp_path / "curve.jsonl").read_bytes() == (uninterrupted / "curve.jsonl").read_bytes()


def test_no_more_than_two_checkpoints_are_kept_and_one_in_the_end(
    base: Base, data: TrainingData, tmp_path: Path
) -> None:
    with pytest.raises(PowerCut):
        train(base, trainee(base, cut_in_save(4)), data, recipe(4), tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == ["step-2", "step-3"]
    train(base, trainee(base), data, recipe(4), tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-4"]
