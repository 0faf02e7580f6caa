"""How fast the scenes world makes pairs on one core: `python tests/perf/render_scenes.py [--count 300] [--rounds 5]`.

A pair is the scene, its caption and tags, the image and all its ground truth (segmentation, instances, depth, normals,
boundaries, segments, keypoints). `encoded` adds what a build stores of it: the image and seven maps as PNG. Prints the
median over rounds, with the lowest and the highest.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmark import registry
from benchmark.base.images import encode_png
from benchmark.base.provenance import machine
from benchmark.contracts.plugins import Condition, Map
from benchmark.scenes.captions import tags
from benchmark.scenes.maps import CONDITIONS, exact
from benchmark.scenes.splits import example

RESOLUTIONS = (32, 64, 128, 256, 512)


def pairs_a_second(make: Callable[[int], None], count: int, rounds: int) -> tuple[float, float, float]:
    """Return median, lowest and highest rate over rounds of `count` pairs; processor time of this thread."""
    make(0)
    rates = []
    for chosen in range(rounds):
        started = time.thread_time()
        for i in range(chosen * count, (chosen + 1) * count):
            make(i)
        rates.append(count / (time.thread_time() - started))
    return float(np.median(rates)), min(rates), max(rates)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="pairs a round at 64 x 64; fewer at larger sizes")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    conditions = {name: registry.make(Condition, name) for name in CONDITIONS}
    print(f"{machine()}, one thread; pairs a second: median [lowest, highest] of {arguments.rounds} rounds")
    for resolution in RESOLUTIONS:

        def rendered(i: int, resolution: int = resolution) -> None:
            tags(example(0, "train", i, resolution).scene)

        def encoded(i: int, resolution: int = resolution) -> None:
            made = example(0, "train", i, resolution)
            tags(made.scene)
            encode_png(made.render.image)
            for name, condition in conditions.items():
                condition.encode(Map(exact(made.render, name)))

        count = max(10, arguments.count * 64**2 // max(resolution, 64) ** 2)
        for name, make in (("pair", rendered), ("encoded", encoded)):
            median, low, high = pairs_a_second(make, count, arguments.rounds)
            print(f"{resolution:>4} px  {name:<8} {median:7.1f} [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    main()
