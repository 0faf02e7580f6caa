"""How fast our trainer is beside the training script of diffusers: `python tests/perf/train_step.py`.

The script is `examples/controlnet/train_controlnet.py` of diffusers at 58eb52c0 (0.40.0.dev0). It is not in the wheel,
so `peer` does what its loop does, in its order, with its defaults: a `datasets` dataset with torchvision's transforms
in a `DataLoader` without workers, every image and prompt encoded in every step, AdamW, clipping at 1, `accelerate`, the
loss fetched in every step. Its trackers are left out, in its favour. First both fit the same pairs with the same
injected draws, and their losses are printed side by side (tests/engine/test_script_of_diffusers.py holds them equal);
then both run as they are, in turns, each in a process of its own, and the time from one call of the ControlNet to the
next is a step. What encoding the images once costs us is said apart, and spread over epochs.

On a quiet machine: `OMP_NUM_THREADS=2 python tests/perf/train_step.py` and, with Stable Diffusion 1.5 at a quarter of
its widths, `... --base sd15-quarter --resolution 256 --batch 4 --steps 6`. On a GPU, at its full widths with random
weights or with those of a hub id, `... --base sd15 --resolution 512 --batch 8 --mixed-precision bf16 --steps 20`; there
memory, what the parts of a step take and the share of the card's bfloat16 rate are told too.
"""

import argparse
import copy
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, Image, Value
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from benchmark.base.images import encode_png
from benchmark.base.provenance import machine
from benchmark.base.seeds import Stream
from benchmark.conditions.seg import Seg
from benchmark.contracts.plugins import Map
from benchmark.engine import training
from benchmark.engine.bases import Base, load_base
from benchmark.engine.diffusion import loss
from benchmark.engine.latents import encode_moments
from benchmark.engine.precision import mixed_precision
from benchmark.engine.pretrained import choose_device
from benchmark.engine.ranks import ALONE
from benchmark.engine.reader import Batch, TrainingData, batch_rows, draw_batch
from benchmark.engine.recorded import Recorded
from benchmark.engine.training import Recipe, Trainee
from benchmark.methods.controlnet import Control, Controlnet
from benchmark.scenes.maps import exact
from benchmark.scenes.splits import example
from tests.small_bases import write_base

EPOCHS = (1, 10, 100)
SD15 = {"sd15": 1, "sd15-quarter": 4}  # what its widths are divided by
PEAK_SIDE = 8192  # of the product of two matrices that the card's rate is read from
Draw = Callable[[int, Any], tuple[Tensor, Tensor, Tensor]]
Rates = dict[str, list[float]]  # images a second of each arm, by round


@dataclass(frozen=True)
class Pairs:
    """Images and conditioning images, uint8 (N, R, R, 3), with their captions."""

    images: NDArray[np.uint8]
    conditioning: NDArray[np.uint8]
    captions: Sequence[str]


@dataclass(frozen=True)
class Frozen:
    """What the script loads and does not train."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler


def make_pairs(count: int, resolution: int) -> Pairs:
    """Return scenes with their segmentation."""
    made = [example(0, "train", i, resolution) for i in range(count)]
    conditioning = [Seg().render(Map(exact(one.render, "seg")), resolution) for one in made]
    return Pairs(np.stack([one.render.image for one in made]), np.stack(conditioning), [one.caption for one in made])


def our_data(base: Base, pairs: Pairs) -> TrainingData:
    """Return the pairs as our trainer reads them."""
    moments = encode_moments(base, pairs.images, "pairs")
    return TrainingData(moments, pairs.conditioning, base.token_ids(list(pairs.captions)), base.token_ids([""])[0])


def load_frozen(folder: str) -> Frozen:
    """Load the parts of a base as the script does."""
    return Frozen(
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet").requires_grad_(False),
        AutoencoderKL.from_pretrained(folder, subfolder="vae").requires_grad_(False),
        CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32).requires_grad_(False),
        CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )


def script_dataset(pairs: Pairs, tokenizer: CLIPTokenizer, empty_prompt_rate: float) -> Dataset:
    """Return pairs as PNG files in a dataset that decodes, resizes, crops, normalises and tokenises when it is read."""
    resolution = pairs.images.shape[1]
    geometry = [
        transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BILINEAR),
        transforms.CenterCrop(resolution),
        transforms.ToTensor(),
    ]
    to_conditioning = transforms.Compose(geometry)
    to_image = transforms.Compose([*geometry, transforms.Normalize([0.5], [0.5])])

    def read(rows: dict[str, list[Any]]) -> dict[str, Any]:
        captions = ["" if random.random() < empty_prompt_rate else caption for caption in rows["text"]]
        tokens = tokenizer(
            captions,
            max_length=tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return {
            "pixel_values": [to_image(image.convert("RGB")) for image in rows["image"]],
            "conditioning": [to_conditioning(image.convert("RGB")) for image in rows["conditioning"]],
            "input_ids": tokens.input_ids,
        }

    columns = {
        "image": [{"bytes": encode_png(image)} for image in pairs.images],
        "conditioning": [{"bytes": encode_png(image)} for image in pairs.conditioning],
        "text": list(pairs.captions),
    }
    features = Features({"image": Image(), "conditioning": Image(), "text": Value("string")})
    return Dataset.from_dict(columns, features=features).with_transform(read)


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack rows to a batch."""
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    pixels = {name: stacked[name].contiguous().float() for name in ("pixel_values", "conditioning")}
    return {**stacked, **pixels}


def own_draws(_: int, posterior: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return unscaled latents, noise and timesteps drawn as the script draws them."""
    latents = posterior.sample()
    timesteps = torch.randint(0, 1000, (len(latents),), device=latents.device).long()
    return latents, torch.randn_like(latents), timesteps


def peer(
    frozen: Frozen,
    controlnet: ControlNetModel,
    pairs: Pairs,
    recipe: Recipe,
    *,
    shuffle: bool = True,
    empty_prompt_rate: float = 0.5,
    draw: Draw = own_draws,
) -> list[float]:
    """Train a ControlNet as the script does and return the loss of every step."""
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    optimizer = torch.optim.AdamW(
        controlnet.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=recipe.weight_decay,
        eps=1e-8,
    )
    loader = DataLoader(
        script_dataset(pairs, frozen.tokenizer, empty_prompt_rate),
        shuffle=shuffle,
        collate_fn=collate,
        batch_size=recipe.batch,
        num_workers=0,
    )
    rate = get_scheduler("constant", optimizer=optimizer)
    controlnet, optimizer, loader, rate = accelerator.prepare(controlnet.train(), optimizer, loader, rate)
    dtype = torch.bfloat16 if recipe.mixed_precision == "bf16" else torch.float32
    for model in (frozen.vae, frozen.unet, frozen.text_encoder):
        model.to(accelerator.device, dtype=dtype)
    losses: list[float] = []
    with tqdm(total=recipe.steps, leave=False) as bar:
        while len(losses) < recipe.steps:
            for batch in loader:
                with accelerator.accumulate(controlnet):
                    value = script_loss(frozen, controlnet, batch, dtype, draw, len(losses))
                    accelerator.backward(value)
                    accelerator.clip_grad_norm_(controlnet.parameters(), recipe.max_grad_norm)
                    optimizer.step()
                    rate.step()
                    optimizer.zero_grad(set_to_none=False)
                bar.update(1)
                losses.append(value.detach().item())
                bar.set_postfix(loss=losses[-1], lr=rate.get_last_lr()[0])
                if len(losses) == recipe.steps:
                    break
    return losses


def script_loss(
    frozen: Frozen,
    controlnet: ControlNetModel,
    batch: dict[str, Tensor],
    dtype: torch.dtype,
    draw: Draw,
    step: int,
) -> Tensor:
    """Return the loss of a batch, its images and prompts encoded on the way."""
    posterior = frozen.vae.encode(batch["pixel_values"].to(dtype=dtype)).latent_dist
    latents, noise, timesteps = draw(step, posterior)
    latents = latents * frozen.vae.config.scaling_factor
    noisy = frozen.scheduler.add_noise(latents.float(), noise.float(), timesteps).to(dtype=dtype)
    states = frozen.text_encoder(batch["input_ids"], return_dict=False)[0]
    image = batch["conditioning"].to(dtype=dtype)
    down, middle = controlnet(noisy, timesteps, encoder_hidden_states=states, controlnet_cond=image, return_dict=False)
    prediction = frozen.unet(
        noisy,
        timesteps,
        encoder_hidden_states=states,
        down_block_additional_residuals=[residual.to(dtype=dtype) for residual in down],
        mid_block_additional_residual=middle.to(dtype=dtype),
        return_dict=False,
    )[0]
    is_v = frozen.scheduler.config.prediction_type == "v_prediction"
    target = frozen.scheduler.get_velocity(latents, noise, timesteps) if is_v else noise
    return functional.mse_loss(prediction.float(), target.float(), reduction="mean")


def ours(
    base: Base, module: nn.Module, data: TrainingData, recipe: Recipe, clock: "Clock | None" = None
) -> list[float]:
    """Train a ControlNet with our trainer and return the loss of every step; a clock ticks at the start of each."""
    method, losses, update = Controlnet(), list[Tensor](), training._update

    def noted(*arguments: Any) -> Tensor:
        if clock:
            clock.tick()
        losses.append(update(*arguments))
        return losses[-1]

    trainee = Trainee(module, method.save, lambda folder: method.load(str(folder)))
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(training, "_update", noted),
        patch.object(training, "_checkpoint"),  # the last, after the steps; the script writes none here either
        patch.object(training, "newest_checkpoint"),
    ):
        training.train(base, trainee, data, recipe, Path(folder))
    return [float(value) for value in losses]


def fresh(base: Base | Frozen) -> Control:
    """Return a ControlNet, the same each time."""
    return copy.deepcopy(_built(base.unet, 2 ** (len(base.vae.config.block_out_channels) - 1)))


@cache
def _built(unet: UNet2DConditionModel, latent_scale: int) -> Control:
    torch.manual_seed(0)
    return Controlnet().build(unet, latent_scale)


def both_with_the_same_draws(
    base: Base, frozen: Frozen, pairs: Pairs, recipe: Recipe
) -> tuple[list[float], list[float], Control, Control]:
    """Return the losses of the script and of ours, and what both trained: order, noise and prompts are ours in both."""
    data, seeds = our_data(base, pairs), recipe.seeds
    rows = [batch_rows(len(data), recipe.batch, step, seeds["order"]) for step in range(recipe.steps)]
    batches = [draw_batch(data, r, i, seeds["noise"], 1.0, recipe.empty_prompt_rate) for i, r in enumerate(rows)]
    kept = [not torch.equal(ids, data.empty_ids) for batch in batches for ids in batch.token_ids]
    order = np.concatenate(rows)
    captions = [pairs.captions[i] if keep else "" for i, keep in zip(order, kept, strict=True)]

    def draw(step: int, posterior: Any) -> tuple[Tensor, Tensor, Tensor]:
        first = Stream(seeds["noise"], "training-noise", step).normal(tuple(posterior.mean.shape))
        latents = posterior.mean + posterior.std * torch.from_numpy(first).to(posterior.mean)
        return latents, batches[step].noise.to(latents), batches[step].timesteps.to(latents.device)

    module, theirs = fresh(base), fresh(base)
    losses = ours(base, module, data, recipe)
    ordered = Pairs(pairs.images[order], pairs.conditioning[order], captions)
    script = peer(frozen, theirs.controlnet, ordered, recipe, shuffle=False, empty_prompt_rate=0.0, draw=draw)
    return script, losses, theirs, module


class Clock:
    """Notes the time of two of many calls, counted from 0; only there the GPU is waited for."""

    def __init__(self, first: int, last: int) -> None:
        self._noted, self._calls, self._times = (first, last), 0, list[float]()

    def tick(self, *_: Any) -> None:
        """Count a call."""
        if self._calls in self._noted:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._times.append(time.perf_counter())
        self._calls += 1

    @property
    def seconds(self) -> float:
        """From one to the other."""
        first, last = self._times
        return last - first


def timed(arm: str, folder: str, pairs: Pairs, recipe: Recipe, warm: int) -> tuple[float, float]:
    """Return images a second of one arm after its first few steps, and the most GiB of a GPU that its process held."""
    clock = Clock(warm, warm + recipe.steps)
    longer = replace(recipe, steps=recipe.steps + warm + 1, checkpoint_every=recipe.steps + warm + 1)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if arm == "script":
        frozen = load_frozen(folder)
        module = fresh(frozen)
        module.controlnet.register_forward_pre_hook(clock.tick)
        peer(frozen, module.controlnet, pairs, longer, empty_prompt_rate=recipe.empty_prompt_rate)
    else:
        base = load_base(folder, choose_device(None))
        ours(base, fresh(base), our_data(base, pairs), longer, clock)
    held = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return recipe.batch * recipe.steps / clock.seconds, held


def spread(values: Sequence[float]) -> str:
    """Return median, lowest and highest in words."""
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def folder_of(name: str, scratch: Path) -> str:
    """Return the folder or hub id of a base; one with Stable Diffusion's wiring and random weights is written first."""
    return str(write_base("sd15", scratch / name, SD15[name])) if name in SD15 else name


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="scenes-tiny", help="also sd15, sd15-quarter, a folder or a hub id")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--steps", type=int, default=12, help="timed in a round")
    parser.add_argument("--warm", type=int, default=2, help="not timed before them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--equal-steps", type=int, default=4)
    return parser.parse_args()


def main() -> None:
    """Print that the losses agree, then rates and ratios."""
    asked = options()
    with tempfile.TemporaryDirectory() as scratch:
        measure(asked, folder_of(asked.base, Path(scratch)))


def measure(asked: argparse.Namespace, folder: str) -> None:
    """Print all of it for the base of a folder or name."""
    base = load_base(folder, choose_device(None))
    frozen, pairs = load_frozen(base.folder), make_pairs(max(asked.pairs, asked.batch), asked.resolution)
    recipe = Recipe(
        steps=asked.equal_steps,
        batch=asked.batch,
        learning_rate=1e-5,
        weight_decay=0.01,
        empty_prompt_rate=0.5,
        seeds={"order": 0, "noise": 0},
        checkpoint_every=asked.equal_steps,
        mixed_precision=asked.mixed_precision,
        max_grad_norm=1.0,
    )
    words = f"{asked.base} at {asked.resolution}, batch {asked.batch}, precision {asked.mixed_precision}"
    print(f"{machine()}, {torch.get_num_threads()} threads, {base.device.type}, torch {torch.__version__}: {words}")
    script, losses, *_ = both_with_the_same_draws(base, frozen, pairs, recipe)
    print("losses with the same draws, script and ours:")
    for theirs, mine in zip(script, losses, strict=True):
        print(f"  {theirs:.6f} {mine:.6f}  {abs(mine - theirs) / theirs:.1e} apart")
    started = time.perf_counter()
    data = our_data(base, pairs)
    encoding = (time.perf_counter() - started) / len(data)
    recipe = replace(recipe, steps=asked.steps)
    rates = compare(base.folder, pairs, recipe, asked, encoding)
    if base.device.type == "cuda":
        tell_of_gpu(base, frozen, pairs, data, recipe, rates)


def compare(folder: str, pairs: Pairs, recipe: Recipe, asked: argparse.Namespace, encoding: float) -> Rates:
    """Run both arms in turns and print their rates, their ratio, and what encoding once adds to it; return the rates.

    Each has a process of its own, since what ours settles with the C library (`keep_freed_memory`) holds for a process.
    """
    rates: Rates = {"script": [], "ours": []}
    held = dict.fromkeys(rates, 0.0)
    own = get_context("spawn")
    with ProcessPoolExecutor(1, own) as script, ProcessPoolExecutor(1, own) as mine:
        arms = {"script": script, "ours": mine}
        for number in range(asked.rounds):
            for arm in ("script", "ours") if number % 2 else ("ours", "script"):
                rate, gib = arms[arm].submit(timed, arm, folder, pairs, recipe, asked.warm).result()
                rates[arm].append(rate)
                held[arm] = max(held[arm], gib)
    print(f"median [lowest, highest] of {asked.rounds} rounds in turns, {recipe.steps} steps each")
    for arm, values in rates.items():
        print(f"  {arm:<7} {spread(values)} images a second")
    print(f"  ratio   {spread([b / a for a, b in zip(rates['script'], rates['ours'], strict=True)])}")
    print(f"encoding an image once: {encoding * 1000:.1f} ms; ratio with it")
    for epochs in EPOCHS:
        both = zip(rates["script"], rates["ours"], strict=True)
        print(f"  over {epochs:>3} epochs {spread([1 / a / (1 / b + encoding / epochs) for a, b in both])}")
    if any(held.values()):
        print("most memory held: " + ", ".join(f"{arm} {gib:.1f} GiB" for arm, gib in held.items()))
    return rates


def tell_of_gpu(
    base: Base,
    frozen: Frozen,
    pairs: Pairs,
    data: TrainingData,
    recipe: Recipe,
    rates: Rates,
) -> None:
    """Print the share of the card's rate that is reached, and what the parts of a step take."""
    module, peak = fresh(base).to(base.device).train(), bfloat16_rate()
    work = operations(base, module, data, recipe) / recipe.batch
    print(f"{work / 1e12:.3g} TFLOP an image; a product of {PEAK_SIDE} x {PEAK_SIDE} reaches {peak / 1e12:.0f} TFLOP/s")
    for arm, values in rates.items():
        print(f"  {arm:<7} {statistics.median(values) * work / peak:.1%} of it, for what ours computes")
    print("ms of each part of a step, everything waited for in between")
    parts = parts_of_step(base, module, data, recipe) | parts_of_script(frozen, pairs, recipe)
    for name, seconds in parts.items():
        print(f"  {name:<40} {seconds * 1000:.1f}")


def bfloat16_rate() -> float:
    """Return the operations a second of a large product in bfloat16 on the GPU."""
    one, other = torch.randn(2, PEAK_SIDE, PEAK_SIDE, device="cuda", dtype=torch.bfloat16)
    return 2 * PEAK_SIDE**3 / seconds_of(lambda: one @ other, 20)


def seconds_of(what: Callable[[], Any], times: int) -> float:
    """Return the median time of calls of a function, the work of the GPU included, after three that do not count."""
    seconds = []
    for _ in range(3 + times):
        torch.cuda.synchronize()
        started = time.perf_counter()
        what()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def operations(base: Base, module: Control, data: TrainingData, recipe: Recipe) -> float:
    """Return the floating-point operations of products, convolutions and attention in a step, there and back."""
    part = tuple(tensor.to(base.device) for tensor in training._arguments(base, first_batch(data, recipe)))
    with FlopCounterMode(display=False) as counter:
        training._backward(base, module, part, recipe, ALONE)
    return float(counter.get_total_flops())


def first_batch(data: TrainingData, recipe: Recipe) -> Batch:
    """Return the batch of the first step."""
    rows = batch_rows(len(data), recipe.batch, 0, recipe.seeds["order"])
    return draw_batch(data, rows, 0, recipe.seeds["noise"], 1.0, recipe.empty_prompt_rate)


def parts_of_step(base: Base, module: Control, data: TrainingData, recipe: Recipe) -> dict[str, float]:
    """Return the seconds of each part of our step."""
    batch = first_batch(data, recipe).pinned()
    state, share = training._state(module, recipe, base.device), training._arguments(base, batch)
    part = tuple(tensor.to(base.device) for tensor in share)
    replayed = training._gradients(base, state, recipe, ALONE, eager=False)

    def forward() -> Tensor:
        with torch.no_grad(), mixed_precision(recipe.mixed_precision, base.unet, module):
            return loss(base, module, *part)

    return {
        "ours: batch drawn (in a thread, ahead)": seconds_of(lambda: first_batch(data, recipe).pinned(), 10),
        "ours: prompts encoded": seconds_of(lambda: training._arguments(base, batch), 10),
        "ours: gradients, recorded and replayed": seconds_of(lambda: replayed(*share), 10),
        "ours: gradients, asked for by Python": seconds_of(
            lambda: training._backward(base, module, part, recipe, ALONE), 10
        ),
        "ours: forward pass alone, replayed": seconds_of(Recorded(forward), 10),
        "ours: gradients cut to length": seconds_of(lambda: nn.utils.clip_grad_norm_(module.parameters(), 1.0), 10),
        "ours: AdamW": seconds_of(state.optimizer.step, 10),
    }


def parts_of_script(frozen: Frozen, pairs: Pairs, recipe: Recipe) -> dict[str, float]:
    """Return the seconds that a batch of the script waits for images to be read, and to be encoded."""
    dataset = script_dataset(pairs, frozen.tokenizer, recipe.empty_prompt_rate)
    batch = collate([dataset[i] for i in range(recipe.batch)])
    images = batch["pixel_values"].to(frozen.vae.device, frozen.vae.dtype)

    def encode() -> None:
        with torch.no_grad():
            frozen.vae.encode(images)

    return {
        "script: batch read and transformed": seconds_of(lambda: collate([dataset[i] for i in range(recipe.batch)]), 5),
        "script: images encoded": seconds_of(encode, 10),
    }


if __name__ == "__main__":
    main()
