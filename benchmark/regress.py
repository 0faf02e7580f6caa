"""Did a change make training worse? A small study against committed bands: `python -m benchmark.regress`."""

import hashlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark import registry
from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file, sealed_json, unsealed
from benchmark.cli import main as cli_main
from benchmark.cli import option, positive
from benchmark.contracts.plugins import Condition
from benchmark.engine.records import read_records
from benchmark.numbers.gate import FALSE_ALARM, Check, check_failures, check_mean, check_onset, check_spread
from benchmark.study import Design, read_design, run, run_side_by_side
from benchmark.train import Train, load_data, named_seeds

BANDS = Path(__file__).parent / "bands.json"
_TOLERANCE = 1e-3
_MEANS = ("control, full prompts", "control, no prompts", "CLIP score, full prompts")
_SPREADS = _MEANS[:2]
_CLEARED = ("runs", "images", "results")
_FOLDERS = (*_CLEARED, "datasets", "cache")


@dataclass(frozen=True)
class Regress:
    """Train four short ControlNets and compare them with the reference runs; exit 1 if anything moved."""

    out: Path = option("where the runs go", Path("runs/regress"), Path)
    bands: Path = option("the pins and the reference runs", BANDS, Path)
    workers: int = option("runs at a time, of one thread each", 2, positive)
    learn: bool = option("make the bands anew from the finished study regress_reference", False)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pins(_Frozen):
    """What must come out the same in every run of one seed on every machine.

    Attributes:
        dataset: Fingerprint of the dataset.
        conditioning: SHA-256 of the first batch's conditioning images as the model gets them, float32 (B, 3, H, W).
        token_ids: SHA-256 of the first batch's token ids, emptied prompts and all.
        losses: The loss by update: those of the first 21, equal within 1e-3.
    """

    dataset: str
    conditioning: str
    token_ids: str
    losses: dict[int, float]


class Run(_Frozen):
    """What one short run came to.

    Attributes:
        seed: Its seed.
        failed: Whether it diverged or never followed the condition.
        onset: The update at which control began; None if never.
        values: A number for each of the means compared; empty if it diverged.
    """

    seed: str
    failed: bool
    onset: int | None
    values: dict[str, float]


class Bands(_Frozen):
    """The committed reference: pins of the gate's own first run, and runs with other seeds."""

    pins: Pins
    runs: tuple[Run, ...]
    environment: dict[str, Any]


def regress(form: Regress) -> list[Check]:
    """Make what is missing of the gate's runs; return every comparison.

    Raises:
        UserError: No bands.
    """
    bands = read_bands(form.bands)
    design = _finished(form)
    checks = [
        *check_pins(bands.pins, pins(design.cells[0].trains[0])),
        *check_runs(bands.runs, runs_of(design)),
    ]
    for check in checks:
        say(f"{'MOVED' if check.moved else 'holds'}: {check.name}: {check.text}; sees {check.sees}")
    moved = [check.name for check in checks if check.moved]
    say(f"moved: {', '.join(moved)}" if moved else "nothing moved")
    say(f"false alarms: at most {FALSE_ALARM:.1%} of gates in which nothing changed")
    return checks


def _finished(form: Regress) -> Design:
    """Make what is missing of the gate's runs; return their study."""
    design = read_design("regress", form.out)
    _refuse_other_work(design)
    _clear_of_other_code(form.out)
    if form.workers > 1:
        run_side_by_side("regress", form.out, form.workers)
    run(design)
    return design


def _refuse_other_work(design: Design) -> None:
    """Refuse a folder that holds more than the gate's own work: runs of other code are deleted from it.

    Raises:
        UserError: It does.
    """
    out, own = design.root, {form.out for cell in design.cells for form in cell.trains}
    others = [path for path in out.glob("*") if path.name not in _FOLDERS]
    others += [path for path in out.glob("runs/*") if path not in own]
    if others:
        raise UserError(f"{out} holds other work ({others[0].name}) that would be deleted; give a folder of its own")


def _clear_of_other_code(out: Path) -> None:
    """Delete runs, images and records that other code or other packages than those at hand may have made.

    Data set and latents stay: both are checked by what they hold.
    """
    if _is_of_other_code(out):
        say(f"the runs in {out} were made by other code, or by code with changes of its own: all are made again")
        for name in _CLEARED:
            shutil.rmtree(out / name, ignore_errors=True)


def _is_of_other_code(out: Path) -> bool:
    """Whether a study's folder has runs that this code with these packages may not have made."""
    from benchmark.engine.runs import RUN, provenance, read_provenance

    mine = provenance("")
    made = [read_provenance(path.parent, RUN) for path in sorted(out.glob(f"runs/*/{RUN}"))]
    same = [one["commit"] == mine["commit"] and one["packages"] == mine["packages"] for one in made]
    return bool(made) and (mine["dirty"] or any(one["dirty"] for one in made) or not all(same))


def read_bands(path: Path) -> Bands:
    """Return the committed reference.

    Raises:
        UserError: None there, or a damaged one.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; make it with python -m benchmark.regress --learn")
    remedy = "restore it, or make it with --learn"
    try:
        return Bands.model_validate_json(unsealed(path.read_bytes(), str(path), remedy))
    except ValidationError as error:
        raise UserError(f"{path} holds no bands ({str(error)!r:.200}); {remedy}") from None


def pins(form: Train) -> Pins:
    """Return the pins of a run that was trained.

    Raises:
        UserError: The run is not there.
    """
    from benchmark.engine.bases import load_base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.journal import read_curve
    from benchmark.engine.pretrained import choose_device
    from benchmark.engine.reader import batch_rows, draw_batch

    assert form.out is not None
    dataset = BuiltDataset.open(form.dataset)
    base = load_base(form.base, choose_device(form.device))
    data = load_data(base, dataset, registry.remake(Condition, dataset.condition(form.cond)), form)
    seeds = named_seeds(form)
    rows = batch_rows(len(data), form.batch, 0, seeds["order"])
    batch = draw_batch(data, rows, 0, seeds["noise"], base.vae.config.scaling_factor, form.empty_prompt_rate)
    losses = {row["step"]: row["loss"] for row in read_curve(form.out) if "loss" in row and row["step"] <= 21}
    return Pins(
        dataset=dataset.manifest.fingerprint,
        conditioning=hashlib.sha256(batch.image.numpy().tobytes()).hexdigest(),
        token_ids=hashlib.sha256(batch.token_ids.numpy().tobytes()).hexdigest(),
        losses=losses,
    )


def check_pins(reference: Pins, new: Pins) -> list[Check]:
    """Return whether each pin is the committed one."""
    names = {
        "dataset": "fingerprint of the dataset",
        "conditioning": "rendered conditioning",
        "token_ids": "prompts after dropping",
    }
    exact = [
        Check(words, mine != theirs, f"{mine[:12]} against {theirs[:12]}", "any change")
        for name, words in names.items()
        for mine, theirs in [(getattr(new, name), getattr(reference, name))]
    ]
    away = max((abs(new.losses.get(step, float("inf")) - loss) for step, loss in reference.losses.items()), default=0.0)
    text = f"off by at most {away:.1e} at updates {', '.join(map(str, reference.losses))}"
    return [*exact, Check("first losses", not away <= _TOLERANCE, text, f"a change of {_TOLERANCE:g}")]


def check_runs(reference: Sequence[Run], new: Sequence[Run]) -> list[Check]:
    """Return whether new runs come out as the reference runs do; false alarms are bounded over all checks together."""
    alarm = FALSE_ALARM / (len(_MEANS) + len(_SPREADS) + 2)
    failures = check_failures([r.failed for r in reference], [r.failed for r in new], alarm)
    whole = [run for run in new if run.values]
    if len(whole) < 2:
        return [
            failures,
            Check("control", True, f"{len(whole)} of {len(new)} runs ended with weights", "any such gate"),
        ]
    values = {
        name: ([r.values[name] for r in reference if r.values], [r.values[name] for r in whole]) for name in _MEANS
    }
    last = max((step for run in (*reference, *new) if (step := run.onset) is not None), default=1)
    return [
        failures,
        check_onset([r.onset for r in reference], [r.onset for r in new], last, alarm),
        *(check_mean(name, *values[name], alarm) for name in _MEANS),
        *(check_spread(name, *values[name], alarm) for name in _SPREADS),
    ]


def runs_of(design: Design) -> list[Run]:
    """Return what the runs of a finished study came to, in the order of the study."""
    from benchmark.engine.board import sections
    from benchmark.engine.frame import frame
    from benchmark.engine.records import read_failures

    failures = list(read_failures(design.results).values())
    table = frame(sections(read_records(design.results), failures), failures)
    return [
        _run_of(table[table["seed"] == str(cell.trains[0].seed)], str(cell.trains[0].seed)) for cell in design.cells
    ]


def _run_of(rows: Any, seed: str) -> Run:
    if not len(rows) or (rows["outcome"] == "diverged").any():
        return Run(seed=seed, failed=True, onset=None, values={})
    by_prompts = rows.set_index("prompts")
    full, none = by_prompts.loc["full"], by_prompts.loc["none"]
    numbers = (full.get("normalised_control", math.nan), none.get("normalised_control", math.nan), full["clip_score"])
    onset = None if full["outcome"] != "followed" else int(full["onset"])
    return Run(seed=seed, failed=onset is None, onset=onset, values=dict(zip(_MEANS, map(float, numbers), strict=True)))


def learn(form: Regress) -> Path:
    """Make the bands anew from the finished reference study and one run of the gate's own; return their file.

    Raises:
        UserError: The reference study is not finished, or other code made its runs.
    """
    from benchmark.engine.runs import RUN, provenance, read_status

    reference = read_design("regress_reference", None)
    forms = [form for cell in reference.cells for form in cell.trains]
    missing = [form.out for form in forms if read_status(form.out or Path(), RUN) not in ("finished", "diverged")]
    if missing:
        raise UserError(f"{missing[0]} is not finished; run python -m benchmark.study run regress_reference first")
    if _is_of_other_code(reference.root):
        raise UserError(
            f"the runs in {reference.root} were made by other code, or by code with changes of its own; delete them, "
            "commit, and run python -m benchmark.study run regress_reference again"
        )
    made = Bands(
        pins=pins(_finished(form).cells[0].trains[0]),
        runs=tuple(runs_of(reference)),
        environment=provenance("python -m benchmark.regress --learn"),
    )
    replace_file(form.bands, sealed_json(made.model_dump(mode="json")))
    say(f"bands of {len(made.runs)} runs: {form.bands}")
    return form.bands


def _run(form: Regress) -> int:
    if form.learn:
        learn(form)
        return 0
    return int(any(check.moved for check in regress(form)))


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(Regress, _run, argv, "python -m benchmark.regress")


if __name__ == "__main__":
    raise SystemExit(main())
