"""What is asked of a folder of images: metrics, referee, and all that must agree before two answers are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import registry
from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, sha256
from benchmark.contracts.plugins import Annotator, Condition, Method, Metric
from benchmark.contracts.tables import label, portable, space_of
from benchmark.numbers.controlnetpp import rule
from benchmark.observation import encoder

if TYPE_CHECKING:
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.imagesets import Reference

SUITE_VERSION = 1


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


def ask(
    asked: Sequence[str],
    referee: str | None,
    controlnetpp: bool,
    config: dict[str, Any],
    dataset: "BuiltDataset",
    condition: Condition,
    reference: "Reference",
) -> Question:
    """Return what is asked of images.

    Args:
        asked: Metrics as written on the command line; none for all that need nothing more than what is bundled.
        referee: Annotator as written there; None for the condition's own.
        controlnetpp: Whether the scores of the ControlNet++ paper are asked for too.
        config: How the images were made, with the condition they are scored by.
        dataset: What they were made of.
        condition: What they are scored by.
        reference: The samples.

    Raises:
        UserError: No such metric or referee, one that does not fit, or two spaces of one name.
    """
    metrics = _metrics(asked, reference)
    reader = registry.make_referee(referee, condition, dataset.plan.source["name"])
    comparability = _comparability(config, dataset, metrics, reader)
    if controlnetpp:
        comparability["controlnetpp"] = rule(config["condition"]["name"], dataset.plan.resolution).faults
    return Question(metrics, reader, comparability, _without_paths(config["control"]))


def _method(control: dict[str, Any]) -> str:
    if "method" not in control:
        return f"folder:{control['name']}"
    return registry.spec(registry.remake(Method, control["method"]))


def find_scorers(folder: Path, cond: str, asked: Sequence[str], referee: str | None) -> None:
    """Make what images of a dataset's condition will be scored by, and let go of it.

    Raises:
        UserError: No such metric or referee, one that does not fit, or weights that are not there.
    """
    from benchmark.engine.datasets import BuiltDataset

    dataset = BuiltDataset.open(folder)
    condition = registry.remake(Condition, dataset.condition(cond))
    registry.make_referee(referee, condition, dataset.plan.source["name"]).identity()
    for space in spaces_of(_made(asked)):
        encoder(space).identity()
    encoder.cache_clear()


def _made(asked: Sequence[str]) -> dict[str, Metric]:
    """Return metrics by the words that make them: those asked for, else all that need nothing more than what is there.

    Raises:
        UserError: No such metric.
    """
    metrics = {spec: registry.make(Metric, spec) for spec in asked or registry.names(Metric)}
    return {spec: metric for spec, metric in metrics.items() if asked or metric.unasked}


def _metrics(asked: Sequence[str], reference: "Reference") -> dict[str, Metric]:
    """Return the metrics asked for; those that compare with captions only where every sample has one."""
    metrics = _made(asked)
    if all(reference.captions):
        return metrics
    textual = [spec for spec, metric in metrics.items() if _needs_texts(metric)]
    if textual:
        say(f"left out, since some samples have no caption: {', '.join(textual)}")
    return {spec: metric for spec, metric in metrics.items() if spec not in textual}


def _comparability(
    config: dict[str, Any], dataset: "BuiltDataset", metrics: Mapping[str, Metric], referee: Annotator
) -> dict[str, Any]:
    """Return everything that must agree before two records may be compared; nothing about training is in it."""
    from benchmark.engine.imagesets import comparable_base

    # records of conflicting prompts without this held `shuffled` against the map whose caption was the prompt
    shuffled = {"shuffled": "half the set away and one more"} if config["prompts"] == "conflicting" else {}
    return {
        **shuffled,
        "suite_version": SUITE_VERSION,
        "dataset": dataset.fingerprint(config["split"]),
        "samples": {"n": config["samples"]["n"], "keys_sha256": config["samples"]["sha256"], "split": config["split"]},
        "condition": config["condition"],
        "referee": {"spec": registry.full_spec(referee), **referee.identity()},
        "spaces": {label(space): encoder(space).identity() for space in sorted(spaces_of(metrics))},
        "metrics": {_portable(spec, metric): _described(metric) for spec, metric in metrics.items()},
        "generation": {
            "sampling": config["sampling"],
            "prompts": config["prompts"],
            "base": comparable_base(config["base"]),
        },
        "resolution": dataset.plan.resolution,
    }


def _without_paths(control: dict[str, Any]) -> dict[str, Any]:
    """Return what steered the images without the places it lay in: they belong to one machine."""
    if "parts" in control:
        return {**control, "parts": [_without_paths(part) for part in control["parts"]]}
    kept = {key: value for key, value in control.items() if key not in ("run", "weights")}
    if "dataset" in kept:
        kept["dataset"] = {key: value for key, value in kept["dataset"].items() if key != "path"}
    return kept


def spaces_of(metrics: Mapping[str, Metric]) -> set[str]:
    """Return the spaces metrics need.

    Raises:
        UserError: Two of them would have one name in the record.
    """
    spaces = {space_of(need) for metric in metrics.values() for need in metric.needs}
    if len({label(space) for space in spaces}) < len(spaces):
        raise UserError(f"two of {', '.join(sorted(spaces))} end in the same name; rename one folder")
    return spaces


def _portable(text: str, metric: Metric) -> str:
    """Return a text without the folders in which the weights of a metric lie: their hashes are kept beside it."""
    for need in metric.needs:
        text = portable(text, space_of(need))
    return text


def _described(metric: Metric) -> dict[str, Any]:
    fields = registry.describe(metric).items()
    return {key: _portable(value, metric) if isinstance(value, str) else value for key, value in fields}


def _needs_texts(metric: Metric) -> bool:
    return any(need.endswith("_text") for need in metric.needs)
