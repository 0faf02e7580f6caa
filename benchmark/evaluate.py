"""Score a folder of images against its dataset: `python -m benchmark.evaluate --images DIR`."""

import shlex
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import registry
from benchmark.base.console import progress, say
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, sha256
from benchmark.cli import command_line, option
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import SPLITS, Condition, Metric
from benchmark.contracts.records import Counts, Record, Score
from benchmark.numbers.anchors import anchored
from benchmark.observation import Batches, Encoded, Evidence, ReadBack, pieces, score_images
from benchmark.question import Question, ask, spaces_of

if TYPE_CHECKING:
    from benchmark.engine.bases import Base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.imagesets import ImageSet, Reference

_STRIP_COLUMNS, _STRIP_QUALITY = 8, 82


@dataclass(frozen=True)
class Evaluate:
    """Score images of conditions: how they are followed, between floor and ceiling, and every metric."""

    images: Path = option(
        "images folder made by benchmark.generate; or any system's KEY.png, or KEY_0.png ...", parse=Path
    )
    no_control: Path | None = option("the same without control (default: where generate puts them)", None, Path)
    dataset: Path | None = option("dataset folder (default: the one the images were made for)", None, Path)
    cond: str | None = option("which condition to score by, where several steered", None)
    split: str | None = option("which split, of another system's images (default: test)", None)
    base: str | None = option("whose autoencoder is the ceiling, of another system's images", None)
    metric: tuple[str, ...] = option("only these metrics (default: all that need nothing more)", ())
    referee: str | None = option("annotator that reads the condition back (default: the condition's own)", None)
    controlnetpp: bool = option("also the condition's scores of the ControlNet++ paper, as coded and mended", False)
    results: Path = option("where the record goes", Path("results"), Path)
    cache: Path = option("where vectors of images are kept for the next metric", Path("runs/cache"), Path)
    device: str | None = option("where the autoencoder runs: cpu or cuda (default: cuda where there is one)", None)


def evaluate(form: Evaluate) -> Path:
    """Score the images a form names and write the record; return its path.

    Raises:
        UserError: Images that are incomplete, of another dataset, or without a floor to compare with.
    """
    from benchmark.engine import imagesets
    from benchmark.engine.bases import load_base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.pretrained import choose_device, within_memory
    from benchmark.engine.records import read_record, record_path, samples_table, write_record

    config = _config(form)
    dataset = BuiltDataset.open(form.dataset or Path(config["dataset"]["path"]))
    if dataset.fingerprint(config["split"]) != config["dataset"]["fingerprint"]:
        raise UserError(f"{form.images} was made for another state of {dataset.folder}; generate again")
    condition = registry.remake(Condition, config["condition"])
    reference = imagesets.load_reference(dataset, config["split"], config["condition"]["name"], config["samples"]["n"])
    if len(reference.keys) < 2:
        raise UserError(f"{form.images} is of one sample, which has no interval; generate more")
    floor = _floor(form, config)
    question = ask(form.metric, form.referee, form.controlnetpp, config, dataset, condition, reference)
    name, kind = config["dataset"]["name"], question.condition
    path = record_path(form.results, name, kind, question.method, question.evaluation_id)
    generated, no_control = (imagesets.image_sets(folder, reference.keys) for folder in (form.images, floor))
    if path.exists():
        known = read_record(path)
        _refuse_other_images(known, _contents(generated, no_control), path)
        _say_scores(known, condition, path)
        say("they were already scored")
        return path
    trained_by, curve = _training_provenance(config["control"]), _curve(config["control"])  # before hours of reading
    base = load_base(config["base"]["name"], choose_device(form.device))
    if base.weights_sha256 != config["base"]["weights_sha256"]:
        raise UserError(f"{form.images} was drawn on other weights of {base.name}; restore them, or generate it again")
    subject = Subject(config, reference, dataset, base, generated, no_control, trained_by)
    with within_memory("give --device cpu, or set CUDA_VISIBLE_DEVICES= to compute on the processor alone"):
        record = _record(form, question, condition, subject)
    beside = {
        ".webp": _strip(condition, reference, subject.evidence(slice(0, _STRIP_COLUMNS))),
        ".parquet": samples_table(record, reference.keys),
        **curve,
    }
    write_record(form.results, record, beside)
    _say_scores(record, condition, path)
    return path


def _contents(generated: "list[ImageSet]", no_control: "list[ImageSet]") -> dict[str, list[str]]:
    """Return a hash of each set of images, as a record keeps them."""
    return {
        "generated": [each.content for each in generated],
        "no_control": [each.content for each in no_control],
    }


def _refuse_other_images(record: Record, contents: dict[str, list[str]], path: Path) -> None:
    """Refuse to pass scores off as those of other images, made anew under the same settings, as after changed code.

    Raises:
        UserError: The record says which images it is of, and they are not these.
    """
    if record.environment.get("images", contents) != contents:
        raise UserError(f"{path} is of other images, made with the same settings; give another --results, or remove it")


def _config(form: Evaluate) -> dict[str, Any]:
    """Return how the images were made, as far as it is known, with the one condition they are scored by.

    Raises:
        UserError: Images without control, or another system's with too little said about them.
    """
    from benchmark.engine import imagesets
    from benchmark.engine.bases import load_base
    from benchmark.engine.datasets import BuiltDataset

    if imagesets.is_generated(form.images):
        if form.split is not None or form.base is not None:
            raise UserError(f"--split and --base are for other systems' images; {form.images} says both itself")
        config = imagesets.read_config(form.images)
        if config["condition"] is None:
            raise UserError(f"{form.images} was made without control: it is the floor of a run, given as --no-control")
        return imagesets.scored_by(config, form.cond)
    if form.dataset is None or form.cond is None or form.no_control is None:
        raise UserError(
            f"{form.images} holds no images.json: give --dataset, --cond and --no-control (images without control of "
            "the same samples, from the same system or from python -m benchmark.generate --dataset ...)"
        )
    if form.split not in (None, *SPLITS):
        raise UserError(f'no split "{form.split}"; {did_you_mean(str(form.split), SPLITS)}')
    base = _base_of_floor(form.no_control, form.base)
    made_for = (BuiltDataset.open(form.dataset), form.split or "test", form.cond)
    return imagesets.foreign_config(form.images, *made_for, form.no_control, load_base(base))


def _base_of_floor(floor: Path, named: str | None) -> str:
    """Return the base whose autoencoder is the ceiling: the one named, else the one that drew the floor."""
    from benchmark.engine import imagesets

    if named is not None:
        return named
    if not imagesets.is_generated(floor):
        raise UserError(f"{floor} does not say which base drew it; give --base, a diffusers folder or hub id")
    return str(imagesets.read_config(floor)["base"]["name"])


def _floor(form: Evaluate, config: dict[str, Any]) -> Path:
    """Return the folder of the base's own images for the same samples, prompts and noise."""
    from benchmark.engine import imagesets

    if form.no_control is not None and not imagesets.is_generated(form.images):
        imagesets.check_floor(form.no_control, config)
        return form.no_control
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
    from benchmark.engine import imagesets

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
        **({"num-images-per-condition": each} if (each := imagesets.numbered(config)) else {}),
        **({"negative-prompt": sampling["negative_prompt"]} if "negative_prompt" in sampling else {}),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["python", "-m", "benchmark.generate", *words])


@dataclass(frozen=True)
class Subject:
    """What a record is of.

    Attributes:
        config: How the images were made, as far as it is known.
        reference: The samples.
        dataset: What they are of.
        base: Whose autoencoder is the ceiling.
        generated: Sets of images, as many as there are of each sample.
        no_control: Those of the floor.
        trained_by: What produced the run behind the images, if one did.
    """

    config: dict[str, Any]
    reference: "Reference"
    dataset: "BuiltDataset"
    base: "Base"
    generated: "list[ImageSet]"
    no_control: "list[ImageSet]"
    trained_by: dict[str, Any] | None

    @property
    def contents(self) -> list[str]:
        """A hash of the images of each set: the real ones, those generated, those without control."""
        config = self.config
        real = [config["dataset"]["fingerprint"], config["split"], config["samples"]]
        return [sha256(canonical_json(real)), *(each.content for each in (*self.generated, *self.no_control))]

    def evidence(self, rows: slice) -> Evidence:
        """Return the images of some samples.

        Raises:
            UserError: One is missing, unreadable or of another size.
        """
        from benchmark.engine.imagesets import read_images
        from benchmark.engine.latents import round_trip

        real = self.reference.images(rows)
        generated, no_control = (
            [read_images(each.folder, each.names[rows], self.dataset.plan.resolution) for each in sets]
            for sets in (self.generated, self.no_control)
        )
        return Evidence(rows, generated, real, round_trip(self.base, real), no_control)


def _look(subject: Subject, name: str, *observers: ReadBack | Encoded) -> None:
    """Show all images to observers; they are read once, piece by piece."""
    with progress(len(subject.reference.keys), f"evaluate {name}", "samples") as bar:
        for rows in pieces(len(subject.reference.keys)):
            evidence = subject.evidence(rows)
            for observer in observers:
                observer.see(evidence)
            bar.update(len(evidence.real))


def _record(form: Evaluate, question: Question, condition: Condition, subject: Subject) -> Record:
    from benchmark.engine.imagesets import shuffled_step
    from benchmark.engine.runs import provenance

    comparability, control, config = question.comparability, question.control, subject.config
    trained_on = _trained_on(question.metrics, config["control"])
    step = shuffled_step(config["prompts"], len(subject.reference.keys))
    reading = ReadBack(condition, question.referee, subject.reference, step, form.controlnetpp)
    count = len(subject.generated)
    with closing(Encoded(sorted(spaces_of(question.metrics)), subject.contents, form.cache)) as encoded:
        _look(subject, form.images.name, reading, encoded)
        scores, floor_scores = score_images(question.metrics, subject.reference, encoded, count, trained_on)
    if form.controlnetpp:
        scores += reading.controlnetpp_scores("run", count)
        floor_scores += reading.controlnetpp_scores("no_control", len(subject.no_control))
    asked = len(subject.reference.keys) * count
    return Record(
        evaluation_id=question.evaluation_id,
        comparability_key=sha256(canonical_json(comparability)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset={
            "name": config["dataset"]["name"],
            "plan_hash": subject.dataset.plan.hash,
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
            reading.rows, condition.scores, {"referee": comparability["referee"]["spec"]}, condition.errors
        ),
        scores=tuple(scores),
        floor_scores=tuple(floor_scores),
        counts=Counts(requested=asked, generated=asked, failed=0),
        environment={
            **provenance(command_line(form)),
            "training": subject.trained_by,
            "building": subject.dataset.command,
            "images": _contents(subject.generated, subject.no_control),
            "drawing": [_drawn_by(each[0].folder) for each in (subject.generated, subject.no_control)],
            "comparability": comparability,
        },
    )


def _trained_on(metrics: Mapping[str, Metric], control: dict[str, Any]) -> Batches | None:
    """Return what yields the images that what steered was trained on, or None where no metric needs them.

    Raises:
        UserError: One does, and they are not at hand.
    """
    from benchmark.engine.pools import is_run, trained_images

    if not any(need.endswith("_nearest") for metric in metrics.values() for need in metric.needs):
        return None
    if not is_run(control):
        raise UserError("nearest needs the images a run was trained on; these were not drawn by a run of this machine")
    return partial(trained_images, control)


def _training_provenance(control: dict[str, Any]) -> dict[str, Any] | None:
    """Return the command, machine, packages and commit of the run behind the images; None for a released ControlNet."""
    from benchmark.engine.runs import RUN, read_finished

    if "parts" in control:
        return {"parts": [_training_provenance(part) for part in control["parts"]]}
    if "run" not in control:
        return None
    provenance: dict[str, Any] = read_finished(Path(control["run"]), RUN)["provenance"]
    return provenance


def _drawn_by(folder: Path) -> str | None:
    """Return the command that made a folder of images; None of another system's."""
    from benchmark.engine.imagesets import is_generated
    from benchmark.engine.runs import IMAGES, read_finished

    return str(read_finished(folder, IMAGES)["provenance"]["command"]) if is_generated(folder) else None


def _strip(condition: Condition, reference: "Reference", evidence: Evidence) -> bytes:
    """Return a picture as a WebP file: condition, reference, generated, without control, for the first samples."""
    import cv2

    from benchmark.engine.pictures import STRIP_SIDE, strip

    count = min(_STRIP_COLUMNS, len(reference.keys))
    rows = {
        "condition": [condition.render(condition.decode(data), STRIP_SIDE) for data in reference.maps[:count]],
        "reference": list(evidence.real[:count]),
        "generated": list(evidence.generated[0][:count]),
        "no control": list(evidence.no_control[0][:count]),
    }
    picture = cv2.cvtColor(strip(rows), cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _STRIP_QUALITY])
    if not ok:
        raise ValueError("cannot encode the picture strip")
    return bytes(data)


def _curve(control: dict[str, Any]) -> dict[str, bytes]:
    """Return the training curve as a file beside the record; none of what was not trained here, or of several."""
    from benchmark.engine.checkpoints import curve_at

    return {".jsonl": curve_at(Path(control["run"]), control["step"])} if "run" in control else {}


def _say_scores(record: Record, condition: Condition, path: Path) -> None:
    main_score = record.reconstruction[condition.headline]
    for name in ("real", "vae", "run", "no_control", "shuffled"):
        say(f"{record.condition} {condition.headline} {name:<10} {_shown(getattr(main_score, name))}")
    for score in record.scores:
        note = f" (not ranked: {score.unranked})" if score.unranked else ""
        say(f"{score.name} {_shown(score)} n = {score.n}{note}")
    say(f"record: {path}; pictures: {path.with_suffix('.webp')}")


def _shown(score: Score) -> str:
    return f"{score.estimate:.{score.digits}f} [{score.low:.{score.digits}f}, {score.high:.{score.digits}f}]"


def _run(form: Evaluate) -> int:
    evaluate(form)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(Evaluate, _run, argv, "python -m benchmark.evaluate --images runs/images/mine")


if __name__ == "__main__":
    raise SystemExit(main())
