"""Judge pictures by the bundled referee: is every object that a caption names there, with its kind and its colour?"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmark.base.console import progress
from benchmark.engine import diffusion
from benchmark.engine.bases import Base
from benchmark.engine.diffusion import Sampling
from benchmark.engine.latents import round_trip
from benchmark.numbers.frechet import Gaussian, frechet_distance
from benchmark.scenes.models import RESOLUTION, Referee, to_input
from benchmark.scenes.palette import COLOURS, KINDS
from benchmark.scenes.pool import Pool
from benchmark.scenes.reading import features, held_out_scores
from benchmark.scenes.render import FIRST_KIND

_BATCH = 50
_VISIBLE_PIXELS = 16  # of 64 x 64: half of the smallest objects that are not hidden


def draw(base: Base, captions: Sequence[str], settings: Sampling) -> NDArray[np.uint8]:
    """Return one image, uint8 (N, 64, 64, 3), for each caption, without control."""
    images = []
    with progress(len(captions), "draw", "images") as bar:
        for start in range(0, len(captions), _BATCH):
            texts = captions[start : start + _BATCH]
            keys = [str(i) for i in range(start, start + len(texts))]
            blank = np.zeros((len(texts), RESOLUTION, RESOLUTION, 3), np.uint8)
            images.append(diffusion.draw(base, None, keys, texts, blank, settings))
            bar.update(len(texts))
    return np.concatenate(images)


class Found(NamedTuple):
    """What the referee sees in one image of what its caption says; captions name every object.

    Attributes:
        named: Objects the caption names.
        by_kind: Of these, found with their kind.
        by_both: Of these, found with their kind and colour.
        unnamed_pixels: Pixels of objects whose kind the caption does not name.
        object_pixels: Pixels of objects.
    """

    named: int
    by_kind: int
    by_both: int
    unnamed_pixels: int
    object_pixels: int


@torch.inference_mode()
def objects_found(referee: Referee, images: NDArray[np.uint8], tags: Sequence[dict[str, Any]]) -> list[Found]:
    """Return what is seen of the named objects in each image.

    An object is found where a connected region of at least 16 pixels has its kind (and its colour); two alike need two.

    Args:
        referee: The network that reads the images.
        images: uint8 (N, 64, 64, 3).
        tags: N, as `captions.tags` gives them.
    """
    rows = []
    for start in range(0, len(images), _BATCH):
        reading = referee(to_input(np.asarray(images[start : start + _BATCH])))
        kinds, colours = reading.seg.argmax(dim=1).cpu().numpy(), reading.colour.argmax(dim=1).cpu().numpy()
        for kind, colour, truth in zip(kinds, colours, tags[start : start + _BATCH], strict=True):
            rows.append(_found(kind, colour, truth["things"]))
    return rows


def _found(kind: NDArray[np.int64], colour: NDArray[np.int64], things: list[dict[str, str]]) -> Found:
    names = list(COLOURS)
    by_kind = Counter(FIRST_KIND + KINDS.index(thing["kind"]) for thing in things)
    by_both = Counter((FIRST_KIND + KINDS.index(thing["kind"]), 1 + names.index(thing["colour"])) for thing in things)
    objects = kind >= FIRST_KIND
    return Found(
        named=len(things),
        by_kind=sum(min(wanted, _regions(kind == k)) for k, wanted in by_kind.items()),
        by_both=sum(min(wanted, _regions((kind == k) & (colour == c))) for (k, c), wanted in by_both.items()),
        unnamed_pixels=int((objects & ~np.isin(kind, list(by_kind))).sum()),
        object_pixels=int(objects.sum()),
    )


def _regions(mask: NDArray[np.bool_]) -> int:
    """Count the connected regions that are large enough to be an object."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return int((np.bincount(labels.ravel(), minlength=count + 1)[1:] >= _VISIBLE_PIXELS).sum())


def found_shares(rows: Sequence[Found]) -> dict[str, float]:
    """Return the share of named objects found, by the number a caption names, and of unnamed pixels (0 without any)."""
    table = np.array(rows)
    shares = {}
    for count in sorted(set(table[:, 0].tolist())):
        named, kind, both, *_ = table[table[:, 0] == count].sum(axis=0)
        shares[f"kind_{count}"] = round(float(kind / named), 4)
        shares[f"kind_and_colour_{count}"] = round(float(both / named), 4)
    unnamed, objects = table[:, 3:].sum(axis=0)
    return shares | {"unnamed_pixels": round(float(unnamed / max(objects, 1)), 4)}


def named_objects(base: Base, referee: Referee, held_out: Pool, count: int) -> dict[str, float]:
    """Return `found_shares` of what the base draws from the first so many captions of a pool."""
    some = held_out.first(count)
    return found_shares(objects_found(referee, draw(base, some.captions, Sampling()), some.tags))


def judge(base: Base, referee: Referee, held_out: Pool) -> dict[str, Any]:
    """Judge a base on the first half of a pool; the second half is the reference of the Frechet distances.

    `drawn` is what the base draws from the captions, `rendered` what the referee finds in the renders themselves: the
    most that `drawn` can reach. Frechet distances, in the referee's 64 dimensions, are to the second half: of the
    renders of the first half (`real`), of these after the autoencoder (`vae`), and of what the base draws from their
    captions (`base`). `referee_after_vae` has the referee's scores on the renders after the autoencoder: images it was
    not trained on, of the base's own kind, whose truth is exact.
    """
    half = len(held_out.captions) // 2
    renders = held_out.first(half)
    restored = round_trip(base, np.array(renders.images))
    images = draw(base, renders.captions, Sampling())
    reference = Gaussian.fit(features(referee, held_out.images[half:]))

    def distance(pictures: NDArray[np.uint8]) -> float:
        return frechet_distance(Gaussian.fit(features(referee, pictures)), reference)

    return {
        "drawn": found_shares(objects_found(referee, images, renders.tags)),
        "rendered": found_shares(objects_found(referee, renders.images, renders.tags)),
        "frechet": {"real": distance(renders.images), "vae": distance(restored), "base": distance(images)},
        "referee_after_vae": held_out_scores(referee, held_out.first(half, restored)),
    }
