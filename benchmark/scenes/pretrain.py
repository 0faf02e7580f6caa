"""Make the bundled models from nothing: `python -m benchmark.scenes.pretrain --work DIR [--stage vae]`.

Stages: vae, referee, clip, unet (needs vae). Each resumes from its last checkpoint and leaves its weights in the
Hugging Face layout in half precision, with a card of its seeds, images seen, hardware, time and held-out scores.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTextModel, PreTrainedModel

from benchmark.base.console import progress, say
from benchmark.base.files import pretty_json, replace_file
from benchmark.base.provenance import machine
from benchmark.base.seeds import Stream
from benchmark.engine.bases import load_base
from benchmark.engine.checkpoints import (
    load_optimizer_tensors,
    load_tensors,
    optimizer_tensors,
    save_tensors,
    with_prefix,
    without_prefix,
)
from benchmark.scenes.judging import judge
from benchmark.scenes.models import (
    RESOLUTION,
    WEIGHTS,
    Referee,
    build_clip,
    build_image_processor,
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
    to_input,
)
from benchmark.scenes.palette import SEG_CLASSES
from benchmark.scenes.pool import Pool, load_pool
from benchmark.scenes.tokenizer import build_tokenizer

HELD_OUT = 1024
EMA_DECAY = 0.999
PROMPT_DROP = 0.1
CHECKPOINT_SECONDS = 60


@dataclass(frozen=True)
class Stage:
    """How long and how fast one model is trained; `images` counts images seen, not distinct ones."""

    name: str
    images: int
    batch: int
    learning_rate: float


STAGES = {
    stage.name: stage
    for stage in (
        Stage("vae", images=64_000, batch=16, learning_rate=1e-3),
        Stage("referee", images=40_000, batch=32, learning_rate=2e-3),
        Stage("clip", images=160_000, batch=256, learning_rate=1e-3),
        Stage("unet", images=224_000, batch=64, learning_rate=8e-4),
    )
}

Loss = Callable[["Tensor", int], Tensor]


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: 100 steps up, level, straight down over the last 40 %."""
    return min((step + 1) / 100, 1.0, (steps - step) / (0.4 * steps))


def fit(stage: Stage, model: nn.Module, loss: Loss, pool_size: int, work: Path) -> nn.Module:
    """Train a model on `loss(indices, step)` and return its exponential moving average; resumes from `work`."""
    steps, path = stage.images // stage.batch, work / f"{stage.name}.safetensors"
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, weight_decay=1e-2, fused=True)
    first, seconds = _restore(path, model, average, optimizer)
    log = (work / f"{stage.name}.jsonl").open("a")
    with progress(steps, f"train {stage.name}", "updates", done=first) as bar:
        started = saved = time.monotonic()
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * rate(step, steps)
            value = loss(_indices(stage, step, pool_size), step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            _follow(average, model, min(EMA_DECAY, (step + 1) / (step + 10)))
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{value.item():.4f}")
                print(json.dumps({"step": step, "loss": value.item()}), file=log, flush=True)
            if time.monotonic() - saved > CHECKPOINT_SECONDS or step == steps - 1:
                saved = time.monotonic()
                spent = seconds + saved - started
                _save(path, model, average, optimizer, step + 1, spent)
    return average.eval()


def _indices(stage: Stage, step: int, pool_size: int) -> Tensor:
    """Return the pool rows of a batch: a new permutation every epoch, a pure function of the step."""
    per_epoch = pool_size // stage.batch
    epoch, position = divmod(step, per_epoch)
    order = Stream(0, f"pretrain-{stage.name}", epoch).permutation(pool_size)
    return torch.from_numpy(order[position * stage.batch : (position + 1) * stage.batch])


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def _save(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    tensors = with_prefix("model", model.state_dict()) | with_prefix("average", average.state_dict())
    save_tensors(path, tensors | optimizer_tensors(optimizer), {"step": str(step), "seconds": f"{seconds:.0f}"})


def _restore(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    tensors, metadata = load_tensors(path)
    model.load_state_dict(without_prefix("model", tensors))
    average.load_state_dict(without_prefix("average", tensors))
    load_optimizer_tensors(optimizer, tensors)
    return int(metadata["step"]), float(metadata["seconds"])


def train_vae(pool: Pool, held_out: Pool, work: Path, out: Path) -> dict[str, float]:
    """Train the autoencoder (absolute and squared error, a trace of KL) and return its held-out PSNR in dB."""
    vae = build_vae()

    def loss(indices: Tensor, step: int) -> Tensor:
        images = to_input(pool.images[indices.numpy()])
        posterior = vae.encode(images).latent_dist
        error = vae.decode(posterior.sample()).sample - images
        value: Tensor = error.abs().mean() + 2.0 * error.square().mean() + 1e-6 * posterior.kl().mean()
        return value

    average = fit(STAGES["vae"], vae, loss, len(pool.images), work)
    assert isinstance(average, AutoencoderKL)
    with torch.no_grad():
        sample = torch.cat([average.encode(to_input(part)).latent_dist.mean for part in _parts(held_out.images)])
        average.register_to_config(scaling_factor=float(1.0 / sample.std()))
        restored = torch.cat([average.decode(part).sample for part in torch.split(sample, 64)])
    average.half().save_pretrained(out / "scenes-tiny" / "vae")
    error = (restored.clamp(-1, 1) - to_input(held_out.images)).square().mean(dim=(1, 2, 3)) / 4
    return {"psnr_db": float((-10 * error.log10()).mean())}


def train_referee(pool: Pool, held_out: Pool, work: Path, out: Path) -> dict[str, float]:
    """Train the segmentation referee and return its held-out mIoU and pixel accuracy."""
    referee = Referee()

    def loss(indices: Tensor, step: int) -> Tensor:
        rows = indices.numpy()
        images = _jitter(to_input(pool.images[rows]), Stream(0, "referee-jitter", step))
        truth = torch.from_numpy(pool.seg[rows]).long()
        value: Tensor = functional.cross_entropy(referee(images), truth)
        return value

    average = fit(STAGES["referee"], referee, loss, len(pool.images), work)
    assert isinstance(average, Referee)
    save_tensors(out / "referee" / "model.safetensors", average.state_dict())
    with torch.no_grad():
        predicted = torch.cat([average(to_input(part)).argmax(dim=1) for part in _parts(held_out.images)])
    counts = torch.bincount(torch.from_numpy(held_out.seg).long().flatten() * len(SEG_CLASSES) + predicted.flatten())
    confusion = counts.reshape(len(SEG_CLASSES), -1).double()
    hits = confusion.diag()
    return {
        "miou": float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean()),
        "pixel_accuracy": float(hits.sum() / confusion.sum()),
    }


def _jitter(images: Tensor, stream: Stream) -> Tensor:
    """Blur, shift in tone and add noise at random: a referee must also read generated images."""
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.from_numpy(stream.uniform(len(images))).float().view(-1, 1, 1, 1)
    gain, shift, noise = (torch.from_numpy(stream.uniform(len(images))).float().view(-1, 1, 1, 1) for _ in range(3))
    mixed = torch.lerp(images, blurred, share) * (0.85 + 0.3 * gain) + 0.2 * (shift - 0.5)
    return mixed + 0.08 * noise * torch.from_numpy(stream.normal(tuple(images.shape)))


def train_clip(pool: Pool, held_out: Pool, work: Path, out: Path) -> dict[str, float]:
    """Train the CLIP of the CLIP score and return recall@1 among 256 held-out pairs with distinct captions."""
    tokenizer = build_tokenizer()
    clip = build_clip(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    tokens = _tokens(pool.captions)

    def loss(indices: Tensor, step: int) -> Tensor:
        images = to_input(pool.images[indices.numpy()])
        output = clip(input_ids=tokens[indices], pixel_values=images, return_loss=True)
        value: Tensor = output.loss
        return value

    average = fit(STAGES["clip"], clip, loss, len(pool.images), work)
    assert isinstance(average, CLIPModel)
    save_half(average, out / "clip")
    tokenizer.save_pretrained(out / "clip")
    build_image_processor().save_pretrained(out / "clip")
    rows = sorted({caption: i for i, caption in enumerate(held_out.captions)}.values())[:256]
    with torch.no_grad():
        texts = _tokens([held_out.captions[i] for i in rows])
        logits = average.float()(input_ids=texts, pixel_values=to_input(held_out.images[rows])).logits_per_image
    return {"recall_at_1": float((logits.argmax(dim=1) == torch.arange(len(rows))).float().mean())}


class TextToImage(nn.Module):
    """The denoiser and its text encoder, trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict v (B, 8, 16, 16) from noisy latents, timesteps (B,) and token ids (B, 32)."""
        states = self.text_encoder(tokens).last_hidden_state
        prediction: Tensor = self.unet(latents, timesteps, states).sample
        return prediction


def train_unet(pool: Pool, held_out: Pool, work: Path, out: Path) -> dict[str, float]:
    """Train the denoiser on cached latents; return its held-out loss and how often the referee sees what is named."""
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    vae = AutoencoderKL.from_pretrained(out / "scenes-tiny" / "vae", torch_dtype=torch.float32).eval()
    text_encoder = build_text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    model = TextToImage(build_unet(), text_encoder).to(memory_format=torch.channels_last)
    tokens, empty = _tokens(pool.captions), _tokens([""])[0]
    mean, std = _moments(vae, pool.images, work / "moments.safetensors")

    def loss_on(m: nn.Module, mean: Tensor, std: Tensor, tokens: Tensor, stream: Stream) -> Tensor:
        shape = tuple(mean.shape)
        latents = (mean.float() + std.float() * torch.from_numpy(stream.normal(shape))) * vae.config.scaling_factor
        noise = torch.from_numpy(stream.normal(shape))
        timesteps = torch.from_numpy((stream.raw(len(mean)) % 1000).astype(np.int64))
        dropped = torch.from_numpy(stream.uniform(len(mean)) < PROMPT_DROP)
        tokens = torch.where(dropped[:, None], empty, tokens)
        noisy = scheduler.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last)
        return functional.mse_loss(m(noisy, timesteps, tokens), scheduler.get_velocity(latents, noise, timesteps))

    def loss(indices: Tensor, step: int) -> Tensor:
        return loss_on(model, mean[indices], std[indices], tokens[indices], Stream(0, "unet-noise", step))

    average = fit(STAGES["unet"], model, loss, len(pool.images), work)
    assert isinstance(average, TextToImage)
    base = out / "scenes-tiny"
    held_mean, held_std = _moments(vae, held_out.images, work / "held-out-moments.safetensors")
    with torch.no_grad():
        value = loss_on(average, held_mean, held_std, _tokens(held_out.captions), Stream(0, "held-out", 0)).item()
    export_base(average, base)
    return {"held_out_loss": value, **judge(load_base(str(base)), held_out)}


def export_base(average: TextToImage, base: Path) -> None:
    """Write denoiser, text encoder, tokenizer and scheduler beside the autoencoder as a diffusers pipeline folder."""
    average.unet.half().save_pretrained(base / "unet")
    save_half(average.text_encoder, base / "text_encoder")
    build_tokenizer().save_pretrained(base / "tokenizer")
    build_scheduler().save_pretrained(base / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    replace_file(base / "model_index.json", pretty_json(index))


def save_half(model: PreTrainedModel, folder: Path) -> None:
    """Save a transformers model in half precision, with a config that says it is to be used in single precision."""
    model.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    replace_file(folder / "config.json", pretty_json({**config, "dtype": "float32"}))


def _moments(vae: AutoencoderKL, images: np.ndarray, path: Path) -> tuple[Tensor, Tensor]:
    """Return the posterior mean and deviation (N, 8, 16, 16, half) of images, computed once."""
    if not path.exists():
        moments = []
        with torch.no_grad(), progress(len(images), "encode", "images") as bar:
            for part in _parts(images):
                posterior = vae.encode(to_input(part)).latent_dist
                moments.append(torch.stack([posterior.mean, posterior.std]).half())
                bar.update(len(part))
        mean, std = torch.cat(moments, dim=1)
        save_tensors(path, {"mean": mean, "std": std})
    tensors, _ = load_tensors(path)
    return tensors["mean"], tensors["std"]


def _tokens(captions: list[str]) -> Tensor:
    encoded = build_tokenizer()(captions, padding="max_length", truncation=True, return_tensors="pt")
    tokens: Tensor = encoded.input_ids
    return tokens


def _parts(images: np.ndarray, size: int = 64) -> list[np.ndarray]:
    return [images[i : i + size] for i in range(0, len(images), size)]


TRAINERS = {"vae": train_vae, "referee": train_referee, "clip": train_clip, "unet": train_unet}


def run_stage(name: str, work: Path, out: Path, pool_size: int) -> None:
    """Train one model and write its card: seeds, images seen, hardware, seconds, held-out scores."""
    pool = load_pool(work, "pretrain", pool_size, RESOLUTION)
    held_out = load_pool(work, "pretrain_test", HELD_OUT, RESOLUTION)
    torch.manual_seed(0)
    scores = TRAINERS[name](pool, held_out, work, out)
    _, metadata = load_tensors(work / f"{name}.safetensors")
    stage = STAGES[name]
    card = {
        "command": f"python -m benchmark.scenes.pretrain --stage {name}",
        "images_seen": stage.images,
        "distinct_images": pool_size,
        "batch": stage.batch,
        "learning_rate": stage.learning_rate,
        "world_seed": 0,
        "seconds": int(metadata["seconds"]),
        "machine": machine(),
        "held_out_images": HELD_OUT,
        "held_out_scores": scores,
    }
    replace_file(out / "cards" / f"{name}.json", pretty_json(card))
    say(f"{name}: {scores}")


def main(argv: list[str] | None = None) -> int:
    """Parse arguments and run the stages asked for, in order."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.scenes.pretrain", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="checkpoints and rendered pool")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go (default: the package)")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--pool-size", type=int, default=40_000, help="distinct images (default: 40000)")
    arguments = parser.parse_args(argv)
    for name in STAGES if arguments.stage == "all" else [arguments.stage]:
        run_stage(name, arguments.work, arguments.out, arguments.pool_size)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
