"""Fit a control module on a frozen base: deterministic steps, atomic checkpoints, exact resume."""

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

from benchmark.base.console import progress
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file, sync
from benchmark.engine.bases import Base
from benchmark.engine.checkpoints import load_optimizer_tensors, load_tensors, optimizer_tensors, save_tensors
from benchmark.engine.diffusion import loss
from benchmark.engine.precision import mixed_precision
from benchmark.engine.reader import TrainingData, batch_rows, draw_batch

_LOG_EVERY = 10
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
    first, module, state = _resume(trainee, run)
    module.to(base.device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    if state is not None:
        load_optimizer_tensors(optimizer, state)
    curve = run / "curve.jsonl"
    _trim_curve(curve, first)
    if probe is not None and recipe.probe_every and first == 0:
        _note(curve, recipe, 0, probe=probe(None))
    with progress(recipe.steps, f"train {run.name}", "updates", done=first) as bar:
        for step in range(first, recipe.steps):
            value = _update(base, module, optimizer, data, recipe, step)
            bar.update()
            if step % _LOG_EVERY == 0 or step == recipe.steps - 1:
                bar.set_postfix(loss=f"{value:.4f}")
                _note(curve, recipe, step + 1, loss=value)
            if probe is not None and _is_due(recipe.probe_every, step + 1, recipe.steps):
                _note(curve, recipe, step + 1, probe=_probed(probe, module))
            if _is_due(recipe.checkpoint_every, step + 1, recipe.steps):
                _checkpoint(trainee, module, optimizer, run, step + 1)
    return newest_checkpoint(run)


def _update(
    base: Base, module: nn.Module, optimizer: torch.optim.Optimizer, data: TrainingData, recipe: Recipe, step: int
) -> float:
    """Make one update and return its loss."""
    rows = batch_rows(len(data), recipe.batch, step, recipe.seeds["order"])
    scaling = base.vae.config.scaling_factor
    batch = draw_batch(data, rows, step, recipe.seeds["noise"], scaling, recipe.empty_prompt_rate)
    device = base.device
    with torch.no_grad():
        text = base.encode_text(batch.token_ids)
    tensors = (batch.latents, batch.noise, batch.timesteps, text, batch.image)
    with mixed_precision(recipe.mixed_precision, base.unet, module):
        value = loss(base, module, *(tensor.to(device) for tensor in tensors))
    number = float(value.detach())
    if not math.isfinite(number):
        raise Diverged(f"the loss is {number} at update {step + 1}")
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate(step)
    optimizer.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return number


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
    found = [p for p in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    if not found:
        raise UserError(f"{run} holds no checkpoint; train it with python -m benchmark.train")
    return max(found, key=checkpoint_step)


def _checkpoint(trainee: Trainee, module: nn.Module, optimizer: torch.optim.Optimizer, run: Path, step: int) -> None:
    """Write weights and optimiser state beside each other, then name the folder: it is whole once it has its name."""
    final, temporary = run / "checkpoints" / f"step-{step}", run / "checkpoints" / f".step-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    trainee.save(module, temporary)
    save_tensors(temporary / "state" / "optimizer.safetensors", optimizer_tensors(optimizer))
    for path in temporary.rglob("*"):
        sync(path)
    temporary.rename(final)
    sync(final.parent)
    for older in (run / "checkpoints").glob("step-*"):
        if checkpoint_step(older) < step:
            shutil.rmtree(older)


def _resume(trainee: Trainee, run: Path) -> tuple[int, nn.Module, dict[str, Tensor] | None]:
    try:
        checkpoint = newest_checkpoint(run)
    except UserError:
        return 0, trainee.module, None
    try:
        tensors, _ = load_tensors(checkpoint / "state" / "optimizer.safetensors")
        return checkpoint_step(checkpoint), trainee.load(checkpoint), tensors
    except UserError as error:
        raise UserError(f"{checkpoint} is damaged ({error}); delete that folder to train again without it") from None


def read_curve(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's curve in order: step, images seen, and a loss or a probe's scores."""
    return [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]


def _trim_curve(path: Path, step: int) -> None:
    """Drop the lines written after the checkpoint a run goes on from, and one that was cut off in writing."""
    if path.exists():
        whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        replace_file(path, "".join(line for line in whole if json.loads(line)["step"] <= step).encode())
