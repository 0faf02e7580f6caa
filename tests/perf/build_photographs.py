"""How fast a build makes pairs of photographs, against what people write: `python tests/perf/build_photographs.py`.

Photographs that come with scikit-image and scikit-learn, cropped and enlarged, are built to 512 pixels with canny, from
JPEG of 1024 pixels (resized and encoded again) and of 512 (kept as they are). Pairs a second of processor time are
compared with `datasets.map` of a function of Pillow and controlnet-aux that stores (a) PNG, (a') the photograph as
JPEG, (a'') both as JPEG, and with (b) the parts alone: decode, resize, canny, encode, hash. All run in one process with
one thread, in turn, round after round, and a ratio is of one round. Then one process against two, in time on the wall:
whole, and without the start, from the first commit of each to the last. It wants a machine with nothing else to do.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark import build
from benchmark.annotators._hub import quiet
from benchmark.annotators.canny import Canny
from benchmark.base.files import sha256
from benchmark.base.images import Transform, decode_rgb, encode_bilevel_png, encode_jpeg
from benchmark.base.provenance import machine
from benchmark.contracts.splitting import HELD_OUT, PART
from benchmark.engine.shards import read_commit
from tests.conftest import _photographs

RESOLUTION, QUALITY = 512, 95
LEAST = 2 * HELD_OUT + 3 * PART
Work = Callable[[], object]


def make_photographs(folder: Path, count: int, side: int) -> list[Path]:
    """Write different squares of the photographs, each enlarged to a JPEG of so many pixels a side."""
    folder.mkdir()
    draws, sources = np.random.default_rng(side), _photographs()
    for i in range(count):
        photo = Image.fromarray(sources[i % len(sources)]).convert("RGB")
        crop = int(draws.integers(min(photo.size) // 2, min(photo.size)))
        left, top = (int(draws.integers(length - crop + 1)) for length in photo.size)
        square = photo.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + crop, top + crop))
        square.save(folder / f"{i:06d}.jpg", quality=QUALITY)
    return sorted(folder.iterdir())


def words(source: Path, out: Path, *more: str) -> list[str]:
    """Return the arguments of a build of all photographs."""
    given = ["--cond", "canny", "--source", f"folder:{source}", "--resolution", str(RESOLUTION), "--size", "1m"]
    return [*given, "--out", str(out), *more]


def built(source: Path, out: Path, *more: str) -> None:
    assert build.main(words(source, out, "--workers", "1", *more)) == 0


def mapped(source: Path, out: Path, image: str, map_: str) -> None:
    """Do what a straightforward script does; `image` and `map_` are the formats they are stored in."""
    with quiet():
        from controlnet_aux import CannyDetector
    detector = CannyDetector()

    def process(row: dict[str, Any]) -> dict[str, Any]:
        photo = row["image"].convert("RGB").resize((RESOLUTION, RESOLUTION))
        edges = detector(photo, detect_resolution=RESOLUTION, image_resolution=RESOLUTION)
        return {"image": encoded(photo, image), "conditioning_image": encoded(edges, map_)}

    data = datasets.load_dataset("imagefolder", data_dir=str(source), cache_dir=str(out / "cache"), split="train")
    features = datasets.Features({"image": datasets.Image(), "conditioning_image": datasets.Image()})
    data.map(process, features=features, cache_file_name=str(out / "mapped.arrow"))


def encoded(picture: Image.Image, kind: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return {"bytes": buffer.getvalue(), "path": None}


def seconds(work: Work) -> float:
    """Return the processor time of some work, in this process, all threads."""
    started = time.process_time()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        work()
    return time.process_time() - started


def parts(paths: Sequence[Path]) -> dict[str, float]:
    """Return the seconds of each step of a build, each done for all photographs by itself."""
    files, spent = [path.read_bytes() for path in paths], {}

    def step(name: str, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        started = time.process_time()
        results = [function(item) for item in items]
        spent[name] = time.process_time() - started
        return results

    pixels = step("decode", decode_rgb, files)
    transform = Transform(len(pixels[0]), len(pixels[0]), RESOLUTION)
    if not transform.is_identity:
        pixels = step("resize", transform.apply, pixels)
        files = step("encode", encode_jpeg, pixels)
        pixels = step("decode what is stored", decode_rgb, files)
    maps = [map_.array for map_ in step("canny", lambda image: Canny().annotate(image[None])[0], pixels)]
    coded = step("encode map", encode_bilevel_png, maps)
    step("hash", sha256, [*files, *coded])
    return spent


def shown(values: Sequence[float] | NDArray[np.float64]) -> str:
    return f"{np.median(values):7.2f} [{min(values):.2f}, {max(values):.2f}]"


def compare(source: Path, paths: Sequence[Path], rounds: int, folder: Path) -> None:
    """Print rates of all contestants, and by round what the build is to each."""
    rates: dict[str, list[float]] = {}
    works: dict[str, Callable[[Path], None]] = {
        "build": lambda out: built(source, out),
        "build --no-hygiene": lambda out: built(source, out, "--no-hygiene"),
        "(a)   map, PNG": lambda out: mapped(source, out, "PNG", "PNG"),
        "(a')  map, JPEG and PNG": lambda out: mapped(source, out, "JPEG", "PNG"),
        "(a'') map, JPEG": lambda out: mapped(source, out, "JPEG", "JPEG"),
    }
    steps: dict[str, list[float]] = {}
    for i in range(rounds + 1):
        for name, work in works.items():
            with tempfile.TemporaryDirectory(dir=folder) as out:
                spent = seconds(lambda work=work, out=out: work(Path(out) / "out"))  # type: ignore[misc]
            rates.setdefault(name, []).append(len(paths) / spent)
        alone = parts(paths)
        for name, spent in alone.items():
            steps.setdefault(name, []).append(1000 * spent / len(paths))
        once = sum(spent for name, spent in alone.items() if name != "decode what is stored")
        rates.setdefault("(b)   parts", []).append(len(paths) / once)
        if i == 0:  # the first round loads modules and fills caches
            rates.clear()
            steps.clear()
    for name, values in rates.items():
        ratios = {ours: np.divide(rates[ours], values) for ours in list(works)[:2]}
        told = "; ".join(f"{ours} is {shown(ratio)} of it" for ours, ratio in ratios.items() if ours != name)
        print(f"  {name:<24} {shown(values)} pairs a second; {told}")
    print("  ms a pair: " + ", ".join(f"{name} {np.median(values):.2f}" for name, values in steps.items()))


def scale(source: Path, rounds: int, folder: Path) -> None:
    """Print how much faster two processes are than one."""
    whole: dict[int, list[float]] = {1: [], 2: []}
    steady: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in whole:
            with tempfile.TemporaryDirectory(dir=folder) as out, redirect_stdout(io.StringIO()):
                started = time.monotonic()
                assert build.main(words(source, Path(out) / "out", "--no-hygiene", "--workers", str(workers))) == 0
                whole[workers].append(time.monotonic() - started)
                steady[workers].append(pace(Path(out) / "out", workers))
    print(f"  whole: two processes are {shown(np.divide(whole[1], whole[2]))} times as fast as one")
    print(f"  without the start: {shown(np.divide(steady[2], steady[1]))}")


def pace(folder: Path, workers: int) -> float:
    """Return the pairs a second from the first commit of each process to the last commit of all."""
    training = (folder / "commits").glob("train-*.json")
    commits = sorted((path.stat().st_mtime, read_commit(folder, path.stem).num_in) for path in training)
    return sum(count for _, count in commits[workers:]) / (commits[-1][0] - commits[workers - 1][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="photographs of each size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling-count", type=int, default=8000, help="photographs of 512 for one process or two")
    parser.add_argument("--scaling-rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.scaling_count <= LEAST:
        parser.error(f"--scaling-count has to be over {LEAST}, or two processes have no second shard each")
    cv2.setNumThreads(1)
    datasets.disable_progress_bars()
    print(f"{machine()}, one thread; median [lowest, highest] of {arguments.rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for side in (1024, RESOLUTION):
            paths = make_photographs(Path(folder) / str(side), arguments.count, side)
            size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
            print(f"{side} px JPEG, {len(paths)} of {size:.0f} kB:", flush=True)
            compare(paths[0].parent, paths, arguments.rounds, Path(folder))
        many = make_photographs(Path(folder) / "many", arguments.scaling_count, RESOLUTION)
        print(
            f"{len(many)} of {RESOLUTION} px by one process and by two, {arguments.scaling_rounds} rounds:", flush=True
        )
        scale(many[0].parent, arguments.scaling_rounds, Path(folder))


if __name__ == "__main__":
    main()
