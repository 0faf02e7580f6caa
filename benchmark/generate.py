"""Generate images for a split: `python -m benchmark.generate --dataset DIR --run RUN`, or without control."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import registry
from benchmark.base.console import progress, say
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, sha256
from benchmark.cli import command_line, non_negative, option, parse_size, positive, weight
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import SPLITS, Condition, Method

if TYPE_CHECKING:
    from torch import nn

    from benchmark.engine.bases import Base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.diffusion import Sampling
    from benchmark.engine.imagesets import Reference


@dataclass(frozen=True)
class Generate:
    """Generate one image for every sample of a split; without --run and --controlnet, the base's own images."""

    dataset: Path = option("dataset folder made by benchmark.build", parse=Path)
    run: Path | None = option("run folder made by benchmark.train", None, Path)
    controlnet: str | None = option("a released ControlNet, by hub id or folder, instead of a run", None)
    method: str = option("what --controlnet names: controlnet, t2i_adapter, ...", "controlnet")
    cond: str | None = option("condition, for --controlnet (default: the dataset's, if it has one)", None)
    base: str = option("frozen model, for all but --run", "scenes-tiny")
    split: str = option("val or test", "test")
    prompts: str = option("full (the captions), none, insufficient or conflicting", "full")
    limit: int | None = option("only the first so many samples", None, parse_size)
    num_inference_steps: int = option("sampling steps", 15, positive)
    guidance_scale: float | None = option("weight of the prompt (default: 2 for scenes-tiny, else 7.5)", None, weight)
    scheduler: str | None = option("ddim, dpm++, euler or unipc (default: unipc for scenes-tiny, else ddim)", None)
    control_weighting: str = option("uniform; or on the prompt's branch alone: resolution (CFG-RW), guess", "uniform")
    conditioning_scale: float = option("weight of the control", 1.0, weight)
    seed: int = option("evaluation seed: of the starting noise", 0, non_negative)
    batch: int = option("images at a time", 32, positive)
    device: str | None = option("cpu or cuda (default: cuda where there is one)", None)
    out: Path | None = option("images folder (default: runs/images/<dataset>_<split>_<run>_<hash>)", None, Path)


@dataclass(frozen=True)
class _Control:
    """What steers the base: a module with its condition, and the words that name it in records."""

    module: "nn.Module | None"
    condition: str
    description: dict[str, Any] | None


def generate(form: Generate) -> Path:
    """Generate what a form describes, or what is missing of it; return the images folder.

    Raises:
        UserError: A dataset, run, ControlNet or base that cannot be used, or other images in the folder.
    """
    from benchmark.engine import imagesets, runs
    from benchmark.engine.bases import choose_device, load_base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.diffusion import Sampling

    _check(form, imagesets.PROMPTS)
    dataset = BuiltDataset.open(form.dataset)
    control, base_name = _control(form, dataset)
    base = load_base(base_name, choose_device(form.device))
    condition = dataset.condition(control.condition)
    reference = imagesets.load_reference(dataset, form.split, control.condition, form.limit)
    guidance = base.guidance_scale if form.guidance_scale is None else form.guidance_scale
    solver = form.scheduler or base.solver
    settings = Sampling(
        num_inference_steps=form.num_inference_steps,
        guidance_scale=guidance,
        conditioning_scale=form.conditioning_scale,
        eval_seed=form.seed,
        scheduler=solver,
        control_weighting=form.control_weighting,
    )
    config = {
        "dataset": {"name": dataset.name, "path": str(form.dataset), "fingerprint": dataset.manifest.fingerprint},
        "split": form.split,
        "samples": {"n": len(reference.keys), "sha256": sha256(canonical_json(reference.keys))},
        "prompts": form.prompts,
        "sampling": asdict(settings),
        "base": {"name": base.name, "weights_sha256": base.weights_sha256},
        "condition": condition if control.module is not None else None,
        "control": control.description,
        "batch": form.batch,
    }
    if control.module is None:
        config = imagesets.without_control(config)
    folder = form.out or imagesets.default_folder(config, Path("runs/images"))
    missing = [key for key in reference.keys if not imagesets.image_path(folder, key).exists()]
    if (ended := runs.ended(folder, runs.IMAGES, config)) and not missing:
        say(f"{folder} is already {ended}")
        return folder
    runs.begin(folder, runs.IMAGES, config, runs.provenance(command_line(form)))
    _fill(folder, base, control.module, registry.remake(Condition, condition), reference, settings, form)
    runs.finish(folder, runs.IMAGES, "finished")
    say(f"generated {len(reference.keys)} images in {folder}")
    return folder


def _check(form: Generate, prompts: tuple[str, ...]) -> None:
    if form.split not in SPLITS:
        raise UserError(f'no split "{form.split}"; {did_you_mean(form.split, SPLITS)}')
    if form.prompts not in prompts:
        raise UserError(f'no prompts "{form.prompts}"; {did_you_mean(form.prompts, prompts)}')
    if form.cond is not None and form.controlnet is None:
        raise UserError("--cond goes with --controlnet; a run knows its condition, and without control there is none")
    if form.method != "controlnet" and form.controlnet is None:
        raise UserError("--method goes with --controlnet; a run knows its method")
    if form.run is not None and form.controlnet is not None:
        raise UserError("--run and --controlnet exclude each other; give one of them, or none for the base alone")


def _only_condition(form: Generate, dataset: "BuiltDataset") -> str:
    """Return the condition to steer with: the one asked for, else the dataset's only one."""
    names = [str(condition["name"]) for condition in dataset.plan.conditions]
    if form.cond is None and len(names) > 1:
        raise UserError(f"{dataset.folder} has several conditions; give --cond, allowed: {', '.join(names)}")
    return form.cond or names[0]


def _control(form: Generate, dataset: "BuiltDataset") -> tuple[_Control, str]:
    """Return what the form wants to steer with, and the name of the base."""
    from benchmark.engine.runs import RUN, read_finished
    from benchmark.engine.training import checkpoint_step, newest_checkpoint

    if form.run is not None:
        config = read_finished(form.run, RUN)["config"]
        checkpoint = newest_checkpoint(form.run)
        module = registry.remake(Method, config["method"]).load(str(checkpoint))
        words = {"name": form.run.resolve().name, "run": str(form.run), "step": checkpoint_step(checkpoint), **config}
        return _Control(module.eval(), config["condition"]["name"], words), config["base"]
    if form.controlnet is not None:
        method = registry.make(Method, form.method)
        words = {"name": Path(form.controlnet).name, "weights": form.controlnet, "method": registry.describe(method)}
        return _Control(method.load(form.controlnet).eval(), _only_condition(form, dataset), words), form.base
    return _Control(None, dataset.plan.conditions[0]["name"], None), form.base


def _fill(
    folder: Path,
    base: "Base",
    module: "nn.Module | None",
    condition: Condition,
    reference: "Reference",
    settings: "Sampling",
    form: Generate,
) -> None:
    """Make the images that are missing, in fixed batches, the last one padded: a resumed run gives the same bits."""
    import numpy as np

    from benchmark.engine.diffusion import draw
    from benchmark.engine.imagesets import image_path, prompts, write_image

    side = reference.images.shape[1]
    texts = prompts(form.prompts, reference.captions)
    if module is not None:
        module.to(base.device)
    with progress(len(reference.keys), f"generate {folder.name}", "images") as bar:
        for start in range(0, len(reference.keys), form.batch):
            places = list(range(start, min(start + form.batch, len(reference.keys))))
            keys = [reference.keys[i] for i in places]
            if not all(image_path(folder, key).exists() for key in keys):
                padded = places + [places[-1]] * (form.batch - len(places))
                maps = np.stack([condition.render(condition.decode(reference.maps[i]), side) for i in padded])
                noises = [reference.keys[i] for i in padded]
                images = draw(base, module, noises, [texts[i] for i in padded], maps, settings)
                for key, image in zip(keys, images, strict=False):
                    write_image(folder, key, image)
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
