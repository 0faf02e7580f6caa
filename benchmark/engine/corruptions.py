"""Dirt in training data, on purpose: a view of clean pairs in which a share is spoilt, as in real data sets.

The authors of ControlNet name such faults in their own data (greyscale people duplicated thousands of times, wrong
prompts, low quality images: the README of ControlNet 1.1). Nothing on disk changes; which samples are hit is a function
of seed and key, so that a higher rate hits the same samples and more, whatever the subset. A damaged image keeps the
map of the clean one: the damage alone is measured, not what an annotator makes of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.images import blurred, recompressed
from benchmark.base.seeds import hash64

Places = NDArray[np.int64]
Image = NDArray[np.uint8]

JPEG_QUALITY = 10  # of libjpeg: below 50, hygiene calls it heavy
BLUR = 1 / 32  # standard deviation, as a share of the image's side: 2 pixels of 64, 16 of 512
# What befalls the image alone, in this order: a picture is out of focus before it is saved.
DAMAGES: dict[str, Callable[[Image], Image]] = {
    "blur": lambda image: blurred(image, BLUR * image.shape[0]),
    "jpeg": lambda image: recompressed(image, JPEG_QUALITY),
}


@dataclass(frozen=True)
class View:
    """From which clean sample each of N training samples takes its parts.

    Attributes:
        images: Places (N,) of the images.
        captions: Places (N,) of the captions.
        maps: Places (N,) of the condition maps.
        shifted: Whether (N,) the map lies beside its image.
        damaged: Whether (N, D) the image suffered each of `DAMAGES`, in their order.
    """

    images: Places
    captions: Places
    maps: Places
    shifted: NDArray[np.bool_]
    damaged: NDArray[np.bool_]

    @classmethod
    def clean(cls, count: int) -> "View":
        """Return the view in which every sample is its own."""
        own = np.arange(count)
        return cls(own, own, own, np.zeros(count, bool), np.zeros((count, len(DAMAGES)), bool))

    def by_damage(self) -> Iterator[tuple[tuple[str, ...], Places]]:
        """Yield the samples (n,) whose images suffered the same, with the names of what they suffered."""
        kinds, kind_of = np.unique(self.damaged, axis=0, return_inverse=True)
        for i, kind in enumerate(kinds):
            names = tuple(name for name, suffered in zip(DAMAGES, kind, strict=True) if suffered)
            yield names, np.flatnonzero(kind_of.ravel() == i)


def _donors(hit: NDArray[np.bool_], share: int) -> Places:
    """Return the place each sample takes from: the one such a share of the set away where it is hit, else its own.

    Captions and maps have shares of their own: of one donor they would fit each other.
    """
    own = np.arange(len(hit))
    return np.where(hit, (own + max(1, len(hit) // share)) % len(hit), own)


def _duplicated(view: View, hit: NDArray[np.bool_]) -> View:
    """Put the first sample that is hit in the place of all that are."""
    places = np.where(hit, int(np.argmax(hit)), np.arange(len(hit)))
    return View(*(getattr(view, field.name)[places] for field in fields(view)))


def _damaged(name: str) -> Callable[[View, NDArray[np.bool_]], View]:
    """Return the corruption that lets the images that are hit suffer one of `DAMAGES`."""
    suffers = np.array([name == other for other in DAMAGES])
    return lambda view, hit: replace(view, damaged=view.damaged | (hit[:, None] & suffers))


CORRUPTIONS: dict[str, Callable[[View, NDArray[np.bool_]], View]] = {
    "wrong_caption": lambda view, hit: replace(view, captions=view.captions[_donors(hit, 3)]),
    "foreign_map": lambda view, hit: replace(view, maps=view.maps[_donors(hit, 2)]),
    "shifted_map": lambda view, hit: replace(view, shifted=view.shifted | hit),
    "duplicate": _duplicated,
    **{name: _damaged(name) for name in DAMAGES},
}


def parse(text: str) -> tuple[str, float]:
    """Return name and rate of a corruption as it is written, ``wrong_caption=0.2``.

    Raises:
        UserError: No such corruption, or a rate that is no share.
    """
    name, _, number = text.partition("=")
    if name not in CORRUPTIONS:
        raise UserError(f'no corruption "{name}"; {did_you_mean(name, CORRUPTIONS)}')
    try:
        rate = float(number)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise UserError(f'"{text}" has no rate from 0 to 1; write {name}=0.2')
    return name, rate


def corrupted(keys: Sequence[str], corruptions: Sequence[str], seed: int) -> View:
    """Return the view of samples with these keys in which each corruption, as ``name=rate``, hits its share."""
    view = View.clean(len(keys))
    for name, rate in map(parse, corruptions):
        places = np.array([hash64(f"corrupt-{name}-{seed}", key) for key in keys], dtype=np.float64) / 2.0**64
        view = CORRUPTIONS[name](view, places < rate)
    return view


def damage(image: Image, names: Sequence[str]) -> Image:
    """Return an image (H, W, 3) that suffered these of `DAMAGES`."""
    for name in names:
        image = DAMAGES[name](image)
    return image


def shift(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, H, W, C) moved right and down by a sixteenth of their side, their edges drawn out."""
    by = max(1, images.shape[1] // 16)
    return np.pad(images[:, :-by, :-by], ((0, 0), (by, 0), (by, 0), (0, 0)), mode="edge")
