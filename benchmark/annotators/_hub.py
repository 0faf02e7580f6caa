"""Networks of controlnet-aux and transformers: weights found, hashed and loaded without pickle; images in batches."""

import io
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from huggingface_hub import hf_hub_download
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.base.errors import UserError, first_line
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Annotator, Images, Map
from benchmark.engine.pretrained import choose_device

_BATCH_PIXELS = 2**21  # eight images of 512 x 512
_MULTIPLE = 64  # sides the networks of controlnet-aux are given


@lru_cache(maxsize=64)
def _fetched(model: str, file: str, revision: str | None) -> Path:
    """Return where a file of the hub lies here; asked once a process, lest a branch move between two batches."""
    try:
        return Path(hf_hub_download(model, file, revision=revision))
    except Exception as error:  # the library raises many kinds; its first line says which
        reason = first_line(error)
        raise UserError(f"no {file} of {model} ({reason}); give a hub id, or a folder with it") from None


class Weights(NamedTuple):
    """A file of a hub repository, or of a folder with the same files.

    Attributes:
        model: Hub id or folder.
        revision: Commit, tag or branch of the hub; None for its default, and for a folder.
        file: Name of the file in it.
    """

    model: str
    revision: str | None
    file: str

    @property
    def path(self) -> Path:
        """Where the file lies on this machine, fetched if need be.

        Raises:
            UserError: It is nowhere to be had.
        """
        folder = Path(self.model)
        if folder.is_dir():
            if self.revision is not None:
                raise UserError(f"{folder} is a folder: it has no revision {self.revision}")
            if not (folder / self.file).is_file():
                raise UserError(f"{folder} holds no {self.file}; give a folder that does, or a hub id")
            return folder / self.file
        return _fetched(self.model, self.file, self.revision)

    @property
    def commit(self) -> str | None:
        """The commit the file is of; None for a folder."""
        parts = self.path.parts
        return None if Path(self.model).is_dir() else parts[parts.index("snapshots") + 1]

    def identity(self) -> dict[str, str]:
        """Return the file's sha256, and the commit it is of where it comes from the hub."""
        found = {"weights_sha256": sha256_file(self.path)}
        return found if self.commit is None else {**found, "commit": self.commit}

    def state(self) -> dict[str, Any]:
        """Return what the file holds: tensors and plain values, by no pickle that could run code.

        Raises:
            UserError: It holds anything else.
        """
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises many kinds
            raise UserError(f"{self.path} cannot be loaded as weights alone ({type(error).__name__})") from None
        return state


@contextmanager
def quiet() -> Iterator[None]:
    """Keep controlnet-aux from warning of what it lacks, and printing, when it is imported or makes a network."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def fill(network: nn.Module, state: Mapping[str, Tensor], weights: Weights) -> nn.Module:
    """Return a network with weights in it, on the best device there is, ready to read.

    Raises:
        UserError: The weights are those of another network.
    """
    try:
        named = {name.removeprefix("module."): tensor.contiguous() for name, tensor in state.items()}
        network.load_state_dict(named, assign=True)
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"{weights.path} holds the weights of another network ({first_line(error)})") from None
    return network.float().eval().requires_grad_(False).to(choose_device(None))


@lru_cache(maxsize=2)
def network(build: Callable[[Weights], nn.Module], weights: Weights) -> nn.Module:
    """Return a network, kept for the next shard; it is made without values, which would be thrown away."""
    with quiet(), torch.device("meta"):
        return build(weights)


def batches(images: Images) -> Iterator[Images]:
    """Yield images some two megapixels at a time."""
    step = max(1, _BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def to_detection(images: Images, resolution: int | None) -> Images:
    """Return images as controlnet-aux gives them to its networks: the shorter side at `resolution`, else as it is.

    Both sides are rounded to multiples of 64; Lanczos enlarges, area shrinks.
    """
    height, width = images.shape[1:3]
    scale = (resolution or min(height, width)) / min(height, width)
    size = tuple(max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in (width, height))
    if size == (width, height):
        return images
    interpolation = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
    return np.stack([cv2.resize(image, size, interpolation=interpolation) for image in images])


def back(map_: NDArray[Any], like: Images) -> NDArray[Any]:
    """Return a map at the size of the images it was made of, interpolated linearly."""
    height, width = like.shape[1:3]
    if map_.shape[:2] == (height, width):
        return map_
    resized: NDArray[Any] = cv2.resize(map_, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def device_of(network: nn.Module) -> torch.device:
    """Return where a network is."""
    return next(network.parameters()).device


@dataclass(frozen=True)
class Detector(Annotator):
    """A network of controlnet-aux whose weights are one `.pth` file.

    Attributes:
        model: Hub id, or a folder that holds the same file.
        revision: Commit, tag or branch of the hub; pin a commit for a dataset that must not change.
        resolution: Pixels of the shorter side that the network sees; by default the image's own.
    """

    model: str = "lllyasviel/Annotators"
    revision: str | None = None
    resolution: int | None = None

    @property
    @abstractmethod
    def weights(self) -> Weights:
        """The file."""

    @staticmethod
    @abstractmethod
    def build(weights: Weights) -> nn.Module:
        """Return the network with its weights."""

    @abstractmethod
    def read(self, network: nn.Module, images: Images) -> list[NDArray[Any]]:
        """Return what the network finds in each image at detection size."""

    @abstractmethod
    def finish(self, found: NDArray[Any], seen: Images, images: Images) -> NDArray[Any]:
        """Return the canonical map, at the images' own size, of what was read at the size of those seen."""

    def identity(self) -> dict[str, str]:
        """Return the sha256 of the file, and its commit on the hub."""
        return self.weights.identity()

    @torch.inference_mode()
    def annotate(self, images: Images) -> list[Map]:
        """Return one map for each image of uint8 (N, H, W, 3) RGB, at its own size."""
        net = network(type(self).build, self.weights)
        seen = to_detection(images, self.resolution)
        found = [each for batch in batches(seen) for each in self.read(net, batch)]
        return [Map(self.finish(each, seen, images)) for each in found]
