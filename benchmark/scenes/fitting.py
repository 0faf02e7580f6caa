"""Fit one model of the bundled world: averaged weights, a fixed order of images, resumable at any step."""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.base.console import progress
from benchmark.base.memory import keep_freed_memory
from benchmark.base.seeds import Stream
from benchmark.engine.checkpoints import (
    load_optimizer_tensors,
    load_tensors,
    optimizer_tensors,
    save_tensors,
    with_prefix,
    without_prefix,
)

EMA_DECAY = 0.999
CHECKPOINT_SECONDS = 60
Loss = Callable[[Tensor, int], Tensor]
Probe = Callable[[nn.Module, int], None]


@dataclass(frozen=True)
class Stage:
    """How long and how fast one model is trained.

    Training goes in rounds, each with a whole schedule of the learning rate, so that a model can be bettered by one
    more round without beginning again.

    Attributes:
        name: Of the model.
        rounds: Images seen in each round, distinct or not.
        batch: Images in an update.
        learning_rate: The highest.
    """

    name: str
    rounds: tuple[int, ...]
    batch: int
    learning_rate: float

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.first_step(len(self.rounds))

    def first_step(self, number: int) -> int:
        """Return the updates before a round, counted from 0."""
        return sum(images // self.batch for images in self.rounds[:number])

    def round(self, step: int) -> int:
        """Return the round of a step, counted from 0."""
        return max(i for i in range(len(self.rounds)) if self.first_step(i) <= step)

    def place(self, step: int) -> tuple[int, int]:
        """Return how many updates of its round a step follows, and how many the round has."""
        number = self.round(step)
        return step - self.first_step(number), self.rounds[number] // self.batch

    def rate(self, step: int) -> float:
        """Return the learning rate at a step: in each round 100 steps up, level, straight down over the last 40 %."""
        place, steps = self.place(step)
        return self.learning_rate * min((place + 1) / 100, 1.0, (steps - place) / (0.4 * steps))


def fit(
    stage: Stage, model: nn.Module, loss: Loss, pool_size: int, work: Path, probe: Probe | None = None
) -> nn.Module:
    """Train a model on its device on `loss(indices, step)`, resuming from `work`; return its moving average on the CPU.

    A probe sees the average after every fifth of a round, but for the end of the last.
    """
    keep_freed_memory()
    steps, path = stage.steps, work / f"{stage.name}.safetensors"
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, weight_decay=1e-2, fused=True)
    first, seconds = _restore(path, model, average, optimizer)
    log = work / f"{stage.name}.jsonl"
    with log.open("a") as lines, progress(steps, f"train {stage.name}", "updates", done=first) as bar:
        started = saved = time.monotonic()
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.rate(step)
            value = loss(_indices(stage, step, pool_size), step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            _follow(average, model, min(EMA_DECAY, (step + 1) / (step + 10)))
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{value.item():.4f}")
                print(json.dumps({"step": step, "loss": value.item()}), file=lines, flush=True)
            if time.monotonic() - saved > CHECKPOINT_SECONDS or step == steps - 1:
                saved = time.monotonic()
                spent = seconds + saved - started
                _save(path, model, average, optimizer, step + 1, spent)
            place, round_steps = stage.place(step)
            if probe and (place + 1) % (round_steps // 5) == 0 and step + 1 < steps:
                probe(average, (step + 1) * stage.batch)
    return average.cpu().eval()


def go_on(stage: Stage, model: nn.Module, work: Path, seconds: float) -> None:
    """Make a finished model, trained for so many seconds, the checkpoint before a stage's last round.

    For weights whose optimiser was not kept: it begins afresh, as the learning rate does in every round. Where the
    stage has a checkpoint already, nothing is done.
    """
    path = work / f"{stage.name}.safetensors"
    if not path.exists():
        model.float()
        unused = torch.optim.AdamW(model.parameters())
        _save(path, model, copy.deepcopy(model), unused, stage.first_step(len(stage.rounds) - 1), seconds)


def _indices(stage: Stage, step: int, pool_size: int) -> Tensor:
    """Return the pool rows of a batch: a new permutation every epoch, a pure function of the step."""
    per_epoch = pool_size // stage.batch
    epoch, position = divmod(step, per_epoch)
    order = Stream(0, f"pretrain-{stage.name}", epoch).permutation(pool_size)
    return torch.from_numpy(order[position * stage.batch : (position + 1) * stage.batch])


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def _save(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    tensors = with_prefix("model", model.state_dict()) | with_prefix("average", average.state_dict())
    save_tensors(path, tensors | optimizer_tensors(optimizer), {"step": str(step), "seconds": f"{seconds:.0f}"})


def _restore(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    tensors, metadata = load_tensors(path)
    model.load_state_dict(without_prefix("model", tensors))
    average.load_state_dict(without_prefix("average", tensors))
    load_optimizer_tensors(optimizer, tensors)
    return int(metadata["step"]), float(metadata["seconds"])
