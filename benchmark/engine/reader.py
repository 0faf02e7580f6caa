"""The training data of a run: which rows, in which order, with which draws; all of it a function of named seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, sha256
from benchmark.base.seeds import Stream, hash64
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.latents import CachedMoments
from benchmark.engine.stored import Packed

_STAGE = 30_000  # rows


@dataclass(frozen=True)
class EncodedMaps:
    """N conditioning images that are rendered when they are asked for: at 512 pixels, 50,000 would fill 39 GB.

    Attributes:
        maps: Encoded maps.
        map_of: Which of them each image shows, (N,).
        shifted: Whether (N,) the image is moved.
        render: Gives images uint8 (B, H, W, 3) of so many encoded maps, some of them moved.
    """

    maps: Packed
    map_of: NDArray[np.int64]
    shifted: NDArray[np.bool_]
    render: Callable[[Sequence[bytes], NDArray[np.bool_]], NDArray[np.uint8]]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.map_of)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of rows (B,), uint8 (B, H, W, 3)."""
        return self.render([self.maps[at] for at in self.map_of[rows].tolist()], self.shifted[rows])

    def in_memory(self) -> NDArray[np.uint8]:
        """Return all, rendered."""
        return self[np.arange(len(self))]


@dataclass(frozen=True)
class TrainingData:
    """Everything a step needs.

    Attributes:
        moments: Latent mean and standard deviation (N, 2, C, h, w), in memory or in files.
        images: Conditioning images, uint8 (N, H, W, 3), or what renders them.
        token_ids: (N, length), of any width.
        empty_ids: Token ids (length,) of the empty prompt.
    """

    moments: Tensor | CachedMoments
    images: NDArray[np.uint8] | EncodedMaps
    token_ids: Tensor
    empty_ids: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """One step's input; shapes as in `TrainingData`, conditioning images float (B, 3, H, W) in [0, 1]."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    token_ids: Tensor
    image: Tensor

    def part(self, number: int, parts: int) -> "Batch":
        """Return one of several equal parts, counted from 0."""
        return Batch(*(getattr(self, field.name).chunk(parts)[number] for field in fields(self)))

    def pinned(self) -> "Batch":
        """Return the same in memory from which a GPU copies without being waited for."""
        return Batch(*(getattr(self, field.name).pin_memory() for field in fields(self)))


@dataclass(frozen=True)
class Subset:
    """The pairs of a dataset that a run is trained on.

    Attributes:
        rows: Their places (N,) among the training rows, in the order of the draw.
        keys: Theirs.
        sha256: Of their keys and of the shards they lie in, which a larger dataset holds as they are.
    """

    rows: NDArray[np.int64]
    keys: tuple[str, ...]
    sha256: str

    @classmethod
    def of(cls, dataset: BuiltDataset, num_samples: int | None, replicate: int, subset_seed: int) -> "Subset":
        """Return block `replicate` of a size, as `choose_rows` does.

        Raises:
            UserError: The dataset holds too few rows.
        """
        keys = dataset.keys("train")
        rows = choose_rows(keys, num_samples, replicate, subset_seed, dataset.manifest.is_shuffled)
        chosen, commits = tuple(keys[i] for i in rows), dataset.commits("train")
        ends = np.cumsum([commit.num_ok for commit in commits])
        shards = np.unique(np.searchsorted(ends, dataset.places("train")[rows], side="right"))
        return cls(rows, chosen, sha256(canonical_json([chosen, [commits[i].sha256 for i in shards]])))


def choose_rows(
    keys: list[str], num_samples: int | None, replicate: int, subset_seed: int, is_shuffled: bool
) -> NDArray[np.int64]:
    """Return the rows of a subset: block `replicate` of size `num_samples` in the seed's hash order.

    Of replicate 0, larger subsets contain smaller ones; replicates of one size are disjoint.

    Args:
        keys: Of all training rows, in the dataset's order.
        num_samples: None for all of them.
        replicate: Which block.
        subset_seed: Decides the order.
        is_shuffled: Whether the dataset's order says nothing about its rows. Then the first 30,000 of them come first,
            in hash order, then those up to 90,000, up to 270,000 and so on: a subset of the first is the same in a
            dataset that was built larger.

    Raises:
        UserError: The dataset holds too few rows.
    """
    hashes = np.array([hash64(f"subset-{subset_seed}", key) for key in keys], dtype=np.uint64)
    ends = _STAGE * 3 ** np.arange(30 if is_shuffled else 0)
    order = np.lexsort((hashes, np.searchsorted(ends, np.arange(len(keys)), side="right")))
    size = len(keys) if num_samples is None else num_samples
    chosen = order[replicate * size : (replicate + 1) * size]
    if len(chosen) < size or size == 0:
        raise UserError(
            f"{len(keys)} training pairs are too few for replicate {replicate} of {size}; "
            f"build with --size {(replicate + 1) * size} or ask for fewer"
        )
    return chosen.astype(np.int64)


def batch_rows(count: int, batch: int, step: int, order_seed: int) -> NDArray[np.int64]:
    """Return the rows of an update: epoch after epoch, each a new permutation, none of them broken off."""
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = np.unique(places // count)
    orders = {int(epoch): _order(count, order_seed, int(epoch)) for epoch in epochs}
    return np.array([orders[int(place // count)][place % count] for place in places], dtype=np.int64)


@lru_cache(maxsize=2)  # sorting a million words takes a tenth of a second, an update touches two epochs at most
def _order(count: int, order_seed: int, epoch: int) -> NDArray[np.int64]:
    return Stream(order_seed, "order", epoch).permutation(count)


def draw_batch(
    data: TrainingData,
    rows: NDArray[np.int64],
    step: int,
    noise_seed: int,
    scaling_factor: float,
    empty_prompt_rate: float,
) -> Batch:
    """Return a batch with its noise, timesteps and prompt drops: a function of (noise seed, step) and the rows."""
    stream = Stream(noise_seed, "training-noise", step)
    moments = data.moments[torch.from_numpy(rows)]
    shape = tuple(moments[:, 0].shape)
    posterior, noise = (torch.from_numpy(stream.normal(shape)) for _ in range(2))
    timesteps = torch.from_numpy((stream.raw(len(rows)) % np.uint64(1000)).astype(np.int64))
    dropped = torch.from_numpy(stream.uniform(len(rows)) < empty_prompt_rate)
    tokens = torch.where(dropped[:, None], data.empty_ids, data.token_ids[torch.from_numpy(rows)].long())
    image = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2).float() / 255
    latents = (moments[:, 0] + moments[:, 1] * posterior) * scaling_factor
    return Batch(latents, noise, timesteps, tokens, image)
