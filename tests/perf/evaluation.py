"""What an evaluation takes: `python tests/perf/evaluation.py [distance] [drawing] [scoring]`, by default all three.

distance  The Frechet distance at 2,048 dimensions against the one made with scipy's matrix square root; aim 8 times as
          fast, equal to 1e-6.
drawing   Images against diffusers' own pipeline at the same settings; aim at least as fast, pixels equal but for 1.
scoring   Drawing 1,000 scenes (`--tier quick`) and scoring them, as commands; aims 9 and 3 minutes on 2 cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from scipy.linalg import sqrtm

from benchmark import registry
from benchmark.base.provenance import machine
from benchmark.contracts.plugins import Method
from benchmark.engine.bases import BUNDLED, load_base
from benchmark.engine.diffusion import Sampling, draw, initial_latents
from benchmark.numbers.frechet import Gaussian, frechet_distance

DIMENSIONS, IMAGES, ROUNDS, BATCH, SIDE = 2048, 10_000, 3, 32, 64
METRICS = ("fd", "kid", "cmmd", "clip_score", "clip_cosine", "diversity", "nearest")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def say_ratio(what: str, ours: list[float], theirs: list[float]) -> None:
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    middle = ratios[len(ratios) // 2]
    spread = f"{middle:.2f}x [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    print(f"{what}: {np.median(ours):.3g} s against {np.median(theirs):.3g} s, {spread}")


def distance() -> None:
    """Compare distances of features whose spectrum falls as that of Inception does."""
    generator = np.random.default_rng(0)
    scale = np.arange(1, DIMENSIONS + 1) ** -0.5
    sets = [generator.normal(size=(IMAGES, DIMENSIONS)) * scale + shift for shift in (0.0, 0.01)]
    mine, real = (Gaussian.fit(vectors) for vectors in sets)

    def theirs() -> float:
        root = sqrtm(mine.covariance @ real.covariance)
        shift = mine.mean - real.mean
        traces = np.trace(mine.covariance) + np.trace(real.covariance)
        return float(shift @ shift + traces - 2 * np.trace(root).real)

    def ours() -> float:
        return frechet_distance(mine, Gaussian(real.mean, real.covariance, real.n))  # its factor is made anew

    print(f"relative difference {abs(ours() / theirs() - 1):.1e}")
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    say_ratio(f"Frechet distance at {DIMENSIONS}", *map(list, zip(*pairs, strict=True)))


def drawing() -> None:
    """Compare images of random controls, so that what the ControlNet adds is seen."""
    base, method = load_base("scenes-tiny"), registry.make(Method, "controlnet,init=gaussian")
    settings, keys = Sampling(), [f"{i:04d}" for i in range(BATCH)]
    maps = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    prompts = [f"a small red cube and {i} large blue spheres" for i in range(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        method.save(method.build(base.unet, base.latent_scale), Path(folder))
        module = method.load(folder).eval()
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(
            BUNDLED["scenes-tiny"],
            controlnet=ControlNetModel.from_pretrained(folder),
            torch_dtype=torch.float32,
            safety_checker=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)

    def ours() -> np.ndarray:
        return draw(base, module, keys, prompts, maps, settings)

    def theirs() -> np.ndarray:
        images = pipeline(
            prompts,
            image=[Image.fromarray(map_) for map_ in maps],
            latents=initial_latents(base, SIDE, keys, settings.eval_seed),
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
        ).images
        return np.stack([np.asarray(image) for image in images])

    print(f"pixels differ by at most {np.abs(ours().astype(int) - theirs().astype(int)).max()} of 255")
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(2 * ROUNDS + 1)]
    say_ratio(f"{BATCH} images of {settings.num_inference_steps} steps", *map(list, zip(*pairs, strict=True)))


def scoring() -> None:
    """Time the commands; the ControlNet is hardly trained, which changes no time."""
    with tempfile.TemporaryDirectory() as folder:

        def run(command: str, *words: str) -> float:
            root = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
            line = [sys.executable, "-m", f"benchmark.{command}", *words]
            return seconds(lambda: subprocess.run(line, cwd=folder, check=True, env=root, stdout=subprocess.DEVNULL))

        run("build", "--cond", "seg", "--source", "scenes,test=1000", "--size", "500", "--out", "data")
        run("train", "--dataset", "data", "--cond", "seg", "--steps", "20", "--out", "run")
        drawn = run("generate", "--dataset", "data", "--run", "run", "--tier", "quick", "--out", "mine")
        alone = run("generate", "--dataset", "data", "--tier", "quick", "--out", "floor")
        metrics = [word for name in METRICS for word in ("--metric", name)]
        scored = run("evaluate", "--images", "mine", "--no-control", "floor", *metrics)
    print(f"1,000 scenes drawn with control in {drawn:.0f} s, without in {alone:.0f} s, scored in {scored:.0f} s")


if __name__ == "__main__":
    print(machine())
    for name in sys.argv[1:] or ["distance", "drawing", "scoring"]:
        {"distance": distance, "drawing": drawing, "scoring": scoring}[name]()
