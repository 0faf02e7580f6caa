"""What a ControlNet adds to a step: `python tests/perf/step_cost.py [--base sd15-quarter --side 32 --batch 4]`.

On a GPU, at the size of Stable Diffusion 1.5: `... --base sd15 --side 64 --batch 8 --mixed-precision bf16`.

The paper says of training (arXiv 2302.05543, section 3.2): about 34 % more time and 23 % more memory an iteration than
Stable Diffusion without ControlNet, on one A100, batch and precision not given. Without ControlNet what is done? Four
kinds of step are measured, each in processes of its own, in turns, at the same batch and precision, and the ratios that
the sentence could mean are set beside it. Images and prompts are encoded already: that would add as much to each.

Memory on a CPU is the peak of the process above its peak after the imports, on a GPU what torch has allocated at most.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from benchmark.base.provenance import machine
from benchmark.engine.bases import BUNDLED
from benchmark.engine.precision import mixed_precision
from benchmark.engine.pretrained import choose_device
from benchmark.methods.controlnet import Control, Controlnet
from tests.small_bases import TOKENS, write_base

KINDS = {
    "control": "step that trains a ControlNet",
    "whole": "step that trains the whole base",
    "drawn": "forward pass of base and ControlNet",
    "alone": "forward pass of the base",
}
READINGS = [("control", "whole"), ("control", "alone"), ("drawn", "alone")]
SD15 = {"sd15": 1, "sd15-quarter": 4}  # what its widths are divided by
CLAIM = {"seconds": 1.34, "bytes": 1.23}
NEAR = 0.1


def measure(kind: str, asked: argparse.Namespace) -> dict[str, float]:
    """Return median seconds of a step and peak bytes of this process for one kind of step."""
    device, floor = choose_device(None), most_held()
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(asked.folder, subfolder="unet").to(device).requires_grad_(False)
    control = Controlnet().build(unet, asked.latent_scale).to(device) if kind in ("control", "drawn") else None
    trained = {"control": control, "whole": unet}.get(kind)
    step = make_step(unet, control, trained, asked, device)
    seconds = []
    for _ in range(asked.warm + asked.steps):
        started = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    held = torch.cuda.max_memory_allocated() if device == "cuda" else most_held() - floor
    return {"seconds": statistics.median(seconds[asked.warm :]), "bytes": float(held)}


def most_held() -> int:
    """Return the most bytes of memory that this process has held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in kilobytes


def make_step(
    unet: UNet2DConditionModel,
    control: Control | None,
    trained: nn.Module | None,
    asked: argparse.Namespace,
    device: str,
) -> Callable[[], None]:
    """Return a function that makes one step on random inputs: an update of what is trained, else a forward pass."""
    channels, pixels = unet.config.in_channels, asked.side * asked.latent_scale
    latents, target = torch.randn(2, asked.batch, channels, asked.side, asked.side, device=device)
    timesteps = torch.randint(0, 1000, (asked.batch,), device=device)
    text = torch.randn(asked.batch, TOKENS, unet.config.cross_attention_dim, device=device)
    image = torch.rand(asked.batch, 3, pixels, pixels, device=device)
    models = [unet, *([control] if control else [])]
    optimizer = torch.optim.AdamW(trained.train().requires_grad_(True).parameters(), lr=1e-5) if trained else None

    def predict() -> Tensor:
        added: dict[str, Any] = {}
        if control is not None:
            residuals = control(latents, timesteps, text, image)
            added = {
                "down_block_additional_residuals": residuals.down,
                "mid_block_additional_residual": residuals.middle,
            }
        prediction: Tensor = unet(latents, timesteps, text, return_dict=False, **added)[0]
        return prediction

    def step() -> None:
        with torch.no_grad() if optimizer is None else nullcontext(), mixed_precision(asked.mixed_precision, *models):
            prediction = predict()
        if optimizer is not None:
            functional.mse_loss(prediction.float(), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    return step


def in_a_process(kind: str, folder: str, latent_scale: int) -> dict[str, float]:
    """Return what `measure` gives in a process of its own."""
    own = ["--kind", kind, "--folder", folder, "--latent-scale", str(latent_scale)]
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], *own], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def options() -> argparse.Namespace:
    """Return what was asked for; the last four are for processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="scenes-tiny", help="scenes-tiny, sd15, sd15-quarter, or a diffusers folder")
    parser.add_argument("--side", type=int, default=16, help="of the latents")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--steps", type=int, default=8, help="timed in a round")
    parser.add_argument("--warm", type=int, default=2, help="not timed before them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--latent-scale", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def spread(values: Sequence[float]) -> str:
    """Return median, lowest and highest in words."""
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def report(found: dict[str, list[dict[str, float]]], rounds: int) -> None:
    """Print what each kind of step takes, and which reading of the claim its ratio bears out."""
    print(f"median [lowest, highest] of {rounds} rounds in turns")
    for kind, words in KINDS.items():
        seconds, megabytes = [one["seconds"] for one in found[kind]], [one["bytes"] / 1e6 for one in found[kind]]
        print(f"  {words:<36} {spread(seconds)} s, {spread(megabytes)} MB")
    for quantity, claimed in CLAIM.items():
        print(f"{quantity}: claimed {claimed - 1:+.0%}; a reading bears it if its ratio is within {NEAR} of {claimed}")
        for kind, other in READINGS:
            ratios = [a[quantity] / b[quantity] for a, b in zip(found[kind], found[other], strict=True)]
            word = "bears it" if abs(statistics.median(ratios) - claimed) <= NEAR else "does not"
            print(f"  {KINDS[kind]} over {KINDS[other]}: {spread(ratios)}: {word}")


def main() -> None:
    """Measure all kinds in turns; as a process of its own, one kind."""
    asked = options()
    if asked.kind is not None:
        print(json.dumps(measure(asked.kind, asked)))
        return
    print(f"{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {asked}")
    with tempfile.TemporaryDirectory() as scratch:
        divisor = SD15.get(asked.base)
        folder = str(write_base("sd15", Path(scratch), divisor) if divisor else BUNDLED.get(asked.base, asked.base))
        scale = 4 if asked.base in BUNDLED else 8
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(asked.rounds):
            for kind in KINDS:
                found[kind].append(in_a_process(kind, folder, scale))
    report(found, asked.rounds)


if __name__ == "__main__":
    main()
