"""Generate images for a split: `python -m benchmark.generate --dataset DIR --run RUN`, or without control."""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import registry
from benchmark.base.console import progress, say
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, sha256
from benchmark.cli import command_line, non_negative, option, parse_size, positive, weight
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import SPLITS, Condition, Method
from benchmark.engine.tiers import TIERS

if TYPE_CHECKING:
    from torch import nn

    from benchmark.engine.bases import Base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.diffusion import Sampling
    from benchmark.engine.imagesets import Reference


BUNDLED_BASE = "scenes-tiny"
_UNITS = ("", "K", "M", "G", "T", "P", "E")
_TIERS_IN_WORDS = "; ".join(
    f"{name}: {' '.join(f'--{key} {value}' for key, value in sets.items()).replace('_', '-')}"
    for name, sets in TIERS.items()
)


@dataclass(frozen=True)
class Generate:
    """Generate images for every sample of a split; without --run and --controlnet, the base's own images."""

    dataset: Path = option("dataset folder made by benchmark.build", parse=Path)
    run: tuple[Path, ...] = option("run folder made by benchmark.train; several are added up", (), Path)
    controlnet: str | None = option("a released ControlNet, by hub id or folder, instead of a run", None)
    method: str = option("what --controlnet names: controlnet, t2i_adapter, ...", "controlnet")
    cond: str | None = option("condition, for --controlnet (default: the dataset's, if it has one)", None)
    base: str = option("frozen model, for all but --run", BUNDLED_BASE)
    split: str = option("train, val or test", "test")
    tier: str | None = option(f"sets what follows, and says first what it costs: {_TIERS_IN_WORDS}", None)
    prompts: str = option("full (the captions), none, insufficient or conflicting", "full")
    limit: int | None = option("only the first so many samples", None, parse_size)
    num_images_per_condition: int = option("images of each sample, each from noise of its own", 1, positive)
    num_inference_steps: int = option("sampling steps", 15, positive)
    guidance_scale: float | None = option(
        "weight of the prompt (default: 2 for scenes-tiny, 5 for SDXL, else 7.5)", None, weight
    )
    negative_prompt: str = option("what guidance leads away from, in place of no prompt", "")
    scheduler: str | None = option("ddim, dpm++, euler or unipc (default: unipc for scenes-tiny, else ddim)", None)
    control_weighting: str = option("uniform; or on the prompt's branch alone: resolution (CFG-RW), guess", "uniform")
    conditioning_scale: float = option("weight of the control", 1.0, weight)
    seed: int = option("evaluation seed: of the starting noise", 0, non_negative)
    batch: int = option("images at a time", 32, positive)
    device: str | None = option("cpu or cuda (default: cuda where there is one)", None)
    out: Path | None = option("images folder (default: runs/images/<dataset>_<split>_<run>_<hash>)", None, Path)


@dataclass(frozen=True)
class _Control:
    """One thing that steers the base: a module with its condition, and the words that name it in records."""

    module: "nn.Module"
    condition: str
    description: dict[str, Any]


def generate(form: Generate) -> Path:
    """Generate what a form describes, or what is missing of it; return the images folder.

    Raises:
        UserError: A dataset, run, ControlNet or base that cannot be used, or other images in the folder.
    """
    from benchmark.engine import imagesets, runs
    from benchmark.engine.bases import load_base, refuse_unfit
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.pretrained import choose_device, within_memory

    asked, form = form, _of_tier(form)
    _check(form, imagesets.PROMPTS)
    dataset = BuiltDataset.open(form.dataset)
    controls, base_name = _controls(form, dataset)
    base = load_base(base_name, choose_device(form.device))
    for control in controls:
        refuse_unfit(base, control.module, control.description["name"])
        control.module.to(base.device)
    for run in form.run:
        runs.refuse_other_base(run, base.name, base.weights_sha256)
    names = [control.condition for control in controls] or [str(dataset.plan.conditions[0]["name"])]
    references = [imagesets.load_reference(dataset, form.split, name, form.limit) for name in names]
    reference, settings = references[0], _sampling(form, base)
    if form.tier is not None and len(reference.keys) < (wanted := TIERS[form.tier]["limit"]):
        raise UserError(
            f"--tier {form.tier} is of {wanted} samples, the {form.split} split of {form.dataset} has "
            f"{len(reference.keys)}; build one that holds more out, as with held_out={wanted * 6 // 5} of its source, "
            f"since some may be dropped (of scenes test={wanted}), or give --limit without a tier"
        )
    config = _config(form, dataset, base, controls, reference, settings)
    folder = form.out or imagesets.default_folder(config, Path("runs/images"))
    images = imagesets.image_names(reference.keys, imagesets.numbered(config))
    missing = [name for name in images if not imagesets.image_path(folder, name).exists()]
    if (ended := runs.ended(folder, runs.IMAGES, config)) and not missing:
        say(f"{folder} is already {ended}")
        return folder
    if form.tier is not None:
        say(_cost(form.tier, dataset.plan.resolution, base, controls, len(missing), settings))
    runs.begin(folder, runs.IMAGES, config, runs.provenance(command_line(asked)))
    conditions = [registry.remake(Condition, dataset.condition(name)) for name in names]
    module = _sum([control.module for control in controls])
    with within_memory("give a smaller --batch"):
        _fill(folder, images, base, module, list(zip(conditions, references, strict=True)), settings, form)
    runs.finish(folder, runs.IMAGES, "finished")
    say(f"generated {len(images)} images in {folder}")
    return folder


def _of_tier(form: Generate) -> Generate:
    """Return a form with what its tier sets.

    Raises:
        UserError: No such tier, or one of its settings is given beside it.
    """
    if form.tier is None:
        return form
    if form.tier not in TIERS:
        raise UserError(f'no tier "{form.tier}"; {did_you_mean(form.tier, TIERS)}')
    usual = {field.name: field.default for field in fields(Generate)}
    for name, value in TIERS[form.tier].items():
        if getattr(form, name) not in (usual[name], value):
            raise UserError(f"--tier {form.tier} sets --{name.replace('_', '-')} to {value}; give one of the two")
    return replace(form, **TIERS[form.tier])


def _sampling(form: Generate, base: "Base") -> "Sampling":
    from benchmark.engine.diffusion import Sampling

    return Sampling(
        num_inference_steps=form.num_inference_steps,
        guidance_scale=base.guidance_scale if form.guidance_scale is None else form.guidance_scale,
        conditioning_scale=form.conditioning_scale,
        eval_seed=form.seed,
        scheduler=form.scheduler or base.solver,
        control_weighting=form.control_weighting,
        negative_prompt=form.negative_prompt,
    )


def _config(
    form: Generate,
    dataset: "BuiltDataset",
    base: "Base",
    controls: list[_Control],
    reference: "Reference",
    settings: "Sampling",
) -> dict[str, Any]:
    """Return all that decides the images, as `images.json` keeps it."""
    from benchmark.engine import imagesets

    each = form.num_images_per_condition
    config = {
        "dataset": {"name": dataset.name, "path": str(form.dataset), "fingerprint": dataset.fingerprint(form.split)},
        "split": form.split,
        "samples": {"n": len(reference.keys), "sha256": sha256(canonical_json(reference.keys))},
        "prompts": form.prompts,
        "sampling": _described(settings, {imagesets.PER_CONDITION: each} if each > 1 else {}),
        "base": {"name": base.name, "weights_sha256": base.weights_sha256},
        **imagesets.steering(
            [dataset.condition(control.condition) for control in controls], [one.description for one in controls]
        ),
        "batch": form.batch,
    }
    return config if controls else imagesets.without_control(config)


def _described(settings: "Sampling", more: dict[str, Any]) -> dict[str, Any]:
    """Return how images are sampled; what most do without is named only where it is there, so that ids stay."""
    words = {**asdict(settings), **more}
    return words if settings.negative_prompt else {k: v for k, v in words.items() if k != "negative_prompt"}


def _cost(tier: str, side: int, base: "Base", controls: list[_Control], count: int, settings: "Sampling") -> str:
    """Return what images will cost, in words, and what the training behind them took."""
    from benchmark.engine.costs import flops_of_image, flops_of_training_image

    each = flops_of_image(base, _sum([control.module for control in controls]), side, settings.num_inference_steps)
    said = f"{tier}: {count:,} images of {settings.num_inference_steps} steps, {shown_flops(each)} each, "
    said += f"{shown_flops(count * each)} in all"
    trained = [control for control in controls if "recipe" in control.description]
    if not trained:
        return said
    recipes = [(control.module, control.description["recipe"]) for control in trained]
    took = sum(recipe["steps"] * recipe["batch"] * flops_of_training_image(base, m, side) for m, recipe in recipes)
    return f"{said}, {count * each / took:.0%} of the training's {shown_flops(took)}"


def shown_flops(count: float) -> str:
    """Return a number of floating-point operations as ``43.1 TFLOP``."""
    power = min(len(_UNITS) - 1, max(0, math.floor(math.log10(max(count, 1)) / 3)))
    return f"{count / 1000**power:,.3g} {_UNITS[power]}FLOP"


def _check(form: Generate, prompts: tuple[str, ...]) -> None:
    if form.split not in SPLITS:
        raise UserError(f'no split "{form.split}"; {did_you_mean(form.split, SPLITS)}')
    if form.prompts not in prompts:
        raise UserError(f'no prompts "{form.prompts}"; {did_you_mean(form.prompts, prompts)}')
    if form.cond is not None and form.controlnet is None:
        raise UserError("--cond goes with --controlnet; a run knows its condition, and without control there is none")
    if form.method != "controlnet" and form.controlnet is None:
        raise UserError("--method goes with --controlnet; a run knows its method")
    if form.run and form.controlnet is not None:
        raise UserError("--run and --controlnet exclude each other; give one of them, or none for the base alone")
    if form.run and form.base != BUNDLED_BASE:
        raise UserError("--base goes with --controlnet, or with neither; a run knows its base")


def _only_condition(form: Generate, dataset: "BuiltDataset") -> str:
    """Return the condition to steer with: the one asked for, else the dataset's only one."""
    names = [str(condition["name"]) for condition in dataset.plan.conditions]
    if form.cond is None and len(names) > 1:
        raise UserError(f"{dataset.folder} has several conditions; give --cond, allowed: {', '.join(names)}")
    return form.cond or names[0]


def _controls(form: Generate, dataset: "BuiltDataset") -> tuple[list[_Control], str]:
    """Return what the form wants to steer with, and the name of the base.

    Raises:
        UserError: Runs on different bases, or on one condition.
    """
    if form.controlnet is not None:
        module, words = _released(form.controlnet, form.method)
        return [_Control(module, _only_condition(form, dataset), words)], form.base
    controls = [_trained(run) for run in form.run]
    bases = sorted({control.description["base"] for control in controls} or {form.base})
    if len(bases) > 1:
        raise UserError(f"the runs were trained on different bases ({', '.join(bases)}); add up runs on one")
    if len({control.condition for control in controls}) < len(controls):
        raise UserError("two of the runs follow the same condition; add up runs on different ones")
    return controls, bases[0]


def _released(place: str, spec: str) -> "tuple[nn.Module, dict[str, Any]]":
    """Return the control in a folder or hub repository, and words whose hash tells it from others of its name."""
    from benchmark.engine.pretrained import hash_weights

    method = registry.make(Method, spec)
    module = method.load(place).eval()
    words = {"name": Path(place).name, "weights": place, "weights_sha256": hash_weights(module)}
    return module, {**words, "method": registry.describe(method)}


def _trained(run: Path) -> _Control:
    """Return the control a finished run ended with."""
    from benchmark.base.forms import checked
    from benchmark.contracts.records import Trained
    from benchmark.engine.checkpoints import weights_at
    from benchmark.engine.runs import RUN, read_finished

    record = read_finished(run, RUN)
    if record["status"] == "diverged":
        raise UserError(f"{run} diverged ({record['reason']}); a run without an end has nothing to draw with")
    config = record["config"]
    checked(Trained, config, f"{run / RUN}", "train it again in another folder")
    step = config["recipe"]["steps"]
    module = registry.remake(Method, config["method"]).load(str(weights_at(run, step)))
    words = {"name": run.resolve().name, "run": str(run), "step": step, **config}
    return _Control(module.eval(), config["condition"]["name"], words)


def _sum(modules: "list[nn.Module]") -> "nn.Module | None":
    from benchmark.engine.controls import Summed

    if len(modules) > 1:
        return Summed(modules).eval()
    return modules[0] if modules else None


def _fill(
    folder: Path,
    names: list[str],
    base: "Base",
    module: "nn.Module | None",
    followed: "list[tuple[Condition, Reference]]",
    settings: "Sampling",
    form: Generate,
) -> None:
    """Make the images that are missing, in fixed batches, the last one padded: a resumed run gives the same bits."""
    import numpy as np

    from benchmark.engine.diffusion import draw
    from benchmark.engine.imagesets import image_path, prompts, write_image

    reference = followed[0][1]
    side = reference.images(slice(1)).shape[1]
    texts = prompts(form.prompts, reference.captions)
    with progress(len(names), f"generate {folder.name}", "images") as bar:
        for start in range(0, len(names), form.batch):
            places = list(range(start, min(start + form.batch, len(names))))
            here = [names[i] for i in places]
            if not all(image_path(folder, name).exists() for name in here):
                padded = places + [places[-1]] * (form.batch - len(places))
                rows, numbers = zip(*(divmod(i, form.num_images_per_condition) for i in padded), strict=True)
                rendered = [
                    np.stack([condition.render(condition.decode(samples.maps[i]), side) for i in rows])
                    for condition, samples in followed
                ]
                maps = np.concatenate(rendered, axis=-1)
                keys = [reference.keys[i] for i in rows]
                images = draw(base, module, keys, [texts[i] for i in rows], maps, settings, numbers)
                for name, image in zip(here, images, strict=False):
                    write_image(folder, name, image)
            bar.update(len(places))


def _run(form: Generate) -> int:
    generate(form)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(
        Generate, _run, argv, "python -m benchmark.generate --dataset datasets/scenes-seg-64 --run runs/mine"
    )


if __name__ == "__main__":
    raise SystemExit(main())
