"""Fit a control module on a frozen base: deterministic steps, atomic checkpoints, exact resume."""

import copy
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.base.console import progress, say
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file, sync
from benchmark.engine.bases import Base
from benchmark.engine.checkpoints import (
    check_seal,
    disk_errors,
    load_optimizer_tensors,
    load_tensors,
    optimizer_tensors,
    save_tensors,
    seal,
)
from benchmark.engine.diffusion import loss
from benchmark.engine.precision import mixed_precision
from benchmark.engine.reader import TrainingData, batch_rows, draw_batch

_LOG_EVERY = 10
_RAW = "state/weights"  # of a checkpoint that holds a running average: the weights it is of
# share of the highest learning rate, at a share of the updates; the names are diffusers'
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


@dataclass(frozen=True)
class Recipe:
    """How a control module is trained; a step is one optimiser update.

    Attributes:
        steps: Updates.
        batch: Samples an update.
        learning_rate: The highest, of AdamW with torch's default betas.
        weight_decay: Of AdamW.
        empty_prompt_rate: Share of samples whose prompt is emptied (the paper's 0.5).
        seeds: Named seeds: subset, init, order, noise, eval.
        checkpoint_every: Updates between checkpoints.
        probe_every: Updates between probes of the condition; 0 is never.
        schedule: A name of SCHEDULES: how the learning rate goes from its highest to the end.
        warmup_steps: Updates over which it rises to the highest in a straight line.
        mixed_precision: A name of precision.MIXED_PRECISION; weights stay in single precision.
        gradient_accumulation_steps: Equal parts in which the gradient of a batch is computed; it changes memory alone.
        gradient_checkpointing: Compute activations again in the backward pass; it changes memory and time alone.
        max_grad_norm: Longer gradients are cut to this norm over all parameters; 0 is never.
        snr_gamma: Cap of the signal-to-noise ratio in the loss (Min-SNR, arXiv 2303.09556), or None.
        ema_decay: Of the running average of the weights, which is then what checkpoints hold and probes see, or None.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    empty_prompt_rate: float
    seeds: dict[str, int]
    checkpoint_every: int
    probe_every: int = 0
    schedule: str = "constant"
    warmup_steps: int = 0
    mixed_precision: str = "no"
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    max_grad_norm: float = 0.0
    snr_gamma: float | None = None
    ema_decay: float | None = None

    def rate(self, step: int) -> float:
        """Return the learning rate of the update after `step` others."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * warm * SCHEDULES[self.schedule](step / self.steps)


class Diverged(Exception):
    """The loss is no longer a number; an outcome of a run, kept in its record."""


@dataclass(frozen=True)
class Trainee:
    """The module in training with the functions that put it on disk and fetch it back."""

    module: nn.Module
    save: Callable[[nn.Module, Path], None]
    load: Callable[[Path], nn.Module]


@dataclass
class _State:
    """What training changes: the weights, their running average where one is kept, and the optimiser."""

    module: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer

    @property
    def result(self) -> nn.Module:
        """What checkpoints hold and probes see."""
        return self.module if self.average is None else self.average


ProbeScores = Callable[[nn.Module | None], dict[str, float]]


def train(
    base: Base, trainee: Trainee, data: TrainingData, recipe: Recipe, run: Path, probe: ProbeScores | None = None
) -> Path:
    """Train up to the recipe's last step, from the newest checkpoint of the run if there is one; return the last one.

    `curve.jsonl` gets the loss of every tenth update and what `probe` says of the module, of no module at update 0.

    Raises:
        UserError: A checkpoint to go on from is damaged.
        Diverged: The loss became infinite or no number.
    """
    first, state = _resume(trainee, recipe, run, base.device)
    if recipe.gradient_checkpointing:
        _checkpoint_gradients(base.unet, state.module)
    curve = run / "curve.jsonl"
    _trim_curve(curve, first)
    if probe is not None and recipe.probe_every and first == 0:
        _note(curve, recipe, 0, probe=probe(None))
    with progress(recipe.steps, f"train {run.name}", "updates", done=first) as bar:
        for step in range(first, recipe.steps):
            value = _update(base, state, data, recipe, step)
            bar.update()
            if step % _LOG_EVERY == 0 or step == recipe.steps - 1:
                bar.set_postfix(loss=f"{value:.4f}")
                _note(curve, recipe, step + 1, loss=value)
            if probe is not None and _is_due(recipe.probe_every, step + 1, recipe.steps):
                _note(curve, recipe, step + 1, probe=_probed(probe, state.result))
            if _is_due(recipe.checkpoint_every, step + 1, recipe.steps):
                _checkpoint(trainee, state, run, step + 1, kept=1 if step + 1 == recipe.steps else 2)
    return newest_checkpoint(run)


def _update(base: Base, state: _State, data: TrainingData, recipe: Recipe, step: int) -> float:
    """Make one update and return its loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(step)
    state.optimizer.zero_grad()
    parts = _batch(base, data, recipe, step)
    number = sum(_backward(base, state.module, part, recipe, step, len(parts)) for part in parts)
    if recipe.max_grad_norm:
        nn.utils.clip_grad_norm_(state.module.parameters(), recipe.max_grad_norm)
    state.optimizer.step()
    if state.average is not None and recipe.ema_decay is not None:
        _move_average(state.average, state.module, recipe.ema_decay, step)
    return number


def _batch(base: Base, data: TrainingData, recipe: Recipe, step: int) -> list[tuple[Tensor, ...]]:
    """Return the arguments of the loss for each part of an update's batch, on the base's device."""
    rows = batch_rows(len(data), recipe.batch, step, recipe.seeds["order"])
    scaling = base.vae.config.scaling_factor
    batch = draw_batch(data, rows, step, recipe.seeds["noise"], scaling, recipe.empty_prompt_rate)
    with torch.no_grad():
        text = base.encode_text(batch.token_ids)
    tensors = (batch.latents, batch.noise, batch.timesteps, text, batch.image)
    parts = (tensor.to(base.device).chunk(recipe.gradient_accumulation_steps) for tensor in tensors)
    return list(zip(*parts, strict=True))


def _backward(base: Base, module: nn.Module, part: tuple[Tensor, ...], recipe: Recipe, step: int, parts: int) -> float:
    """Add the gradient of a part of the batch; return what it adds to the loss."""
    with mixed_precision(recipe.mixed_precision, base.unet, module):
        latents, noise, timesteps, text, image = part
        value = loss(base, module, latents, noise, timesteps, text, image, snr_gamma=recipe.snr_gamma) / parts
        number = float(value.detach())
        if not math.isfinite(number):
            raise Diverged(f"the loss is {number} at update {step + 1}")
        # in here, since checkpointed activations are computed again under the same rules
        with torch.autocast(base.device.type, enabled=False):
            value.backward()  # type: ignore[no-untyped-call]
    return number


@torch.no_grad()
def _move_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Move a running average towards the weights; early on faster, as diffusers' `EMAModel` does."""
    now = min(decay, (1 + step) / (10 + step)) if step else 0.0
    for kept, weight in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(weight, 1 - now)


def _checkpoint_gradients(*models: nn.Module) -> None:
    """Have every diffusers network in the models that can do so keep no activations of its blocks."""
    for model in models:
        for module in model.modules():
            if getattr(module, "_supports_gradient_checkpointing", False):
                module.enable_gradient_checkpointing()  # type: ignore[operator]


def _is_due(every: int, step: int, last: int) -> bool:
    return every > 0 and (step % every == 0 or step == last)


def _note(curve: Path, recipe: Recipe, step: int, **values: Any) -> None:
    with curve.open("a") as file:
        file.write(json.dumps({"step": step, "images_seen": step * recipe.batch, **values}) + "\n")


def _probed(probe: ProbeScores, module: nn.Module) -> dict[str, float]:
    module.eval()
    scores = probe(module)
    module.train()
    return scores


def checkpoint_step(path: Path) -> int:
    """Return the update a checkpoint folder was written after."""
    return int(path.name.removeprefix("step-"))


def newest_checkpoint(run: Path) -> Path:
    """Return the run's newest checkpoint folder.

    Raises:
        UserError: There is none.
    """
    found = _checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint; train it with python -m benchmark.train")
    return found[-1]


def _checkpoints(run: Path) -> list[Path]:
    """Return the run's checkpoint folders, the newest last."""
    found = [p for p in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=checkpoint_step)


def _checkpoint(trainee: Trainee, state: _State, run: Path, step: int, kept: int) -> None:
    """Write weights and optimiser state beside each other, then name the folder: it is whole once it has its name.

    With a running average, that is what the folder holds; the weights themselves are then in its `state/weights`.
    Of the run's checkpoints the newest `kept` stay.
    """
    final, temporary = run / "checkpoints" / f"step-{step}", run / "checkpoints" / f".step-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with disk_errors():
        trainee.save(state.result, temporary)
        save_tensors(temporary / "state" / "optimizer.safetensors", optimizer_tensors(state.optimizer))
        if state.average is not None:
            trainee.save(state.module, temporary / _RAW)
    seal(temporary)
    for path in (*temporary.rglob("*"), run / "curve.jsonl"):
        sync(path)
    temporary.rename(final)
    sync(final.parent)
    for older in _checkpoints(run)[:-kept]:
        shutil.rmtree(older)


def _resume(trainee: Trainee, recipe: Recipe, run: Path, device: torch.device) -> tuple[int, _State]:
    """Return the updates done and the state after them, of the newest whole checkpoint or of the trainee."""
    checkpoint = _whole_checkpoint(run)
    if checkpoint is None:
        return 0, _state(trainee.module, recipe, device)
    tensors, _ = load_tensors(checkpoint / "state" / "optimizer.safetensors")
    averaged = recipe.ema_decay is not None
    state = _state(trainee.load(checkpoint / _RAW if averaged else checkpoint), recipe, device)
    if averaged:
        state.average = trainee.load(checkpoint).to(device)
    load_optimizer_tensors(state.optimizer, tensors)
    return checkpoint_step(checkpoint), state


def _whole_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint that is as it was written, or None where there is none at all.

    One that is damaged is deleted where there is one before it: training from there makes it again, bit by bit.
    """
    found = _checkpoints(run)
    while found:
        newest = found.pop()
        try:
            check_seal(newest)
            return newest
        except UserError as error:
            damaged = f"{newest} is damaged ({error})"
        if not found:
            raise UserError(f"{damaged}; delete that folder to train again without it")
        say(f"{damaged} and deleted; going on from {found[-1].name}")
        shutil.rmtree(newest)
    return None


def _state(module: nn.Module, recipe: Recipe, device: torch.device) -> _State:
    module.to(device).train()
    average = copy.deepcopy(module) if recipe.ema_decay is not None else None
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return _State(module, average, optimizer)


def read_curve(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's curve in order: step, images seen, and a loss or a probe's scores."""
    return [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]


def _trim_curve(path: Path, step: int) -> None:
    """Drop the lines written after the checkpoint a run goes on from, and one that was cut off in writing."""
    path.touch()
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    kept = [line for line in whole if step and json.loads(line)["step"] <= step]  # from the start, no probe either
    replace_file(path, "".join(kept).encode())
