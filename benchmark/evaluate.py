"""Score a folder of images against its dataset: `python -m benchmark.evaluate --images DIR`."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmark import registry
from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, replace_file, sha256
from benchmark.cli import command_line, option
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import Annotator, Condition, Encoder, Images, Map, Method, Metric
from benchmark.contracts.records import Counts, Record, Score
from benchmark.contracts.tables import Table, sorted_table
from benchmark.numbers.anchors import anchored

if TYPE_CHECKING:
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.imagesets import Reference

SUITE_VERSION = 1
_STRIP_COLUMNS, _STRIP_SIDE, _STRIP_QUALITY = 8, 64, 82


@dataclass(frozen=True)
class Evaluate:
    """Score images made by benchmark.generate: condition reconstruction between floor and ceiling, and every metric."""

    images: Path = option("images folder made by benchmark.generate", parse=Path)
    no_control: Path | None = option("the base's own images (default: where generate puts them)", None, Path)
    dataset: Path | None = option("dataset folder (default: the one the images were made for)", None, Path)
    cond: str | None = option("which condition to score by, where several steered", None)
    metric: tuple[str, ...] = option("only these metrics (default: all)", ())
    referee: str | None = option("annotator that reads the condition back (default: the condition's own)", None)
    results: Path = option("where the record goes", Path("results"), Path)


@dataclass(frozen=True)
class Evidence:
    """The images behind a record, all of the same samples in the same order, uint8 (N, R, R, 3)."""

    generated: Images
    real: Images
    vae: Images
    no_control: Images


def evaluate(form: Evaluate) -> Path:
    """Score the images a form names and write the record; return its path.

    Raises:
        UserError: Images that are incomplete, of another dataset, or without a floor to compare with.
    """
    from benchmark.engine import imagesets
    from benchmark.engine.bases import load_base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.latents import round_trip
    from benchmark.engine.records import read_record, record_path, write_record

    config = imagesets.read_config(form.images)
    if config["condition"] is None:
        raise UserError(f"{form.images} was made without control: it is the floor of a run, given as --no-control")
    config = imagesets.scored_by(config, form.cond)
    dataset = BuiltDataset.open(form.dataset or Path(config["dataset"]["path"]))
    if dataset.manifest.fingerprint != config["dataset"]["fingerprint"]:
        raise UserError(f"{form.images} was made for another state of {dataset.folder}; generate again")
    condition = registry.remake(Condition, config["condition"])
    reference = imagesets.load_reference(dataset, config["split"], config["condition"]["name"], config["samples"]["n"])
    floor = _floor(form, config)
    question = _question(form, config, dataset, condition, reference)
    name, kind = config["dataset"]["name"], question.condition
    path = record_path(form.results, name, kind, question.method, question.evaluation_id)
    if path.exists():
        _say_scores(read_record(path), condition, path)
        return path
    base = load_base(config["base"]["name"])
    side = dataset.plan.resolution
    evidence = Evidence(
        generated=imagesets.read_images(form.images, reference.keys, side),
        real=reference.images,
        vae=round_trip(base, reference.images),
        no_control=imagesets.read_images(floor, reference.keys, side),
    )
    record = _record(form, question, config, condition, reference, evidence)
    _write_strip(path.with_suffix(".webp"), condition, reference, evidence)
    _copy_curve(config, path.with_suffix(".jsonl"))
    write_record(form.results, record)  # last: a record stands for all that lies beside it
    _say_scores(record, condition, path)
    return path


def _floor(form: Evaluate, config: dict[str, Any]) -> Path:
    """Return the folder of the base's own images for the same samples, prompts and noise."""
    from benchmark.engine import imagesets

    wanted = imagesets.without_control(config)
    folder = form.no_control or imagesets.default_folder(wanted, form.images.parent)
    if not folder.exists():
        raise UserError(f"the floor is missing; generate the base's own images: {_floor_command(config, folder)}")
    present = imagesets.read_config(folder)
    if imagesets.comparable(present) != imagesets.comparable(wanted):
        raise UserError(
            f"{folder} is not the floor of {form.images}: samples, prompts or settings differ; generate it again"
        )
    return folder


def _floor_command(config: dict[str, Any], folder: Path) -> str:
    """Return the command that generates the floor of images made with a configuration."""
    sampling = config["sampling"]
    options = {
        "dataset": config["dataset"]["path"],
        "base": config["base"]["name"],
        "split": config["split"],
        "prompts": config["prompts"],
        "limit": config["samples"]["n"],
        "num-inference-steps": sampling["num_inference_steps"],
        "guidance-scale": sampling["guidance_scale"],
        "seed": sampling["eval_seed"],
        "scheduler": sampling["scheduler"],
        "out": folder,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["python", "-m", "benchmark.generate", *words])


def observe(condition: Condition, referee: Annotator, reference: "Reference", evidence: Evidence) -> dict[str, Any]:
    """Return additive comparison rows (N, K) for the run and each anchor; shuffled takes the map half the set away."""
    truth = [condition.decode(data) for data in reference.maps]
    sets = {
        "run": evidence.generated,
        "real": evidence.real,
        "vae": evidence.vae,
        "no_control": evidence.no_control,
    }
    read = {name: referee.annotate_samples(images, reference.keys) for name, images in sets.items()}
    half = max(1, len(truth) // 2)
    pairs: dict[str, tuple[list[Map], list[Map]]] = {name: (truth, maps) for name, maps in read.items()}
    pairs["shuffled"] = (truth[half:] + truth[:half], read["run"])
    return {
        name: np.stack([condition.compare(a, b) for a, b in zip(left, right, strict=True)])
        for name, (left, right) in pairs.items()
    }


@cache
def _encoder(spec: str) -> Encoder:
    return registry.make(Encoder, spec)


def table(columns: set[str], keys: tuple[str, ...], images: Images, texts: list[str]) -> Table:
    """Return the vectors metrics ask for: column NAME is an encoder's image vectors, NAME_text its text vectors."""
    vectors: dict[str, NDArray[Any]] = {}
    for column in sorted(columns):
        if column.endswith("_text"):
            vectors[column] = _encoder(column.removesuffix("_text")).encode_texts(texts)
        else:
            vectors[column] = _encoder(column).encode(images)
    return sorted_table(keys, vectors)


def score_images(metrics: Mapping[str, Metric], reference: "Reference", images: Images, real: Images) -> list[Score]:
    """Return the scores of images against the real pictures of the same samples, captions as texts."""
    columns = {need for metric in metrics.values() for need in metric.needs}
    generated = table(columns, reference.keys, images, list(reference.captions))
    against = table(columns, reference.keys, real, list(reference.captions))
    return [score for metric in metrics.values() for score in metric.score(generated, against)]


@dataclass(frozen=True)
class Question:
    """What is asked of a folder of images: metrics and referee, what must agree to compare the answer, what steered.

    Attributes:
        metrics: By the words that made them.
        referee: Reads the condition back.
        comparability: Everything that must agree before two records may be compared.
        control: What steered the images, without the places it lay in.
    """

    metrics: dict[str, Metric]
    referee: Annotator
    comparability: dict[str, Any]
    control: dict[str, Any]

    @property
    def condition(self) -> str:
        """Name of the condition that is scored."""
        return str(self.comparability["condition"]["name"])

    @property
    def method(self) -> str:
        """The method that steered, as written on the command line."""
        if "parts" in self.control:
            return "+".join(f"{_method(part)}@{part['condition']['name']}" for part in self.control["parts"])
        return _method(self.control)

    @property
    def evaluation_id(self) -> str:
        """Sixteen hexadecimal digits: the same question about the same control has the same answer."""
        return sha256(canonical_json([self.comparability, self.control]))[:16]


def _method(control: dict[str, Any]) -> str:
    return registry.spec(registry.remake(Method, control["method"]))


def _question(
    form: Evaluate, config: dict[str, Any], dataset: "BuiltDataset", condition: Condition, reference: "Reference"
) -> Question:
    metrics = _metrics(form, reference)
    referee = _referee(form, condition, config["condition"]["name"])
    comparability = _comparability(config, dataset, metrics, referee)
    return Question(metrics, referee, comparability, _without_paths(config["control"]))


def _record(
    form: Evaluate,
    question: Question,
    config: dict[str, Any],
    condition: Condition,
    reference: "Reference",
    evidence: Evidence,
) -> Record:
    from benchmark.engine.runs import provenance

    comparability, control, metrics = question.comparability, question.control, question.metrics
    rows = observe(condition, question.referee, reference, evidence)
    return Record(
        evaluation_id=question.evaluation_id,
        comparability_key=sha256(canonical_json(comparability)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset={
            "name": config["dataset"]["name"],
            "fingerprint": comparability["dataset"],
            **comparability["samples"],
        },
        condition=question.condition,
        headline=condition.headline,
        method=question.method,
        base=config["base"]["name"],
        training=control if all("recipe" in part for part in control.get("parts", [control])) else None,
        generation=comparability["generation"],
        referee=comparability["referee"],
        reconstruction=anchored(
            rows, condition.scores, {"referee": comparability["referee"]["spec"]}, condition.errors
        ),
        scores=tuple(score_images(metrics, reference, evidence.generated, evidence.real)),
        floor_scores=tuple(score_images(metrics, reference, evidence.no_control, evidence.real)),
        counts=Counts(requested=len(reference.keys), generated=len(reference.keys), failed=0),
        environment={
            **provenance(command_line(form)),
            "training": _training_provenance(config["control"]),
            "comparability": comparability,
        },
    )


def _training_provenance(control: dict[str, Any]) -> dict[str, Any] | None:
    """Return the command, machine, packages and commit of the run behind the images; None for a released ControlNet."""
    from benchmark.engine.runs import RUN, read_finished

    if "parts" in control:
        return {"parts": [_training_provenance(part) for part in control["parts"]]}
    if "run" not in control:
        return None
    provenance: dict[str, Any] = read_finished(Path(control["run"]), RUN)["provenance"]
    return provenance


def _metrics(form: Evaluate, reference: "Reference") -> dict[str, Metric]:
    """Return the metrics asked for; those that compare with captions only where every sample has one."""
    metrics = {spec: registry.make(Metric, spec) for spec in form.metric or registry.names(Metric)}
    if all(reference.captions):
        return metrics
    textual = [spec for spec, metric in metrics.items() if _needs_texts(metric)]
    if textual:
        say(f"left out, since some samples have no caption: {', '.join(textual)}")
    return {spec: metric for spec, metric in metrics.items() if spec not in textual}


def _referee(form: Evaluate, condition: Condition, name: str) -> Annotator:
    referee = registry.make(Annotator, form.referee or condition.referee)
    if referee.condition != name:
        raise UserError(f"the referee {form.referee} makes {referee.condition} maps, but the condition is {name}")
    registry.check_classes(condition, referee)
    return referee


def _comparability(
    config: dict[str, Any], dataset: "BuiltDataset", metrics: Mapping[str, Metric], referee: Annotator
) -> dict[str, Any]:
    """Return everything that must agree before two records may be compared; nothing about training is in it."""
    return {
        "suite_version": SUITE_VERSION,
        "dataset": dataset.manifest.fingerprint,
        "samples": {"n": config["samples"]["n"], "keys_sha256": config["samples"]["sha256"], "split": config["split"]},
        "condition": config["condition"],
        "referee": {"spec": _spec(referee), **referee.identity()},
        "spaces": {name: _encoder(name).identity() for name in sorted(_spaces(metrics))},
        "metrics": {spec: registry.describe(metric) for spec, metric in metrics.items()},
        "generation": {"sampling": config["sampling"], "prompts": config["prompts"], "base": config["base"]},
        "resolution": dataset.plan.resolution,
    }


def _spec(plugin: Annotator) -> str:
    """Return a plugin as it is written on the command line, every field included."""
    name, *fields = registry.describe(plugin).items()
    return ",".join([name[1], *(f"{field}={value}" for field, value in fields)])


def _without_paths(control: dict[str, Any]) -> dict[str, Any]:
    """Return what steered the images without the places it lay in: they belong to one machine."""
    if "parts" in control:
        return {**control, "parts": [_without_paths(part) for part in control["parts"]]}
    kept = {key: value for key, value in control.items() if key != "run"}
    if "dataset" in kept:
        kept["dataset"] = {key: value for key, value in kept["dataset"].items() if key != "path"}
    return kept


def _spaces(metrics: Mapping[str, Metric]) -> set[str]:
    return {need.removesuffix("_text") for metric in metrics.values() for need in metric.needs}


def _needs_texts(metric: Metric) -> bool:
    return any(need.endswith("_text") for need in metric.needs)


def _write_strip(path: Path, condition: Condition, reference: "Reference", evidence: Evidence) -> None:
    """Keep a picture: condition, reference, generated, without control, for the first samples."""
    import cv2

    from benchmark.engine.pictures import grid

    count = min(_STRIP_COLUMNS, len(reference.keys))
    maps = [condition.render(condition.decode(data), _STRIP_SIDE) for data in reference.maps[:count]]
    rows = [
        ("condition", maps),
        ("reference", list(evidence.real[:count])),
        ("generated", list(evidence.generated[:count])),
        ("no control", list(evidence.no_control[:count])),
    ]
    picture = cv2.cvtColor(grid(rows, _STRIP_SIDE), cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _STRIP_QUALITY])
    if not ok:
        raise ValueError("cannot encode the picture strip")
    replace_file(path, data.tobytes())


def _copy_curve(config: dict[str, Any], path: Path) -> None:
    """Keep the training curve beside the record."""
    if "run" in config["control"]:
        replace_file(path, (Path(config["control"]["run"]) / "curve.jsonl").read_bytes())


def _say_scores(record: Record, condition: Condition, path: Path) -> None:
    main_score = record.reconstruction[condition.headline]
    for name in ("real", "vae", "run", "no_control", "shuffled"):
        score = getattr(main_score, name)
        interval = f"[{score.low:.3f}, {score.high:.3f}]"
        say(f"{record.condition} {condition.headline} {name:<10} {score.estimate:.3f} {interval}")
    for score in record.scores:
        note = f" (not ranked: {score.unranked})" if score.unranked else ""
        say(f"{score.name} {score.estimate:.3f} [{score.low:.3f}, {score.high:.3f}] n = {score.n}{note}")
    say(f"record: {path}; pictures: {path.with_suffix('.webp')}")


def _run(form: Evaluate) -> int:
    evaluate(form)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(Evaluate, _run, argv, "python -m benchmark.evaluate --images runs/images/mine")


if __name__ == "__main__":
    raise SystemExit(main())
