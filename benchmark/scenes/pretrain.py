"""Make the bundled models from nothing: `python -m benchmark.scenes.pretrain --work DIR [--stage vae]`.

Stages: vae, referee, clip, unet (needs vae and referee). Each resumes from its last checkpoint and leaves its weights
in the Hugging Face layout in half precision, with a card of its seeds, images seen, hardware, time, held-out scores.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UniPCMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTextModel, PreTrainedModel

from benchmark.base.console import progress, say
from benchmark.base.errors import UserError
from benchmark.base.files import pretty_json, replace_file
from benchmark.base.provenance import machine
from benchmark.base.seeds import Stream
from benchmark.engine.bases import load_base
from benchmark.engine.checkpoints import load_tensors, save_tensors
from benchmark.engine.precision import mixed_precision
from benchmark.engine.pretrained import choose_device
from benchmark.scenes.fitting import Stage, fit, go_on
from benchmark.scenes.judging import judge, named_objects
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
    load_referee,
    to_input,
)
from benchmark.scenes.pool import Pool, Truth, load_pool
from benchmark.scenes.reading import held_out_scores
from benchmark.scenes.tokenizer import build_tokenizer

HELD_OUT = 4000
LATENT_DEVIATION = 1.4  # above 1: small latents say little twice, and noise hides more of them
PROMPT_DROP = 0.1

STAGES = {
    stage.name: stage
    for stage in (
        Stage("vae", rounds=(64_000, 64_000, 64_000), batch=16, learning_rate=1e-3),
        Stage("referee", rounds=(96_000, 96_000), batch=32, learning_rate=2e-3),
        Stage("clip", rounds=(128_000,), batch=256, learning_rate=1e-3),
        Stage("unet", rounds=(256_000, 256_000, 160_000, 256_000), batch=64, learning_rate=8e-4),
    )
}


def train_vae(pool: Pool, held_out: Pool, work: Path, out: Path, device: str) -> dict[str, float]:
    """Train the autoencoder (absolute and squared error, a trace of KL) and return its held-out PSNR in dB.

    The last round trains the decoder alone, so that a denoiser trained on the latents of the round before stays valid.
    """
    vae, stage = build_vae().to(device), STAGES["vae"]

    def loss(indices: Tensor, step: int) -> Tensor:
        images = to_input(pool.images[indices.numpy()]).to(device)
        with mixed_precision("bf16", vae):
            with torch.set_grad_enabled(stage.round(step) < len(stage.rounds) - 1):
                posterior = vae.encode(images).latent_dist
            noise = torch.Generator().manual_seed(step)
            error = vae.decode(posterior.sample(noise)).sample.float() - images
        value: Tensor = error.abs().mean() + 2.0 * error.square().mean() + 1e-6 * posterior.kl().float().mean()
        return value

    average = fit(stage, vae, loss, len(pool.images), work)
    assert isinstance(average, AutoencoderKL)
    with torch.no_grad():
        sample = torch.cat([average.encode(to_input(part)).latent_dist.mean for part in _parts(held_out.images)])
        average.register_to_config(scaling_factor=float(LATENT_DEVIATION / sample.std()))
        restored = torch.cat([average.decode(part).sample for part in torch.split(sample, 64)])
    average.half().save_pretrained(out / "scenes-tiny" / "vae")
    error = (restored.clamp(-1, 1) - to_input(held_out.images)).square().mean(dim=(1, 2, 3)) / 4
    return {"psnr_db": float((-10 * error.log10()).mean())}


def train_referee(pool: Pool, held_out: Pool, work: Path, out: Path, device: str) -> dict[str, float]:
    """Train the referee on all truth at once and return its held-out scores (`reading.held_out_scores`)."""
    referee = Referee().to(device).to(memory_format=torch.channels_last)

    def loss(indices: Tensor, step: int) -> Tensor:
        rows = indices.numpy()
        images = _jitter(to_input(pool.images[rows]), Stream(0, "referee-jitter", step)).to(device)
        with mixed_precision("bf16", referee):
            heads = referee.raw(images.contiguous(memory_format=torch.channels_last))
        return referee_loss(tuple(head.float() for head in heads), pool.truth, rows)

    average = fit(STAGES["referee"], referee, loss, len(pool.images), work)
    assert isinstance(average, Referee)
    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in average.state_dict().items()
    }
    save_tensors(out / "referee" / "model.safetensors", tensors)
    return held_out_scores(load_referee(out / "referee" / "model.safetensors"), held_out)


def referee_loss(heads: tuple[Tensor, ...], truth: Truth, rows: NDArray[np.int64]) -> Tensor:
    """Return the weighted sum of the heads' losses for rows of a pool.

    Cross entropy for classes, the absolute error of log depth, one minus the cosine of normals, binary cross entropy
    for boundaries, lines and keypoints; a keypoint's target is a bump of one pixel, weighted against the empty rest.
    """
    seg, colour, log_depth, normal, boundary, lines, joints = heads

    def on(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array[rows]).to(seg.device)

    direction = on(truth.normal).float().permute(0, 3, 1, 2) / 127
    bumps = keypoint_bumps(on(truth.keypoints).float(), joints.shape[-1])
    binary = functional.binary_cross_entropy_with_logits
    value: Tensor = (
        functional.cross_entropy(seg, on(truth.seg).long())
        + 0.5 * functional.cross_entropy(colour, on(truth.colour).long())
        + 4.0 * (log_depth[:, 0] - on(truth.depth).float().log()).abs().mean()
        + (1 - functional.cosine_similarity(normal, direction, dim=1)).mean()
        + 0.5 * binary(boundary[:, 0], on(truth.boundary).float() / 255)
        + 0.5 * binary(lines[:, 0], on(truth.lines).float() / 255)
        + 30.0 * binary(joints, bumps, weight=1 + 4 * bumps)
    )
    return value


def keypoint_bumps(keypoints: Tensor, side: int, deviation: float = 1.0) -> Tensor:
    """Return (B, 18, side, side): for each kind of joint, a Gaussian bump at each seen one of (B, P, 18, 3)."""
    centres = torch.arange(side, device=keypoints.device) + 0.5
    x, y = (torch.exp(-((centres - keypoints[..., i, None]) ** 2) / (2 * deviation**2)) for i in (0, 1))
    seen = (keypoints[..., 2] == 2).float()
    bumps: Tensor = torch.einsum("bpk,bpky,bpkx->bpkyx", seen, y, x).amax(dim=1)
    return bumps


def _jitter(images: Tensor, stream: Stream) -> Tensor:
    """Blur, shift in tone and add noise at random: a referee must also read generated images."""
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.from_numpy(stream.uniform(len(images))).float().view(-1, 1, 1, 1)
    gain, shift, noise = (torch.from_numpy(stream.uniform(len(images))).float().view(-1, 1, 1, 1) for _ in range(3))
    mixed = torch.lerp(images, blurred, share) * (0.85 + 0.3 * gain) + 0.2 * (shift - 0.5)
    return mixed + 0.08 * noise * torch.from_numpy(stream.normal(tuple(images.shape)))


def train_clip(pool: Pool, held_out: Pool, work: Path, out: Path, device: str) -> dict[str, float]:
    """Train the CLIP of the CLIP score and return recall@1 among 256 held-out pairs with distinct tags."""
    tokenizer = build_tokenizer()
    clip = build_clip(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(device)
    tokens = _tokens(pool.captions)

    def loss(indices: Tensor, step: int) -> Tensor:
        images = to_input(pool.images[indices.numpy()]).to(device)
        output = clip(input_ids=tokens[indices].to(device), pixel_values=images, return_loss=True)
        value: Tensor = output.loss
        return value

    average = fit(STAGES["clip"], clip, loss, len(pool.images), work)
    assert isinstance(average, CLIPModel)
    save_half(average, out / "clip")
    tokenizer.save_pretrained(out / "clip")
    build_image_processor().save_pretrained(out / "clip")
    rows = sorted({json.dumps(tag, sort_keys=True): i for i, tag in enumerate(held_out.tags)}.values())[:256]
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
        """Predict v (B, 4, 16, 16) from noisy latents, timesteps (B,) and token ids (B, 48)."""
        states = self.text_encoder(tokens).last_hidden_state
        prediction: Tensor = self.unet(latents, timesteps, states).sample
        return prediction


def train_unet(pool: Pool, held_out: Pool, work: Path, out: Path, device: str) -> dict[str, Any]:
    """Train the denoiser on cached latents; return its held-out loss and how often the referee sees what is named."""
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    vae = AutoencoderKL.from_pretrained(out / "scenes-tiny" / "vae", torch_dtype=torch.float32).eval()
    text_encoder = build_text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    model = TextToImage(build_unet(), text_encoder).to(device).to(memory_format=torch.channels_last)
    tokens, empty = _tokens(pool.captions), _tokens([""])[0]
    mean, std = _moments(vae.to(device), pool.images, work / "moments.safetensors")

    def loss_on(m: nn.Module, mean: Tensor, std: Tensor, tokens: Tensor, stream: Stream) -> Tensor:
        shape = tuple(mean.shape)
        latents = (mean.float() + std.float() * torch.from_numpy(stream.normal(shape))) * vae.config.scaling_factor
        noise = torch.from_numpy(stream.normal(shape))
        timesteps = torch.from_numpy((stream.raw(len(mean)) % 1000).astype(np.int64))
        dropped = torch.from_numpy(stream.uniform(len(mean)) < PROMPT_DROP)
        tokens = torch.where(dropped[:, None], empty, tokens)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = scheduler.get_velocity(latents, noise, timesteps)
        to = next(m.parameters()).device
        prediction = m(noisy.to(to, memory_format=torch.channels_last), timesteps.to(to), tokens.to(to))
        return functional.mse_loss(prediction.float(), target.to(to))

    def loss(indices: Tensor, step: int) -> Tensor:
        with mixed_precision("bf16", model):
            return loss_on(model, mean[indices], std[indices], tokens[indices], Stream(0, "unet-noise", step))

    base, referee = out / "scenes-tiny", load_referee(out / "referee" / "model.safetensors")

    def probe(average: nn.Module, images_seen: int) -> None:
        assert isinstance(average, TextToImage)
        export_base(copy.deepcopy(average), base)
        shares = named_objects(load_base(str(base)), referee, held_out, 200)
        with (work / "unet-curve.jsonl").open("a") as file:
            file.write(json.dumps({"images_seen": images_seen, **shares}) + "\n")

    average = fit(STAGES["unet"], model, loss, len(pool.images), work, probe)
    assert isinstance(average, TextToImage)
    held_mean, held_std = _moments(vae, held_out.images, work / "held-out-moments.safetensors")
    with torch.no_grad():
        value = loss_on(average, held_mean, held_std, _tokens(held_out.captions), Stream(0, "held-out", 0)).item()
    export_base(average, base)
    curve = [json.loads(line) for line in (work / "unet-curve.jsonl").read_text().splitlines()]
    return {"held_out_loss": value, **judge(load_base(str(base)), referee, held_out), "curve": curve}


def export_base(average: TextToImage, base: Path) -> None:
    """Write denoiser, text encoder, tokenizer and scheduler beside the autoencoder as a diffusers pipeline folder."""
    average.unet.half().save_pretrained(base / "unet")
    save_half(average.text_encoder, base / "text_encoder")
    build_tokenizer().save_pretrained(base / "tokenizer")
    UniPCMultistepScheduler.from_config(build_scheduler().config).save_pretrained(base / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
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
    """Return the posterior mean and deviation (N, 4, 16, 16, half) of images, computed once."""
    if not path.exists():
        moments = []
        with torch.no_grad(), progress(len(images), "encode", "images") as bar:
            for part in _parts(images):
                posterior = vae.encode(to_input(part).to(vae.device)).latent_dist
                moments.append(torch.stack([posterior.mean, posterior.std]).half().cpu())
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


def finished_model(name: str, out: Path) -> nn.Module:
    """Return a model as its stage left it in a weights folder, for one more round."""
    if name == "vae":
        vae: nn.Module = AutoencoderKL.from_pretrained(out / "scenes-tiny" / "vae")
        return vae
    if name == "referee":
        return load_referee(out / "referee" / "model.safetensors")
    if name == "clip":
        clip: nn.Module = CLIPModel.from_pretrained(out / "clip")
        return clip
    unet = UNet2DConditionModel.from_pretrained(out / "scenes-tiny" / "unet")
    return TextToImage(unet, CLIPTextModel.from_pretrained(out / "scenes-tiny" / "text_encoder"))


def begin_last_round(name: str, work: Path, out: Path) -> None:
    """Let a stage go on from the weights that one of a round less left in `out`; its card stays in the work folder.

    Raises:
        UserError: The card of these weights does not say that all rounds but one were trained.
    """
    stage, before = STAGES[name], work / f"{name}-before.json"
    if before.exists():
        return
    card = json.loads((out / "cards" / f"{name}.json").read_text())
    if card["rounds"] != len(stage.rounds) - 1:
        raise UserError(f"{name} in {out} had {card['rounds']} rounds of {len(stage.rounds)}; --go-on trains the last")
    go_on(stage, finished_model(name, out), work, card["seconds"])
    curve = card["held_out_scores"].get("curve", [])
    replace_file(work / f"{name}-curve.jsonl", "".join(json.dumps(row) + "\n" for row in curve).encode())
    kept = ("command", "rounds", "images_seen", "seconds", "machine")
    replace_file(before, pretty_json({key: card[key] for key in kept}))


def run_stage(name: str, work: Path, out: Path, pool_size: int, device: str) -> None:
    """Train one model and write its card: seeds, images seen, hardware, seconds, held-out scores."""
    pool = load_pool(work, "pretrain", pool_size, RESOLUTION)
    held_out = load_pool(work, "pretrain_test", HELD_OUT, RESOLUTION)
    torch.manual_seed(0)
    scores = TRAINERS[name](pool, held_out, work, out, device)
    _, metadata = load_tensors(work / f"{name}.safetensors")
    stage = STAGES[name]
    card = {
        "command": f"python -m benchmark.scenes.pretrain --stage {name}",
        "images_seen": stage.steps * stage.batch,
        "rounds": len(stage.rounds),
        "distinct_images": pool_size,
        "batch": stage.batch,
        "learning_rate": stage.learning_rate,
        "world_seed": 0,
        "seconds": int(metadata["seconds"]),
        "machine": machine(),
        "device": device,
        "held_out_images": HELD_OUT,
        "held_out_scores": scores,
    }
    if (before := work / f"{name}-before.json").exists():
        card |= {"command": f"{card['command']} --go-on", "before": json.loads(before.read_text())}
    replace_file(out / "cards" / f"{name}.json", pretty_json(card))
    say(f"{name}: {scores}")


def main(argv: list[str] | None = None) -> int:
    """Parse arguments and run the stages asked for, in order."""
    example = "example: python -m benchmark.scenes.pretrain --stage vae --work runs/pretrain --out runs/weights"
    parser = argparse.ArgumentParser(prog="python -m benchmark.scenes.pretrain", description=__doc__, epilog=example)
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="checkpoints and rendered pool")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go (default: the package)")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--go-on", action="store_true", help="only the last round, from the weights in --out")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--pool-size", type=int, default=60_000, help="distinct images (default: 60000)")
    arguments = parser.parse_args(argv)
    device = choose_device(arguments.device)
    for name in STAGES if arguments.stage == "all" else [arguments.stage]:
        if arguments.go_on:
            begin_last_round(name, arguments.work, arguments.out)
        run_stage(name, arguments.work, arguments.out, arguments.pool_size, device)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
