"""Fit a control module on a frozen base: deterministic steps, atomic checkpoints, exact resume."""

import copy
import importlib
import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.base.console import progress
from benchmark.base.files import sync
from benchmark.engine.bases import Base
from benchmark.engine.checkpoints import (
    KEPT_CURVE,
    checkpoint_step,
    checkpoints,
    curve_at,
    disk_errors,
    load_optimizer_tensors,
    load_tensors,
    newest_checkpoint,
    optimizer_tensors,
    save_tensors,
    seal,
    whole_checkpoint,
)
from benchmark.engine.diffusion import loss
from benchmark.engine.journal import Journal, journal, peak_memory_gib
from benchmark.engine.precision import frozen_for, layout_for, mixed_precision
from benchmark.engine.ranks import ALONE, Ranks
from benchmark.engine.reader import Batch, TrainingData, batch_rows, draw_batch
from benchmark.engine.recorded import Recorded, Work
from benchmark.engine.runs import CURVE

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
        use_8bit_adam: Keep AdamW's state in 8 bits, through bitsandbytes (arXiv 2110.02861).
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
    use_8bit_adam: bool = False

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
    layout: torch.memory_format

    @property
    def result(self) -> nn.Module:
        """What checkpoints hold and probes see."""
        return self.module if self.average is None else self.average


@dataclass
class _Losses:
    """Losses at which nobody has looked yet: on a GPU each look waits for all work that is queued."""

    waiting: list[tuple[int, Tensor]] = field(default_factory=list)
    last: float = math.nan

    def look(self) -> float:
        """Return the loss of the last update, a sum over the parts of its batch.

        Raises:
            Diverged: That of an update since the last look is infinite or no number; it names the first.
        """
        for step, parts in self.waiting:
            self.last = sum(parts.tolist())
            if not math.isfinite(self.last):
                raise Diverged(f"the loss is {self.last} at update {step + 1}")
        self.waiting.clear()
        return self.last


ProbeScores = Callable[[nn.Module | None], dict[str, float]]


def train(
    base: Base,
    trainee: Trainee,
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    probe: ProbeScores | None = None,
    tracker: str | None = None,
    ranks: Ranks = ALONE,
    eager: bool = False,
) -> Path:
    """Train up to the recipe's last step, from the newest checkpoint of the run if there is one; return the last one.

    `curve.jsonl` gets the loss of every tenth update and what `probe` says of the module, of no module at update 0;
    the tracker of that name gets the same with learning rate, speed and memory. Of several ranks, which all give the
    same arguments, the main one writes, probes and tells. A GPU replays a recording of the step, unless it is `eager`.

    Raises:
        UserError: A checkpoint to go on from is damaged, or the step cannot be recorded.
        Diverged: The loss became infinite or no number.
    """
    probe = probe if recipe.probe_every and ranks.is_main else None
    with ranks.main_first():
        first, before, state = _resume(trainee, recipe, run, base.device)
    if recipe.gradient_checkpointing:
        _checkpoint_gradients(base.unet, state.module)
    with journal(run, recipe.batch, first, before, tracker, hidden=not ranks.is_main) as notes:
        if probe is not None and first == 0:
            notes.probe(0, probe(None))
        started, losses = time.monotonic(), _Losses()
        gradients = _gradients(base, state, recipe, ranks, eager)
        with (
            closing(_batches(base, data, recipe, first, ranks)) as batches,
            progress(recipe.steps, f"train {run.name}", "updates", done=first, hidden=not ranks.is_main) as bar,
        ):
            for step, batch in enumerate(batches, first):
                losses.waiting.append((step, _update(base, state, gradients, batch, recipe, step, ranks)))
                bar.update()
                dues = (recipe.probe_every, recipe.checkpoint_every)
                probes, saves = (_is_due(every, step + 1, recipe.steps) for every in dues)
                tells = step % _LOG_EVERY == 0 or step == recipe.steps - 1
                if tells or probes or saves:  # the same updates in every rank, so that all of them end together
                    value = losses.look()
                if tells:
                    speed = (step + 1 - first) * recipe.batch / (time.monotonic() - started)
                    _tell(notes, bar, recipe, step, value, speed, base.device)
                if probe is not None and probes:
                    notes.probe(step + 1, _probed(probe, state.result))
                if saves:
                    with ranks.main_first():
                        if ranks.is_main:
                            _checkpoint(trainee, state, run, step + 1, kept=1 if step + 1 == recipe.steps else 2)
    return newest_checkpoint(run)


def _tell(
    notes: Journal, bar: Any, recipe: Recipe, step: int, value: float, images_per_second: float, device: torch.device
) -> None:
    """Note the loss of an update, and show it with the memory it takes; the bar knows rate and time left."""
    memory = peak_memory_gib(device)
    bar.set_postfix(loss=f"{value:.4f}", memory=f"{memory:.1f} GiB")
    costs = {"images_per_second": images_per_second, "peak_memory_gib": memory}
    notes.loss(step + 1, value, learning_rate=recipe.rate(step), **costs)


def _batches(base: Base, data: TrainingData, recipe: Recipe, first: int, ranks: Ranks) -> Generator[Batch, None, None]:
    """Yield a rank's share of the batch of every update.

    For a GPU the next one is made in a thread meanwhile. A step on the processor would lose more to the thread than the
    few milliseconds that a batch takes (docs/LOG.md).
    """

    def make(step: int) -> Batch:
        rows = batch_rows(len(data), recipe.batch, step, recipe.seeds["order"])
        scaling = base.vae.config.scaling_factor
        whole = draw_batch(data, rows, step, recipe.seeds["noise"], scaling, recipe.empty_prompt_rate)
        return whole.part(ranks.rank, ranks.world)

    steps = range(first, recipe.steps)
    yield from _ahead(make, steps, base.device) if steps and base.device.type == "cuda" else map(make, steps)


def _ahead(make: Callable[[int], Batch], steps: range, device: torch.device) -> Iterator[Batch]:
    """Yield the batch of every step in memory that a GPU copies from, the next one being made meanwhile."""

    def pinned(step: int) -> Batch:
        return make(step).pinned()

    # a thread has a GPU of its own in mind, the first one
    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,)) as thread:
        coming = thread.submit(pinned, steps[0])
        for step in steps[1:]:
            batch, coming = coming.result(), thread.submit(pinned, step)
            yield batch
        yield coming.result()


def _update(
    base: Base, state: _State, gradients: Work, batch: Batch, recipe: Recipe, step: int, ranks: Ranks
) -> Tensor:
    """Make one update; return what each part of the batch adds to its loss (parts,), on the base's device."""
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(step)
    losses = ranks.total(gradients(*_arguments(base, batch)))
    ranks.add_gradients(state.module)
    if recipe.max_grad_norm:
        nn.utils.clip_grad_norm_(state.module.parameters(), recipe.max_grad_norm)
    state.optimizer.step()
    if state.average is not None and recipe.ema_decay is not None:
        _move_average(state.average, state.module, recipe.ema_decay, step)
    return losses


def _arguments(base: Base, batch: Batch) -> tuple[Tensor, ...]:
    """Return what the loss of a batch is computed from, its prompts encoded: each once, since many are emptied."""
    token_ids, rows = torch.unique(batch.token_ids, dim=0, return_inverse=True)
    with torch.no_grad():
        text = base.encode_text(token_ids.to(base.device, non_blocking=True))[rows.to(base.device, non_blocking=True)]
    return batch.latents, batch.noise, batch.timesteps, text, batch.image


def _gradients(base: Base, state: _State, recipe: Recipe, ranks: Ranks, eager: bool) -> Work:
    """Return a function of a rank's share of a batch that leaves its gradients in the module, losses (parts,) returned.

    Activations that are computed again put the state of the GPU's random numbers aside, which no recording allows.
    """
    base = replace(base, unet=frozen_for(recipe.mixed_precision, base.unet))

    def compute(*share: Tensor) -> Tensor:
        state.optimizer.zero_grad()
        on_device = (tensor.to(base.device, non_blocking=True) for tensor in share)
        parts = zip(*(tensor.chunk(recipe.gradient_accumulation_steps) for tensor in on_device), strict=True)
        return torch.stack([_backward(base, state.module, part, recipe, ranks) for part in parts])

    eager = eager or base.device.type != "cuda" or recipe.gradient_checkpointing
    return compute if eager else Recorded(compute)


def _backward(base: Base, module: nn.Module, part: tuple[Tensor, ...], recipe: Recipe, ranks: Ranks) -> Tensor:
    """Add the gradient of a part of the batch; return what it adds to the loss."""
    with mixed_precision(recipe.mixed_precision, base.unet, module):
        latents, noise, timesteps, text, image = part
        value = loss(base, module, latents, noise, timesteps, text, image, snr_gamma=recipe.snr_gamma)
        value = value / (recipe.gradient_accumulation_steps * ranks.world)
        # in here, since checkpointed activations are computed again under the same rules
        with torch.autocast(base.device.type, enabled=False):
            value.backward()  # type: ignore[no-untyped-call]
    return value.detach()


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


def _probed(probe: ProbeScores, module: nn.Module) -> dict[str, float]:
    module.eval()
    scores = probe(module)
    module.train()
    return scores


def _checkpoint(trainee: Trainee, state: _State, run: Path, step: int, kept: int) -> None:
    """Write weights and optimiser state beside each other, then name the folder: it is whole once it has its name.

    With a running average, that is what the folder holds; the weights themselves are then in its `state/weights`.
    Of the run's checkpoints the newest `kept` stay.
    """
    final, temporary = run / "checkpoints" / f"step-{step}", run / "checkpoints" / f".step-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with disk_errors():
        _save(trainee, state.result, temporary, state.layout)
        save_tensors(temporary / "state" / "optimizer.safetensors", optimizer_tensors(state.optimizer))
        if state.average is not None:
            _save(trainee, state.module, temporary / _RAW, state.layout)
    shutil.copyfile(run / CURVE, temporary / KEPT_CURVE)
    seal(temporary)
    for path in temporary.rglob("*"):
        sync(path)
    temporary.rename(final)
    sync(final.parent)
    for older in checkpoints(run)[:-kept]:
        shutil.rmtree(older)


def _save(trainee: Trainee, module: nn.Module, folder: Path, layout: torch.memory_format) -> None:
    """Write weights in the layout of files, and go on in the one they are computed in."""
    module.to(memory_format=torch.contiguous_format)
    trainee.save(module, folder)
    module.to(memory_format=layout)


def _resume(trainee: Trainee, recipe: Recipe, run: Path, device: torch.device) -> tuple[int, bytes, _State]:
    """Return the updates done, the curve and the state after them, of the newest whole checkpoint or of the trainee."""
    checkpoint = whole_checkpoint(run)
    if checkpoint is None:
        return 0, b"", _state(trainee.module, recipe, device)
    tensors, _ = load_tensors(checkpoint / "state" / "optimizer.safetensors")
    averaged = recipe.ema_decay is not None
    state = _state(trainee.load(checkpoint / _RAW if averaged else checkpoint), recipe, device)
    if averaged:
        state.average = trainee.load(checkpoint).to(device).to(memory_format=state.layout)
    load_optimizer_tensors(state.optimizer, tensors)
    step = checkpoint_step(checkpoint)
    return step, curve_at(run, step), state


def _state(module: nn.Module, recipe: Recipe, device: torch.device) -> _State:
    layout = layout_for(recipe.mixed_precision, device)
    module.to(device).to(memory_format=layout).train()
    average = copy.deepcopy(module) if recipe.ema_decay is not None else None
    own: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.use_8bit_adam:
        kind = importlib.import_module("bitsandbytes.optim").AdamW8bit
    else:
        kind, own = torch.optim.AdamW, {**own, "fused": True}
    optimizer = kind(module.parameters(), **own)
    return _State(module, average, optimizer, layout)
