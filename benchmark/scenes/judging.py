"""Judge the bundled base by the bundled referee: does it draw the kinds of solids that a caption names?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.base.console import progress
from benchmark.engine.bases import Base
from benchmark.engine.diffusion import Sampling, initial_latents, sample
from benchmark.engine.latents import to_uint8
from benchmark.scenes.models import RESOLUTION, load_referee, to_input
from benchmark.scenes.palette import KINDS
from benchmark.scenes.pool import Pool
from benchmark.scenes.render import FIRST_SOLID

_BATCH = 32
_VISIBLE_PIXELS = 25  # of 64 x 64: smaller than the smallest solid that is not hidden


def draw(base: Base, captions: Sequence[str], settings: Sampling) -> NDArray[np.uint8]:
    """Return one image, uint8 (N, 64, 64, 3), for each caption, without control."""
    images = []
    with progress(len(captions), "draw", "images") as bar:
        for start in range(0, len(captions), _BATCH):
            texts = captions[start : start + _BATCH]
            keys = [str(i) for i in range(start, start + len(texts))]
            latents = initial_latents(base, RESOLUTION, keys, settings.eval_seed)
            blank = torch.zeros(len(texts), 3, RESOLUTION, RESOLUTION)
            images.append(to_uint8(sample(base, None, latents, texts, blank, settings)))
            bar.update(len(texts))
    return np.concatenate(images)


@torch.inference_mode()
def kinds_seen(images: NDArray[np.uint8], tags: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the share of named kinds that the referee sees, by the number of solids a caption names."""
    referee = load_referee()
    shares: dict[int, list[float]] = {}
    for image, truth in zip(images, tags, strict=True):
        ids = referee(to_input(image[None])).argmax(dim=1)
        pixels = torch.bincount(ids.flatten(), minlength=FIRST_SOLID + len(KINDS))
        named = {FIRST_SOLID + KINDS.index(solid["kind"]) for solid in truth["solids"]}
        share = float(np.mean([bool(pixels[kind] >= _VISIBLE_PIXELS) for kind in named]))
        shares.setdefault(len(truth["solids"]), []).append(share)
    return {f"kinds_seen_{count}_solids": round(float(np.mean(row)), 3) for count, row in sorted(shares.items())}


def judge(base: Base, held_out: Pool) -> dict[str, float]:
    """Return `kinds_seen` for images the base draws from held-out captions (15 steps, guidance 4)."""
    return kinds_seen(draw(base, held_out.captions, Sampling()), held_out.tags)
