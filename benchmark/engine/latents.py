"""Posterior moments of a dataset's images, encoded once for every run that uses them; keyed by content, not by run."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.base.console import progress
from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, sha256
from benchmark.base.images import decode_rgb
from benchmark.engine.bases import Base, at_a_time
from benchmark.engine.checkpoints import load_tensors, save_tensors
from benchmark.engine.corruptions import View, damage
from benchmark.engine.shards import read_rows

_PIECE = 512  # images of a subset that are decoded at once
_TOGETHER = 4096  # rows of several shards that lie in one file
Loose = tuple[NDArray[np.int64], Path, NDArray[np.int64]]  # places in the subset, their shard, and their rows in it
_DIGEST = "sha256"


@dataclass(frozen=True)
class CachedMoments:
    """Mean and standard deviation of N images, which lie in files that are read where they are asked for.

    Attributes:
        files: The moments (n, 2, C, h, w) of each file, mapped and not read.
        file: In which of them each image's are, (N,).
        row: And in which row of it, (N,).
    """

    files: Sequence[Tensor]
    file: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        """Return N."""
        return len(self.row)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 2, C, h, w)."""
        return (len(self), *self.files[0].shape[1:])

    def __getitem__(self, at: Tensor) -> Tensor:
        """Return the moments of B images, (B, 2, C, h, w), single precision."""
        found = torch.empty(len(at), *self.files[0].shape[1:])
        file, row = self.file[at.numpy()], self.row[at.numpy()]
        order = np.argsort(file, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(file[order])) + 1):
            found[torch.from_numpy(here)] = self.files[file[here[0]]][torch.from_numpy(row[here])]
        return found

    def in_memory(self) -> Tensor:
        """Return all, (N, 2, C, h, w)."""
        return self[torch.arange(len(self))]


def moments_of(
    base: Base, shards: Sequence[tuple[Path, int]], places: NDArray[np.int64], view: View, cache: Path
) -> CachedMoments:
    """Return the moments of the N images of a view of the images at so many places, as `moments_at` does."""
    files: list[Tensor] = []
    file, row = np.empty((2, len(places)), np.int64)
    for damages, here in view.by_damage():
        part = moments_at(base, shards, places[view.images[here]], cache, damages)
        file[here], row[here] = len(files) + part.file, part.row
        files.extend(part.files)
    return CachedMoments(files, file, row)


def moments_at(
    base: Base,
    shards: Sequence[tuple[Path, int]],
    places: NDArray[np.int64],
    cache: Path,
    damages: tuple[str, ...] = (),
) -> CachedMoments:
    """Return the moments of the images at N places, which are encoded where the cache does not hold them.

    A cache file is named by the shard's and the autoencoder's content: any run may share it, none can mistake it. Of
    shards of which less than half is wanted only that is encoded: a thousand pairs of a million lie in as many shards.
    Of damaged images too.

    Args:
        base: Its autoencoder encodes.
        shards: Files, and how many rows each holds.
        places: Rows (N,), counted over all files.
        cache: Folder of the cache.
        damages: What the images suffered before they are encoded.
    """
    order = np.argsort(places, kind="stable")
    ends = np.cumsum([count for _, count in shards])
    folder, start = cache / base.vae_sha256[:12], 0
    files: list[Tensor] = []
    file, row = np.empty((2, len(places)), np.int64)
    loose: list[Loose] = []
    for (shard, count), end, cut in zip(shards, ends, np.searchsorted(places[order], ends), strict=True):
        here, start = order[start:cut], cut
        rows = places[here] - (end - count)
        if not len(here):
            continue
        whole = None if damages else _of_shard(base, shard, count, len(np.unique(rows)), folder)
        if whole is not None:
            file[here], row[here] = len(files), rows
            files.append(whole)
        else:
            loose.append((here, shard, rows))
    for some in _together(loose):
        wanted, first = [(shard, np.unique(rows)) for _, shard, rows in some], 0
        for (here, _, rows), (_, distinct) in zip(some, wanted, strict=True):
            file[here], row[here] = len(files), first + np.searchsorted(distinct, rows)
            first += len(distinct)
        files.append(_of_rows(base, wanted, folder, damages))
    return CachedMoments(files, file, row)


def _together(loose: Sequence[Loose]) -> Iterator[list[Loose]]:
    """Yield shards whose rows are encoded at once: so many rows that a network is busy, and no more are in memory."""
    some: list[Loose] = []
    for one in loose:
        some.append(one)
        if sum(len(rows) for _, _, rows in some) >= _TOGETHER:
            yield some
            some = []
    if some:
        yield some


def _of_shard(base: Base, shard: Path, count: int, wanted: int, folder: Path) -> Tensor | None:
    """Return the moments of all rows of a shard, from the cache or made; None of one of which too few are wanted."""
    path = folder / f"{shard.stem}.safetensors"
    moments = _read(path)
    if moments is None and 2 * wanted >= count:
        moments = _kept(path, encode_moments(base, np.stack(list(_images(shard, range(count)))), shard.stem))
    return moments


def _of_rows(
    base: Base, wanted: Sequence[tuple[Path, NDArray[np.int64]]], folder: Path, damages: tuple[str, ...]
) -> Tensor:
    """Return the moments of some rows of several shards, in their order, from the cache or made."""
    name = sha256(canonical_json([[shard.stem, rows.tolist()] for shard, rows in wanted]))[:24]
    path = folder / f"{'-'.join(('rows', *damages))}-{name}.safetensors"
    moments = _read(path)
    if moments is None:
        images, parts = (damage(image, damages) for part in wanted for image in _images(*part)), []
        while some := list(islice(images, _PIECE)):
            parts.append(encode_moments(base, np.stack(some), "subset"))
        moments = _kept(path, torch.cat(parts))
    return moments


def _images(shard: Path, rows: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    asked = set(rows)
    cells = (row["image"]["bytes"] for i, row in enumerate(read_rows(shard, ["image"])) if i in asked)
    yield from map(decode_rgb, cells)


def _kept(path: Path, moments: Tensor) -> Tensor:
    """Put moments into the cache; return them as they lie there, so that memory is free of them."""
    save_tensors(path, {"moments": moments}, {_DIGEST: _digest(moments)})
    kept = _read(path)
    assert kept is not None
    return kept


def _read(path: Path) -> Tensor | None:
    """Return what a cache file holds, mapped, or None where there is none, or one from before it held its hash.

    Raises:
        UserError: It is damaged: a wrong bit would train on other pictures without a word.
    """
    if not path.exists():
        return None
    tensors, about = load_tensors(path)
    if _DIGEST not in about:
        return None
    if "moments" not in tensors or _digest(tensors["moments"]) != about[_DIGEST]:
        raise UserError(f"{path} is damaged; delete it and run the command again")
    return tensors["moments"]


def _digest(moments: Tensor) -> str:
    digest = hashlib.sha256(repr((tuple(moments.shape), moments.dtype)).encode())
    digest.update(moments.contiguous().numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def encode_moments(base: Base, images: NDArray[np.uint8], what: str | None) -> Tensor:
    """Return mean and standard deviation (N, 2, C, h, w) of images uint8 (N, H, W, 3), on the CPU.

    Progress is shown under a name, or not.

    The last batch is filled up: in batches of one size an image has the same bits whichever others are beside it.
    """
    parts, few = [], at_a_time(images.shape[1])
    with progress(len(images), f"encode {what}", "images", hidden=what is None) as bar:
        for i in range(0, len(images), few):
            batch = images[i : i + few]
            filled = np.concatenate([batch, *[batch[-1:]] * (few - len(batch))])
            posterior = base.vae.encode(pixels(filled).to(base.device) * 2 - 1).latent_dist
            parts.append(torch.stack([posterior.mean, posterior.std], dim=1)[: len(batch)].cpu())
            bar.update(len(batch))
    return torch.cat(parts)


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """Return uint8 (N, H, W, 3) as float (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def round_trip(base: Base, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images uint8 (N, H, W, 3) encoded and decoded again (posterior mean): what a latent model can reach."""
    means = encode_moments(base, images, None)[:, 0] * base.vae.config.scaling_factor
    return to_uint8(base.decode(means.to(base.device)))


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Return images (N, 3, H, W) in [0, 1] as uint8 (N, H, W, 3), rounded as diffusers rounds."""
    array = images.permute(0, 2, 3, 1).cpu().float().numpy()
    return np.asarray((array * 255).round(), dtype=np.uint8)
