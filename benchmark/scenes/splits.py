"""Where in the world's endless index each split lies: disjoint by construction."""

from dataclasses import dataclass

from benchmark.scenes.captions import caption
from benchmark.scenes.render import Render, render
from benchmark.scenes.world import Scene, draw_scene

SPLIT_SPAN = 1 << 40
SPLITS = ("train", "val", "test", "pretrain", "pretrain_test")


@dataclass(frozen=True)
class Example:
    """Scene i of a split with its caption and picture."""

    scene: Scene
    caption: str
    render: Render


def example(seed: int, split: str, i: int, resolution: int) -> Example:
    """Return example i of a split: a pure function of its arguments."""
    index = SPLITS.index(split) * SPLIT_SPAN + i
    scene = draw_scene(seed, index)
    return Example(scene, caption(scene, seed, index), render(scene, resolution))
