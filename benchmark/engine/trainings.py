"""What a recorded training says of itself: its seeds, its epochs, and what it shares with others."""

from collections import Counter
from typing import Any

from benchmark.base.files import canonical_json
from benchmark.contracts.records import Failure, Record

_OF_A_DRAW = ("name", "step", "replicate", "pairs_sha256")
_OF_A_DATASET = ("dataset", "pairs_sha256", "drawn_from", "probed_on", "referee")
_OF_MEMORY = ("gradient_accumulation_steps", "gradient_checkpointing")
WATCHING = ("probe_every", "checkpoint_every")  # of a recipe: they decide how closely a run was watched, no weights


def base_of(kept: Record | Failure) -> str:
    """Return the hash of the weights of the base that was steered; its name where an older failure does not say."""
    known: str | None = (
        kept.environment.get("base_sha256")
        if isinstance(kept, Failure)
        else kept.generation.get("base", {}).get("weights_sha256")
    )
    return known or kept.base


def training_of(kept: Record | Failure) -> dict[str, Any]:
    """Return what was trained, on a base named by its weights: one base lies at another path on every machine.

    Empty of a released ControlNet.
    """
    training = kept.training or {}
    if "parts" in training:
        return {**training, "parts": [{**part, "base": base_of(kept)} for part in training["parts"]]}
    return {**training, "base": base_of(kept)} if training else {}


def seed_of(training: dict[str, Any]) -> str:
    """Return the seed that most of the others share, and the names of those that differ from it."""
    seeds = training.get("recipe", {}).get("seeds", {})
    shared = [value for value, count in Counter(seeds.values()).most_common(1) if count > 1 or len(seeds) == 1]
    others = [f"{name} {value}" for name, value in seeds.items() if value not in shared]
    return ", ".join([*map(str, shared), *others])


def epochs(training: dict[str, Any]) -> float | None:
    """Return images seen over images there are; None of a released ControlNet."""
    if not training:
        return None
    recipe = training["recipe"]
    return float(recipe["steps"] * recipe["batch"] / training["num_samples"])


def first_of(training: dict[str, Any]) -> dict[str, Any]:
    """Return a training, or the first of several whose runs steer together."""
    first: dict[str, Any] = training["parts"][0] if "parts" in training else training
    return first


def recipe_of(training: dict[str, Any], method: str, but: tuple[str, ...] = ()) -> bytes:
    """Return what two trainings share that differ in seeds, the draw of their data, and fields named, alone."""
    if "parts" in training:
        return b"+".join(recipe_of(part, method, but) for part in training["parts"])
    recipe = {key: value for key, value in training["recipe"].items() if key not in ("seeds", *but)}
    whole = {"method": method, **training, "recipe": recipe}
    return canonical_json({key: whole[key] for key in whole if key not in (*_OF_A_DRAW, *but)})


def family_of(training: dict[str, Any], method: str, but: tuple[str, ...] = ()) -> bytes:
    """Return all that decides the weights but the seeds, the data's number and draw, and fields named."""
    return recipe_of(training, method, but=("num_samples", *but))


def identity_of(training: dict[str, Any], method: str) -> bytes:
    """Return all that decides the weights: two trainings that share it are one, whatever their folders were called."""
    if "parts" in training:
        return b"+".join(identity_of(part, method) for part in training["parts"])
    kept = {key: value for key, value in training.items() if key not in ("name", "step")}  # the step is the last
    return canonical_json({"method": method, **kept})


def likeness_of(training: dict[str, Any], method: str) -> bytes:
    """Return all that decides the weights but the dataset that the pairs lie in.

    Built for one condition or for eight, under one name or another, a source gives the same samples: judged on the same
    test samples, two trainings that share this are one. What is empty is left out, as older records do.
    """
    if "parts" in training:
        return b"+".join(likeness_of(part, method) for part in training["parts"])
    recipe = {key: value for key, value in training["recipe"].items() if value and key not in (*WATCHING, *_OF_MEMORY)}
    kept = {key: value for key, value in training.items() if value and key not in (*_OF_A_DATASET, "name", "step")}
    return canonical_json({**kept, "recipe": recipe, "method": method})


def draw_of(training: dict[str, Any]) -> str:
    """Return seeds and draw of the data, with its pairs: all that trainings of one recipe differ in."""
    parts = training.get("parts", [training])
    draws = ((seed_of(part), part.get("replicate", 0), part.get("pairs_sha256", "")[:16]) for part in parts)
    return "; ".join(f"{seeds}, draw {number} {pairs}" for seeds, number, pairs in draws)
