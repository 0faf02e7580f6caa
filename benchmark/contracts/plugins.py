"""What a source, condition, annotator, encoder, method and metric must be able to do.

A plugin is a frozen dataclass in the folder of its family; its file name is its name on the command line and its fields
are its parameters. Images are uint8 (N, H, W, 3) RGB outside models and float (B, 3, H, W) inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError
from benchmark.base.images import BadImage, Transform
from benchmark.contracts.records import Score

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from benchmark.contracts.tables import Table

Images = NDArray[np.uint8]
Cell = bytes | NDArray[Any]  # of a source's condition column: an encoded picture, or an array
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Map:
    """A canonical condition map; the condition says what shape and dtype its array has."""

    array: NDArray[Any]


@dataclass(frozen=True)
class MapForm:
    """What every canonical map of a condition is; `Condition.check` holds the maps of a build to it.

    Attributes:
        dtype: NumPy's name of the array's type.
        axes: Lengths of its axes: "H" and "W" are the sides of the image, "P" is any number.
        low: Least legal value.
        high: Greatest legal value.
        polarity: What is high or bright, and what is low or dark.
        channels: What the conditioning image holds in red, green and blue; one name where all three are equal.
        interpolation: How a map is resized: "nearest" where values must not mix, else "area"; "points" are moved.
    """

    dtype: str
    axes: tuple[str | int, ...]
    low: float
    high: float
    polarity: str
    channels: tuple[str, ...]
    interpolation: str


@dataclass(frozen=True)
class Sample:
    """One item of a source.

    Attributes:
        key: Unique within the source, stable between readings.
        image: Encoded bytes as stored at the source, or uint8 (H, W, 3) RGB.
        caption: The text, or None where the source has none.
        maps: Exact maps that come with the source, by condition name.
        columns: Cells of the columns that `Source.read` was asked for.
        tags: Structured truth about the picture, JSON values only.
        fault: Why the source could not read the sample whole, or None; the row then fails for this reason.
    """

    key: str
    image: bytes | Images
    caption: str | None
    maps: Mapping[str, Map] = field(default_factory=dict)
    columns: Mapping[str, Cell] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True)
class Part:
    """A piece of a source that becomes one shard.

    Attributes:
        name: ``<split>-<number>``, safe as a file name.
        num_samples: At most so many samples; a source whose end is not known in advance may give fewer, or none.
        where: What the source needs to find these samples without looking at all others again; another process gets it.
    """

    name: str
    num_samples: int
    where: tuple[Any, ...] = ()

    @property
    def split(self) -> str:
        """The split of the part's samples."""
        return self.name.partition("-")[0]


class Source(ABC):
    """How to read samples, part by part.

    Attributes:
        is_drawn: Whether pictures are made to be exact: no hygiene unless it is asked for.
        is_shuffled: Whether the order of the training parts says nothing about their samples, so that the first of them
            are a fair draw of all.
    """

    is_drawn: ClassVar[bool] = False
    is_shuffled: ClassVar[bool] = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what pins the content (a hash, a revision, a seed): it becomes part of the plan."""

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """Yield the parts in one stable order that no size changes, held-out parts first."""

    def columns(self) -> list[str]:
        """Return the columns that samples can carry, for maps that come with the source; none by default."""
        return []

    def columns_identity(self, columns: Sequence[str]) -> dict[str, Any]:
        """Return what pins the content of some columns beyond `identity`; nothing where that pins them too."""
        return {}

    @abstractmethod
    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the samples of a part, one of `parts`, with the cells of some of its columns.

        A million rows are read in thousands of parts, each by a source made anew: it must not go through all rows.
        A source that renders does so at `resolution` pixels a side.
        """


class Annotator(ABC):
    """Turns RGB images into canonical maps of one condition.

    Attributes:
        world: The source whose images alone it can read; None of one that reads any.
    """

    world: ClassVar[str | None] = None

    @property
    @abstractmethod
    def condition(self) -> str:
        """The condition it makes maps of."""

    @property
    def num_classes(self) -> int | None:
        """How many class ids it tells apart; None where its maps hold no ids."""
        return None

    def identity(self) -> dict[str, str]:
        """Return the sha256 of the weights; an algorithm without weights is named by its fields alone."""
        return {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the source that `copy` takes maps from; none for one that looks at images."""
        return ()

    def copy(self, cells: Mapping[str, Cell], condition: Condition) -> Map:
        """Return the map that a sample's cells hold, for an annotator with `columns`."""
        raise NotImplementedError(f"{type(self).__name__} copies nothing")

    @abstractmethod
    def annotate(self, images: Images) -> list[Map]:
        """Return one map for each image of uint8 (N, H, W, 3) RGB."""

    def annotate_samples(self, images: Images, keys: Sequence[str]) -> list[Map]:
        """Return one map for each image; where chance has a part in it, it is drawn by the sample's key alone."""
        return self.annotate(images)

    def reject(self, map_: Map) -> str | None:
        """Return why a pair with this map is left out of a dataset on purpose, or None."""
        return None


class Condition(ABC):
    """The only place that knows a condition's polarity, palette, storage, rendering, comparison and referee."""

    annotator: ClassVar[str | None]
    headline: ClassVar[str]
    errors: ClassVar[frozenset[str]] = frozenset()  # names of scores of which less is better

    @property
    @abstractmethod
    def referee(self) -> str:
        """The annotator, with its parameters, that scores generated images."""

    @property
    @abstractmethod
    def form(self) -> MapForm:
        """What its maps are: type, axes, range, polarity, channels, interpolation."""

    @property
    def num_classes(self) -> int | None:
        """How many class ids its maps may hold; None where they hold no ids."""
        return None

    def check(self, map_: Map, side: int) -> str | None:
        """Return in what a map differs from the form, for an image of so many pixels a side, or None."""
        return form_fault(self.form, map_.array, side)

    def turned(self, maps: Sequence[Map]) -> str | None:
        """Return why the maps of many images look inverted or exchanged in their channels, or None."""
        return None

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the map that a cell of a source's column shows, exactly.

        Args:
            cell: A picture as the source encodes it, or an array of label numbers.
            first_label: The label number of the first class, where the cell holds label numbers.

        Raises:
            BadImage: The cell shows no map of this condition, or one that cannot be told for certain.
        """
        raise BadImage(f"{type(self).__name__.lower()} maps cannot be read from a column")

    @abstractmethod
    def warp(self, map_: Map, transform: Transform) -> Map:
        """Apply the image's geometric transform to a map that came with the source."""

    @abstractmethod
    def encode(self, map_: Map) -> bytes:
        """Return the map as a PNG, without loss beyond the precision the condition states."""

    @abstractmethod
    def decode(self, data: bytes) -> Map:
        """Return the map that `encode` was given."""

    @abstractmethod
    def render(self, map_: Map, size: int) -> Images:
        """Return the conditioning image, uint8 (size, size, 3) RGB: what the model sees."""

    @abstractmethod
    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return one row (K,) of quantities that add up over images."""

    @abstractmethod
    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return named scores, each (...), of summed rows (..., K); more is better but for those named in `errors`."""


def form_fault(form: MapForm, array: NDArray[Any], side: int) -> str | None:
    """Return in what an array differs from a form, for an image of `side` pixels, or None."""
    wanted = [side if axis in ("H", "W") else axis for axis in form.axes]
    fits = len(wanted) == array.ndim and all(w in ("P", n) for w, n in zip(wanted, array.shape, strict=True))
    if array.dtype != form.dtype or not fits:
        return f"is {array.dtype} {array.shape}, not {form.dtype} ({', '.join(map(str, wanted))})"
    if array.size and not (array.min() >= form.low and array.max() <= form.high):  # a NaN is neither
        return f"holds values from {array.min():g} to {array.max():g}, outside {form.low:g} to {form.high:g}"
    return None


class Encoder(ABC):
    """Turns images or texts into vectors."""

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Return the name of the vector space and the sha256 of its weights."""

    @abstractmethod
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return (N, D) vectors of uint8 (N, H, W, 3) images."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (N, D) vectors of texts, where the space has them.

        Raises:
            UserError: It has none.
        """
        raise UserError(f"{type(self).__name__} encodes no texts; give a space that does, such as space=clip")


class Residuals(NamedTuple):
    """What a method's module gives for one call of the frozen U-Net.

    Attributes:
        down: Added to the skip connections, one each, in their order; empty without `middle`.
        middle: Added to the output of the middle block, or None.
        encoder: Added to the hidden state of each level of the encoder before it is halved, or empty.
        weights: Used in place of the U-Net's own of the same names, where part of it is trained.
    """

    down: Sequence[Tensor] = ()
    middle: Tensor | None = None
    encoder: Sequence[Tensor] = ()
    weights: Mapping[str, Tensor] = {}


class Method(ABC):
    """How control is attached to a frozen U-Net."""

    @abstractmethod
    def build(self, unet: nn.Module, latent_scale: int) -> nn.Module:
        """Return a trainable module: forward(latents, timesteps, text, image) gives `Residuals`.

        latent_scale is the number of image pixels for one latent pixel (8 for Stable Diffusion).
        latents (B, C, h, w), timesteps (B,), image (B, 3, H, W) in [0, 1], text (B, tokens, width) as the base encodes
        it: for a network of diffusers `split_text` takes it apart. Its `image_encoders`, if it has any, are its parts
        that see the image alone: images are drawn with one answer of theirs for all steps.
        """

    @abstractmethod
    def save(self, module: nn.Module, folder: Path) -> None:
        """Write the module's weights in the layout its users load."""

    @abstractmethod
    def load(self, folder: str) -> nn.Module:
        """Return the module saved in a folder, or published under a hub id."""


class Metric(ABC):
    """Turns observation tables into scores; knows nothing of images, models or files."""

    unasked: ClassVar[bool] = True  # False where it needs weights or data that not everyone has

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The columns it reads: an encoder's name for image vectors, the name and ``_text`` for text vectors.

        The name and ``_nearest`` is (N, 2): the distance to the nearest training image, and how many there are.
        """

    @abstractmethod
    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the scores of generated against reference observations, row by row on the same keys.

        Each carries the influence of every sample: what pairs two records, and several images of one sample.
        """
