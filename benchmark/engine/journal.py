"""What is told of a training while it runs: the curve in its folder, and one of accelerate's experiment trackers."""

import json
import os
import platform
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import tracking

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import json_object, replace_file
from benchmark.engine.runs import CURVE

_MEND = "its last checkpoint keeps a copy in state"
Track = Callable[[Mapping[str, float], int], None]


@dataclass(frozen=True)
class Journal:
    """Notes losses and probes.

    Attributes:
        curve: The file the notes are added to; it holds what the seeds decide and nothing else.
        batch: Images an update.
        track: Sends values to a tracker, with the update they belong to.
    """

    curve: Path
    batch: int
    track: Track

    def loss(self, step: int, value: float, **more: float) -> None:
        """Note the loss of an update; what more there is goes to the tracker alone."""
        self._note(step, loss=value)
        self.track({"loss": value, **more}, step)

    def probe(self, step: int, scores: Mapping[str, float]) -> None:
        """Note what a probe says after an update."""
        self._note(step, probe=scores)
        self.track({f"probe/{name}": value for name, value in scores.items()}, step)

    def _note(self, step: int, **values: Any) -> None:
        with self.curve.open("a") as file:
            file.write(json.dumps({"step": step, "images_seen": step * self.batch, **values}) + "\n")


@contextmanager
def journal(
    run: Path, batch: int, first: int, before: bytes, tracker: str | None, *, hidden: bool = False
) -> Iterator[Journal]:
    """Open the journal of a run that goes on after so many updates; a hidden one leaves no trace.

    Args:
        run: The run's folder.
        batch: Images an update.
        first: Updates that are done.
        before: The curve up to there; what the folder's own holds is dropped.
        tracker: Name of the tracker that is told too, if any.
        hidden: Whether nothing is to be noted.
    """
    if hidden:
        yield Journal(Path(os.devnull), batch, _untracked)
        return
    replace_file(run / CURVE, before)
    with _tracking(tracker, run, first) as track:
        yield Journal(run / CURVE, batch, track)


@contextmanager
def _tracking(name: str | None, run: Path, first: int) -> Iterator[Track]:
    """Yield what sends values to the tracker of that name, or to none."""
    if name is None:
        yield _untracked
        return
    kind = tracking.LOGGER_TYPE_TO_CLASS[name]
    # TensorBoard then shows no point twice: those of updates that are made again give way
    own = {"purge_step": first + 1 if first else 0} if name == "tensorboard" else {}
    places = [name, str(run)] if kind.requires_logging_directory else [run.name]
    tracker = kind(*places, **own)
    tracker.start()
    try:
        yield tracker.log
    finally:
        tracker.finish()


def _untracked(values: Mapping[str, float], step: int) -> None:
    pass


def check_tracker(name: str) -> None:
    """Make sure that a tracker can be used here.

    Raises:
        UserError: accelerate knows none of that name, or its package is not installed.
    """
    if name not in tracking.LOGGER_TYPE_TO_CLASS:
        raise UserError(f'no tracker "{name}"; {did_you_mean(name, tracking.LOGGER_TYPE_TO_CLASS)}')
    if name not in map(str, tracking.get_available_trackers()):
        raise UserError(f"the tracker {name} is not installed; pip install {name}, or leave --tracker out")


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory this process had so far, on its GPU if that is where it computes, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if platform.system() == "Darwin" else 2**10  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def read_curve(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's curve in order: step, images seen, and a loss or a probe's scores.

    Raises:
        UserError: It is damaged.
    """
    lines = (run / CURVE).read_bytes().splitlines()
    return [json_object(line, f"{run / CURVE}, line {number}", _MEND) for number, line in enumerate(lines, 1)]
