"""Fit a ControlNet on a frozen base: `python -m benchmark.train --dataset DIR --cond seg`."""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import registry
from benchmark.base.console import say
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import without_empty
from benchmark.base.seeds import SEED_NAMES
from benchmark.cli import command_line, non_negative, option, parse_size, positive, rate, share, weight
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import Annotator, Condition, Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.engine.bases import Base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.probes import Probe
    from benchmark.engine.ranks import Ranks
    from benchmark.engine.reader import Subset, TrainingData
    from benchmark.engine.stored import Packed
    from benchmark.engine.training import Recipe

# Measured for scenes-tiny (docs/LOG.md); the paper's rate for Stable Diffusion.
_LEARNING_RATES = {"scenes-tiny": 6e-4}
_DEFAULT_LEARNING_RATE = 1e-5
_IN_MEMORY = 2 * 2**30  # bytes of latents, and of conditioning images, that are held; more are read as steps need them
_TOKENIZED = 4096  # captions at a time


class RunDiverged(UserError):
    """A run ended without weights; its folder keeps that outcome."""


@dataclass(frozen=True)
class Train:
    """Fit a control method on a frozen base; the same command again resumes."""

    dataset: Path = option("dataset folder made by benchmark.build", parse=Path)
    cond: str = option("condition, one of the dataset's", "seg")
    method: str = option(
        "how control is attached: controlnet, controlnet_lite, t2i_adapter, or a variant with fields", "controlnet"
    )
    base: str = option("frozen model: scenes-tiny, a diffusers folder, or a hub id", "scenes-tiny")
    steps: int = option("optimiser updates", 300, positive)
    batch: int = option("samples an update", 32, positive)
    learning_rate: float | None = option("of AdamW (default: 6e-4 for scenes-tiny, else 1e-5)", None, rate)
    schedule: str = option("of the learning rate: constant, linear or cosine", "constant")
    warmup_steps: int = option("updates over which the learning rate rises to its highest", 0, non_negative)
    weight_decay: float = option("of AdamW", 0.01, weight)
    mixed_precision: str = option("no or bf16: faster where the processor has it", "no")
    gradient_accumulation_steps: int = option("equal parts a batch is computed in; saves memory", 1, positive)
    gradient_checkpointing: bool = option("compute activations twice; saves memory", False)
    max_grad_norm: float = option("cut longer gradients to this norm; 0: never", 0.0, weight)
    snr_gamma: float | None = option("cap of Min-SNR weighting of the loss, as in 5 (default: none)", None, rate)
    ema_decay: float | None = option("keep a running average of the weights, as in 0.999 (default: none)", None, share)
    use_8bit_adam: bool = option("keep AdamW's state in 8 bits, through bitsandbytes; saves memory", False)
    empty_prompt_rate: float = option("share of prompts emptied while training", 0.5, share)
    num_samples: int | None = option("train on a nested subset of so many pairs (default: all)", None, parse_size)
    replicate: int = option("which disjoint subset of that size", 0, non_negative)
    corrupt: tuple[str, ...] = option("spoil a share of the pairs, as in wrong_caption=0.2; may be given again", ())
    seed: int = option("sets all five seeds below", 0, non_negative)
    subset_seed: int | None = option("which pairs (default: --seed)", None, non_negative)
    init_seed: int | None = option("the first weights (default: --seed)", None, non_negative)
    order_seed: int | None = option("the order of the pairs (default: --seed)", None, non_negative)
    noise_seed: int | None = option("noise, timesteps and emptied prompts (default: --seed)", None, non_negative)
    eval_seed: int | None = option("the noise of the probe (default: --seed)", None, non_negative)
    checkpoint_every: int = option("updates between checkpoints", 100, positive)
    probe_every: int = option("updates between probes of the condition on the val split; 0: never", 100, non_negative)
    eager: bool = option("on a GPU, ask for a step's work anew instead of replaying it; slower, less memory", False)
    referee: str | None = option("annotator that reads the probe's images (default: the condition's own)", None)
    device: str | None = option("cpu or cuda (default: cuda where there is one)", None)
    out: Path | None = option("run folder (default: runs/<dataset>_<cond>_<method>_<base>_s<seed>)", None, Path)
    cache: Path = option("where latents are kept for all runs", Path("runs/cache"), Path)
    tracker: str | None = option("one of accelerate's trackers, as in tensorboard (default: none)", None)


def train(form: Train) -> Path:
    """Train what a form describes, or go on with it; return the run folder.

    Processes that torchrun launched together train one run: each takes an equal part of every batch.

    Raises:
        UserError: A dataset, condition, method, base or tracker that cannot be used, or another run in the folder.
    """
    from benchmark.engine.journal import check_tracker
    from benchmark.engine.pretrained import choose_device, within_memory
    from benchmark.engine.ranks import joined

    if form.tracker is not None:
        check_tracker(form.tracker)
    less = "give a smaller --batch, or --gradient-accumulation-steps and --gradient-checkpointing"
    with joined(choose_device(form.device)) as ranks, within_memory(less):
        return _train(form, ranks)


def _train(form: Train, ranks: "Ranks") -> Path:
    """Train as one of several ranks; the main one writes the record of the run."""
    from benchmark.engine import runs
    from benchmark.engine.bases import load_base
    from benchmark.engine.datasets import BuiltDataset
    from benchmark.engine.pretrained import choose_device
    from benchmark.engine.training import Diverged, Trainee
    from benchmark.engine.training import train as fit

    dataset, method = BuiltDataset.open(form.dataset), registry.make(Method, form.method)
    condition = registry.remake(Condition, dataset.condition(form.cond))
    recipe = make_recipe(form, ranks.world)
    referee = probing_referee(form, dataset, condition)
    run = form.out or default_folder(form, dataset)
    config = _config(form, dataset, method, recipe, ranks.world)
    if referee and form.referee:
        config["referee"] = {"spec": registry.full_spec(referee), **referee.identity()}
    ended = runs.ended(run, runs.RUN, config)
    if ended == "diverged" or (ended and _is_whole(run, recipe.steps)):
        if ranks.is_main:
            say(f"{run} is already {ended}")
        return run
    base = load_base(form.base, choose_device(form.device))
    runs.refuse_other_base(run, base.name, base.weights_sha256)
    with ranks.main_first():
        data = load_data(base, dataset, condition, form)
    module = new_module(method, base, recipe.seeds["init"])
    if ranks.is_main:
        if ended:
            runs.reopen(run, runs.RUN)
        made_by = {**runs.provenance(command_line(form)), "base_sha256": base.weights_sha256}
        runs.begin(run, runs.RUN, config, made_by)
    started = time.monotonic()
    trainee = Trainee(module, method.save, lambda folder: method.load(str(folder)))
    probe = make_probe(base, dataset, condition, referee, form) if referee else None
    try:
        with runs.held(run) if ranks.is_main else nullcontext():
            checkpoint = fit(base, trainee, data, recipe, run, probe, form.tracker, ranks, form.eager)
    except Diverged as error:
        if ranks.is_main:
            runs.finish(run, runs.RUN, "diverged", reason=str(error))
        raise RunDiverged(f"{run} diverged: {error}; the run keeps this outcome") from None
    if ranks.is_main:
        _finish(form, run, condition, module, checkpoint, round(time.monotonic() - started, 1))
    return run


def _is_whole(run: Path, steps: int) -> bool:
    """Whether a run that ended still has its weights and its curve."""
    from benchmark.engine.checkpoints import curve_at, weights_at

    try:
        weights_at(run, steps)
        curve_at(run, steps)
    except UserError:
        return False
    return True


def _finish(form: Train, run: Path, condition: Condition, module: Any, checkpoint: Path, seconds: float) -> None:
    """Write down that a run is whole, and say what came of it."""
    from benchmark.engine import runs
    from benchmark.engine.checkpoints import parameter_count
    from benchmark.engine.journal import read_curve
    from benchmark.numbers.seeds import ONSET, onset

    began = onset(read_curve(run), condition.headline) if form.probe_every else None
    size = parameter_count(module)
    runs.finish(run, runs.RUN, "finished", seconds=seconds, num_parameters=size, onset_of_control=began)
    say(f"trained {run}: {form.steps} updates in {seconds} s; weights in {checkpoint}")
    if form.probe_every:
        when = f"from update {began} on" if began is not None else f"not within {form.steps} updates"
        say(f"normalised {condition.headline} of {ONSET} and more: {when}; the curve is in {run / 'curve.jsonl'}")


def make_recipe(form: Train, num_processes: int = 1) -> "Recipe":
    """Return how a form wants its module trained.

    Raises:
        UserError: A corruption, schedule or precision that does not exist, a batch that cannot be divided, or an
            optimiser that is not installed.
    """
    from benchmark.engine.corruptions import parse
    from benchmark.engine.precision import MIXED_PRECISION
    from benchmark.engine.training import SCHEDULES, Recipe

    dirt = [parse(corruption)[0] for corruption in form.corrupt]
    if repeated := [name for name in dirt if dirt.count(name) > 1]:
        raise UserError(f"--corrupt names {repeated[0]} twice, and the second would undo the first; give it once")
    if form.schedule not in SCHEDULES:
        raise UserError(f'no schedule "{form.schedule}"; {did_you_mean(form.schedule, SCHEDULES)}')
    if form.mixed_precision not in MIXED_PRECISION:
        raise UserError(f'no precision "{form.mixed_precision}"; {did_you_mean(form.mixed_precision, MIXED_PRECISION)}')
    if form.batch % (parts := form.gradient_accumulation_steps * num_processes):
        raise UserError(f"a batch of {form.batch} has no {parts} equal parts; change either")
    if form.use_8bit_adam and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("--use-8bit-adam needs bitsandbytes; pip install bitsandbytes, or leave it out")
    return Recipe(
        steps=form.steps,
        batch=form.batch,
        learning_rate=form.learning_rate or _LEARNING_RATES.get(form.base, _DEFAULT_LEARNING_RATE),
        weight_decay=form.weight_decay,
        empty_prompt_rate=form.empty_prompt_rate,
        seeds=named_seeds(form),
        checkpoint_every=form.checkpoint_every,
        probe_every=form.probe_every,
        schedule=form.schedule,
        warmup_steps=form.warmup_steps,
        mixed_precision=form.mixed_precision,
        gradient_accumulation_steps=form.gradient_accumulation_steps,
        gradient_checkpointing=form.gradient_checkpointing,
        max_grad_norm=form.max_grad_norm,
        snr_gamma=form.snr_gamma,
        ema_decay=form.ema_decay,
        use_8bit_adam=form.use_8bit_adam,
    )


def named_seeds(form: Train) -> dict[str, int]:
    """Return the seed of each name: its own where it was given, else the common one."""
    own = {name: getattr(form, f"{name}_seed") for name in SEED_NAMES}
    return {name: form.seed if seed is None else seed for name, seed in own.items()}


def probing_referee(form: Train, dataset: "BuiltDataset", condition: Condition) -> Annotator | None:
    """Return what reads the probe's images: what a form names, else the condition's own; None without a probe.

    Raises:
        UserError: It does not fit the condition or the data, or is named where there is no probe.
    """
    if form.probe_every:
        return registry.make_referee(form.referee, condition, dataset.plan.source["name"])
    if form.referee is not None:
        raise UserError("--referee reads the images of a probe, and there is none; give --probe-every, or leave it out")
    return None


def make_probe(base: "Base", dataset: "BuiltDataset", condition: Condition, referee: Annotator, form: Train) -> "Probe":
    """Return the probe of a run: the first validation samples, what reads them back, and how they are drawn."""
    from benchmark.engine.diffusion import Sampling
    from benchmark.engine.imagesets import load_reference
    from benchmark.engine.probes import PROBE_SAMPLES, Probe

    reference = load_reference(dataset, "val", form.cond, PROBE_SAMPLES)
    settings = Sampling(guidance_scale=base.guidance_scale, eval_seed=named_seeds(form)["eval"], scheduler=base.solver)
    return Probe(base, condition, referee, reference, settings)


def new_module(method: Method, base: "Base", init_seed: int) -> Any:
    """Return a method's fresh module for a base; its random weights depend on the seed alone."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(init_seed)
        return method.build(base.unet, base.latent_scale)


def choose_subset(form: Train, dataset: "BuiltDataset") -> "Subset":
    """Return the pairs a form asks for.

    Raises:
        UserError: The dataset holds too few, or they are too few for a batch.
    """
    from benchmark.engine.reader import Subset

    subset = Subset.of(dataset, form.num_samples, form.replicate, named_seeds(form)["subset"])
    if form.batch > len(subset.rows):
        raise UserError(f"a batch of {form.batch} is larger than the {len(subset.rows)} training pairs; lower --batch")
    return subset


def load_data(base: "Base", dataset: "BuiltDataset", condition: Condition, form: Train) -> "TrainingData":
    """Return the training pairs of the subset a form asks for, latents encoded or from the cache.

    Raises:
        UserError: Too few pairs, or a resolution the base cannot take.
    """
    import numpy as np
    import torch

    from benchmark.engine.corruptions import corrupted
    from benchmark.engine.latents import moments_of
    from benchmark.engine.reader import EncodedMaps, TrainingData

    resolution = dataset.plan.resolution
    if resolution % (base.latent_scale * 8):
        raise UserError(
            f"{base.name} needs a resolution divisible by {base.latent_scale * 8}, not {resolution}; build again"
        )
    subset = choose_subset(form, dataset)
    chosen, view = subset.rows, corrupted(subset.keys, form.corrupt, named_seeds(form)["subset"])
    shards = [(dataset.folder / c.file, c.num_ok) for c in dataset.commits("train") if c.file is not None]
    moments = moments_of(base, shards, dataset.places("train")[chosen], view, form.cache)
    captions, maps = _captions_and_maps(dataset, f"cond_{form.cond}", set(chosen.tolist()), form.cache)
    rank = np.argsort(np.argsort(chosen))  # captions and maps are in the dataset's order
    images = EncodedMaps(maps, rank[view.maps], view.shifted, _renderer(condition, resolution))
    return TrainingData(
        moments=moments.in_memory() if 4 * math.prod(moments.shape) <= _IN_MEMORY else moments,
        images=images.in_memory() if 3 * resolution**2 * len(images) <= _IN_MEMORY else images,
        token_ids=_token_ids(base, captions)[torch.from_numpy(rank[view.captions])],
        empty_ids=base.token_ids([""])[0],
    )


def _captions_and_maps(
    dataset: "BuiltDataset", column: str, wanted: set[int], folder: Path
) -> "tuple[list[str], Packed]":
    """Return captions and encoded maps of some training pairs, in the dataset's order, the maps in a file."""
    from benchmark.engine.stored import Packed

    captions: list[str] = []

    def maps() -> Iterator[bytes]:
        for i, row in enumerate(dataset.rows("train", ["caption", column])):
            if i in wanted:
                captions.append(row["caption"] or "")
                yield row[column]["bytes"]

    packed = Packed.of(maps(), folder)
    return captions, packed


def _token_ids(base: "Base", captions: Sequence[str]) -> "Tensor":
    """Return token ids (N, length), half as wide as the tokenizer's: those of a million captions fill 308 MB."""
    import torch

    parts = [captions[i : i + _TOKENIZED] for i in range(0, len(captions), _TOKENIZED)]
    return torch.cat([base.token_ids(part).to(torch.int32) for part in parts])


def _renderer(
    condition: Condition, resolution: int
) -> "Callable[[Sequence[bytes], NDArray[np.bool_]], NDArray[np.uint8]]":
    """Return what renders encoded maps as conditioning images, some of them moved."""
    import numpy as np

    from benchmark.engine.corruptions import shift

    def render(encoded: Sequence[bytes], moved: "NDArray[np.bool_]") -> "NDArray[np.uint8]":
        images = np.stack([condition.render(condition.decode(data), resolution) for data in encoded])
        images[moved] = shift(images[moved])
        return images

    return render


def default_folder(form: Train, dataset: "BuiltDataset") -> Path:
    """Return ``runs/<dataset>_<cond>_<method>_<base>_s<seed>``."""
    words = (dataset.name, form.cond, form.method.replace(",", "-"), Path(form.base).name, f"s{form.seed}")
    return Path("runs") / "_".join(words)


def _config(form: Train, dataset: "BuiltDataset", method: Method, recipe: Any, num_processes: int) -> dict[str, Any]:
    """Return what decides the weights, as it is written to run.json."""
    config = {
        "dataset": {"name": dataset.name, "path": str(form.dataset), "plan_hash": dataset.plan.hash},
        "num_samples": form.num_samples or dataset.manifest.num_rows["train"],
        "replicate": form.replicate,
        "pairs_sha256": choose_subset(form, dataset).sha256,
        "corrupt": list(form.corrupt),
        "condition": dataset.condition(form.cond),
        "method": registry.describe(method),
        "base": form.base,
        "recipe": without_empty(asdict(recipe), "use_8bit_adam"),
    }
    if form.probe_every:
        config["probed_on"] = dataset.fingerprint("val")
    if not dataset.manifest.is_shuffled:
        config["drawn_from"] = dataset.manifest.num_rows["train"]  # the first rows of such a source may be alike
    return config if num_processes == 1 else {**config, "num_processes": num_processes}


def _run(form: Train) -> int:
    train(form)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(
        Train, _run, argv, "python -m benchmark.train --dataset datasets/scenes-seg-64 --cond seg --steps 300"
    )


if __name__ == "__main__":
    raise SystemExit(main())
