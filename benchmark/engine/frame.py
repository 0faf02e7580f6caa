"""The board as one table for pandas, a row a run: what claims are judged on and what others analyse."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from benchmark.base.files import sha256
from benchmark.contracts.records import Failure, Score
from benchmark.engine.board import Section
from benchmark.engine.cells import ANCHORS, Row
from benchmark.engine.trainings import epochs, first_of, identity_of, likeness_of, seed_of, training_of

_RECIPE = ("batch", "learning_rate", "empty_prompt_rate", "mixed_precision")


def frame(board: list[Section], failures: Iterable[Failure] = ()) -> pd.DataFrame:
    """Return every record, and every training that ended without weights, as rows.

    A diverged run has no scores; its `outcome` says so, and analysis must not lose it: it has a row for each prompt
    setting it was meant for, or one without. Rows set aside are left out.
    """
    rows = [_row(section, row) for section in board for row in section.rows]
    return pd.DataFrame([*rows, *(row for failure in failures for row in _failed(failure))])


def _row(section: Section, row: Row) -> dict[str, Any]:
    record = row.record
    cells: dict[str, Any] = {
        "comparability_key": section.key[:12],
        "dataset": record.dataset["name"],
        "samples": record.dataset.get("keys_sha256", "")[:12],
        "condition": record.condition,
        "method": record.method,
        "base": record.base,
        "group": row.group,
        "prompts": record.generation["prompts"],
        "n": record.dataset["n"],
        **_training(training_of(record), record.method),
        "outcome": row.outcome,
        "onset": row.onset,
        "steepest": row.steepest,
    }
    normalised = row.control.normalised
    cells |= _cells("normalised_control", normalised) if normalised else {}
    cells |= _cells("control_gain", row.control.gain) if row.control.gain else {}
    for name in ANCHORS:
        cells |= _cells(f"{row.headline}_{name}", getattr(row.control, name))
    for prefix, scores in (("", record.scores), ("no_control_", record.floor_scores)):
        for score in scores:
            cells |= _cells(prefix + score.name, score)
    return cells | {"record": row.path.name}


def _failed(failure: Failure) -> list[dict[str, Any]]:
    row = {
        "dataset": failure.dataset["name"],
        "condition": failure.condition,
        "method": failure.method,
        "base": failure.base,
        **_training(training_of(failure), failure.method),
        "outcome": "diverged",
        "record": failure.failure_id,
    }
    return [{**row, "prompts": setting} for setting in failure.prompts or (None,)]


def _training(training: dict[str, Any], method: str) -> dict[str, Any]:
    """Return what was trained on and how; nothing for a released ControlNet."""
    first = first_of(training)
    recipe = first.get("recipe", {})
    return {
        "training": sha256(identity_of(training, method))[:16] if training else None,
        "likeness": sha256(likeness_of(training, method))[:16] if training else None,
        "seed": seed_of(first),
        "pairs": first.get("num_samples"),
        "pairs_sha256": first.get("pairs_sha256", "")[:12],
        "corrupt": ", ".join(first.get("corrupt", [])),
        "epochs": epochs(first),
        "updates": recipe.get("steps"),
        **{name: recipe.get(name) for name in _RECIPE},
    }


def _cells(name: str, score: Score) -> dict[str, float]:
    return {name: score.estimate, f"{name}_low": score.low, f"{name}_high": score.high}
