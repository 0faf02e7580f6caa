"""Scribbles made of soft edges as the ControlNet paper does: random thresholds, masks, morphology and thinning."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.annotators._edges import EDGE_NETWORKS
from benchmark.annotators._hub import Weights, back, batches, network, to_detection
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import sha256_file
from benchmark.base.seeds import Stream, hash64
from benchmark.contracts.plugins import Annotator, Images, Map
from benchmark.scenes.models import REFEREE_FILE, load_referee
from benchmark.scenes.reading import read, read_off

_SIDE = 512  # pixels of the images that the authors' widths are for
_THRESHOLD, _SIGMA, _VISIBLE = 127, 3.0, 4  # of the authors' fixed scribbles
_CELLS = 8  # a side: the pieces that masks hide
_MOST_HIDDEN, _WIDEST = 0.5, 24  # share of the cells; pixels of a stroke (ControlNet 1.1)
_NEIGHBOURS = np.array(
    [
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    ],
    np.uint8,
)


@dataclass(frozen=True)
class Scribble(Annotator):
    """Strokes along soft edges, with chance drawn by the sample's key: no two are alike, one is always the same.

    The paper names the random parts and gives no ranges; those used are: threshold 64 to 191 of 255; thinning to the
    ridges of the edges with probability 1/2; up to half of 8 x 8 pieces hidden; strokes 1 to 24 pixels wide at 512,
    by dilation or closing.

    Attributes:
        edges: What finds the soft edges: scenes (the bundled referee, 64 x 64 only), hed or pidinet.
        model: Hub id, or a folder that holds the network's file.
        revision: Commit, tag or branch of the hub.
        resolution: Pixels of the shorter side that the network sees; by default the image's own.
        seed: Of all chance.
    """

    edges: str = "scenes"
    model: str = "lllyasviel/Annotators"
    revision: str | None = None
    resolution: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown edges."""
        if self.edges not in (known := ("scenes", *EDGE_NETWORKS)):
            raise UserError(f'scribble makes none of "{self.edges}"; {did_you_mean(self.edges, known)}')

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "scribble"

    @property
    def _weights(self) -> Weights:
        return Weights(self.model, self.revision, EDGE_NETWORKS[self.edges].file)

    def identity(self) -> dict[str, str]:
        """Return the sha256 of the weights that find the edges, and their commit on the hub."""
        return {"weights_sha256": sha256_file(REFEREE_FILE)} if self.edges == "scenes" else self._weights.identity()

    def _levels(self, images: Images) -> list[NDArray[np.uint8]]:
        """Return soft edges of images, each uint8 (H, W)."""
        if self.edges == "scenes":
            readings = list(read(load_referee(), images))
            return [np.rint(255 * edge).astype(np.uint8) for each in readings for edge in read_off(each, "softedge")]
        edges = EDGE_NETWORKS[self.edges]
        net, seen = network(edges.build, self._weights), to_detection(images, self.resolution)
        strengths = [strength for batch in batches(seen) for strength in edges.strengths(net, batch)]
        return [back((255.0 * each).clip(0, 255).astype(np.uint8), images) for each in strengths]

    def annotate(self, images: Images) -> list[Map]:
        """Return the authors' fixed scribbles: without keys there is no chance."""
        return [Map(fixed(levels)) for levels in self._levels(images)]

    def annotate_samples(self, images: Images, keys: Sequence[str]) -> list[Map]:
        """Return one bool (H, W) map of strokes for each image, with the chance of its key."""
        streams = [Stream(self.seed, "scribble", hash64("scribble", key)) for key in keys]
        return [Map(drawn(each, stream)) for each, stream in zip(self._levels(images), streams, strict=True)]


def ridges(levels: NDArray[np.uint8], threshold: int, sigma: float) -> NDArray[np.bool_]:
    """Return the ridges of blurred soft edges above a threshold: pixels that no neighbour in some direction exceeds."""
    blurred = cv2.GaussianBlur(levels.astype(np.float32), (0, 0), sigma)
    top = np.any([cv2.dilate(blurred, along) == blurred for along in _NEIGHBOURS], axis=0)
    return np.asarray(top & (blurred > threshold))


def fixed(levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the scribble that the authors' code draws of soft edges, its widths scaled to the image's side."""
    sigma = _SIGMA * min(levels.shape) / _SIDE
    thin = np.where(ridges(levels, _THRESHOLD, sigma), np.uint8(255), np.uint8(0))
    return np.asarray(cv2.GaussianBlur(thin, (0, 0), sigma) > _VISIBLE)


def drawn(levels: NDArray[np.uint8], stream: Stream) -> NDArray[np.bool_]:
    """Return a scribble of soft edges, uint8 (H, W), with the chance of a stream."""
    scale = min(levels.shape) / _SIDE
    threshold, thin = 64 + stream.choice(128), stream.choice(2) == 1
    lines = ridges(levels, threshold, _SIGMA * scale) if thin else levels > threshold
    kept = (lines & ~hidden(levels.shape, stream)).astype(np.uint8)
    width = max(1, round((1 + stream.choice(_WIDEST)) * scale))
    operation = cv2.MORPH_DILATE if stream.choice(2) else cv2.MORPH_CLOSE
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.asarray(cv2.morphologyEx(kept, operation, element) > 0)


def hidden(shape: tuple[int, ...], stream: Stream) -> NDArray[np.bool_]:
    """Return which pixels a mask hides: a share of the image's pieces, itself drawn from 0 to a half."""
    count = int(stream.between(0, _MOST_HIDDEN) * _CELLS**2)
    pieces = np.zeros(_CELLS**2, np.uint8)
    pieces[stream.permutation(_CELLS**2)[:count]] = 1
    size = shape[1], shape[0]
    mask = cv2.resize(pieces.reshape(_CELLS, _CELLS), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(mask > 0)
