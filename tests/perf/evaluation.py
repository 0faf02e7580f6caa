"""What an evaluation takes: `python tests/perf/evaluation.py [distance] [features] [drawing] [scoring]`, or all.

distance  The Frechet distance at 2,048 dimensions against the one made with scipy's matrix square root; aim 8 times as
          fast, equal to 1e-6.
features  FD of vectors of 2,048 numbers kept on disk, 10,000 and 100,000 of them: time and peak memory, aim the same.
drawing   Images against diffusers' own pipeline at the same settings; aim at least as fast, pixels equal but for 1.
scoring   Drawing 1,000 scenes (`--tier quick`) and scoring them, as commands, at first and when their vectors are kept;
          aims 9 and 3 minutes on 2 cores. Peak memory of scoring 100 and 1,000.
"""

import os
import resource
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
from benchmark.contracts.tables import Table
from benchmark.engine.bases import BUNDLED, load_base
from benchmark.engine.diffusion import Sampling, draw, initial_latents
from benchmark.engine.vectors import KeptVectors, VectorWriter
from benchmark.metrics.fd import Fd
from benchmark.numbers.frechet import Gaussian, frechet_distance
from benchmark.observation import PIECE

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


def kept_vectors(folder: Path, name: str, count: int) -> KeptVectors:
    """Keep vectors as an evaluation does, piece by piece."""
    scale = np.arange(1, DIMENSIONS + 1) ** -0.5
    writer = VectorWriter(folder / f"{name}.safetensors")
    for i in range(0, count, PIECE):
        drawn = np.random.default_rng([i, len(name)]).normal(size=(min(PIECE, count - i), DIMENSIONS))
        writer.add((drawn * scale).astype(np.float32))
    return writer.keep()


def grown(count: int) -> None:
    """Say what the FD of so many vectors takes, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        sets = [kept_vectors(Path(folder), name, count) for name in ("mine", "others")]
        tables = [Table(tuple(f"{i:07d}" for i in range(count)), {"scenes": vectors}) for vectors in sets]
        took = seconds(lambda: Fd().score(*tables))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count:,} vectors of {DIMENSIONS} numbers: FD with its interval in {took:.0f} s, peak {peak:.0f} MiB",
        flush=True,
    )


def features() -> None:
    """Compare few and many."""
    for count in (IMAGES, 10 * IMAGES):
        subprocess.run([sys.executable, __file__, f"grown:{count}"], check=True)


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

        def peak(command: str, *words: str) -> float:
            code = (
                f"import resource; from benchmark.{command} import main; assert main({list(words)}) == 0;"
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
            )
            root = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
            line = [sys.executable, "-c", code]
            done = subprocess.run(line, cwd=folder, check=True, env=root, stdout=subprocess.PIPE, text=True)
            return float(done.stdout.split()[-1])

        run("build", "--cond", "seg", "--source", "scenes,test=1000", "--size", "500", "--out", "data")
        run("train", "--dataset", "data", "--cond", "seg", "--steps", "20", "--out", "run")
        drawn = run("generate", "--dataset", "data", "--run", "run", "--tier", "quick", "--out", "mine")
        alone = run("generate", "--dataset", "data", "--tier", "quick", "--out", "floor")
        metrics = [word for name in METRICS for word in ("--metric", name)]
        words = ("--images", "mine", "--no-control", "floor", *metrics)
        scored, again = (run("evaluate", *words, "--results", name) for name in ("results", "again"))
        few = ("--dataset", "data", "--limit", "100", "--num-inference-steps", "2")
        run("generate", *few, "--run", "run", "--out", "few")
        run("generate", *few, "--out", "few-alone")
        peaks = [
            peak("evaluate", "--images", images, "--no-control", floor, *metrics, "--results", "peak")
            for images, floor in (("few", "few-alone"), ("mine", "floor"))
        ]
    print(f"1,000 scenes drawn with control in {drawn:.0f} s, without in {alone:.0f} s")
    print(f"scored in {scored:.0f} s, again with their vectors kept in {again:.0f} s")
    print(f"peak of scoring 100: {peaks[0]:.0f} MiB, 1,000: {peaks[1]:.0f} MiB")


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("grown:"):
        grown(int(sys.argv[1].partition(":")[2]))
        raise SystemExit
    print(machine(), flush=True)
    parts = {"distance": distance, "features": features, "drawing": drawing, "scoring": scoring}
    for name in sys.argv[1:] or parts:
        parts[name]()
