"""Posterior moments of a dataset's images, encoded once for every run that uses them; keyed by content, not by run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.base.console import progress
from benchmark.base.errors import UserError
from benchmark.base.files import sha256
from benchmark.base.images import decode_rgb
from benchmark.engine.bases import Base
from benchmark.engine.checkpoints import load_tensors, save_tensors
from benchmark.engine.shards import read_rows

_BATCH = 32
_DIGEST = "sha256"


def moments_at(base: Base, shards: Sequence[tuple[Path, int]], places: NDArray[np.int64], cache: Path) -> Tensor:
    """Return mean and standard deviation (N, 2, C, h, w), single precision, of the images at N places.

    A cache file is named by the shard's and the autoencoder's content: any run may share it, none can mistake it. Of a
    shard of which less than half is wanted only that is encoded: a thousand pairs of a million lie in as many shards.

    Args:
        base: Its autoencoder encodes.
        shards: Files, and how many rows each holds.
        places: Rows (N,), counted over all files.
        cache: Folder of the cache.
    """
    order = np.argsort(places, kind="stable")
    ends = np.cumsum([count for _, count in shards])
    moments, start = torch.empty(0), 0
    for (shard, count), end, cut in zip(shards, ends, np.searchsorted(places[order], ends), strict=True):
        if cut > start:
            here = order[start:cut]
            part = _of_shard(base, shard, count, places[here] - (end - count), cache)
            moments = moments if len(moments) else torch.empty(len(places), *part.shape[1:])
            moments[torch.from_numpy(here)] = part
        start = cut
    return moments


def _of_shard(base: Base, shard: Path, count: int, rows: NDArray[np.int64], cache: Path) -> Tensor:
    """Return the moments of rows of a shard file with `count` rows, from the cache or encoded and kept there."""
    wanted, places = np.unique(rows, return_inverse=True)
    folder, index = cache / base.vae_sha256[:12], torch.from_numpy(places)
    if (whole := _read(folder / f"{shard.stem}.safetensors")) is not None:
        return whole[torch.from_numpy(rows)]
    if 2 * len(wanted) >= count:
        path, wanted, index = folder / f"{shard.stem}.safetensors", np.arange(count), torch.from_numpy(rows)
    else:
        path = folder / f"{shard.stem}.{sha256(wanted.tobytes())[:12]}.safetensors"
        if (some := _read(path)) is not None:
            return some[index]
    asked = set(wanted.tolist())
    cells = (row["image"]["bytes"] for i, row in enumerate(read_rows(shard, ["image"])) if i in asked)
    encoded = encode_moments(base, np.stack([decode_rgb(data) for data in cells]), shard.stem)
    save_tensors(path, {"moments": encoded}, {_DIGEST: _digest(encoded)})
    return encoded[index]


def _read(path: Path) -> Tensor | None:
    """Return what a cache file holds, or None where there is none, or one from before it held its hash.

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
    return sha256(repr((tuple(moments.shape), moments.dtype)).encode() + moments.contiguous().numpy().tobytes())


@torch.no_grad()
def encode_moments(base: Base, images: NDArray[np.uint8], what: str) -> Tensor:
    """Return mean and standard deviation (N, 2, C, h, w) of images uint8 (N, H, W, 3), on the CPU.

    The last batch is filled up: in batches of one size an image has the same bits whichever others are beside it.
    """
    parts = []
    with progress(len(images), f"encode {what}", "images") as bar:
        for i in range(0, len(images), _BATCH):
            batch = images[i : i + _BATCH]
            filled = np.concatenate([batch, *[batch[-1:]] * (_BATCH - len(batch))])
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
    means = encode_moments(base, images, "round trip")[:, 0] * base.vae.config.scaling_factor
    parts = [base.decode(part.to(base.device)) for part in torch.split(means, _BATCH)]
    return to_uint8(torch.cat(parts))


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Return images (N, 3, H, W) in [0, 1] as uint8 (N, H, W, 3), rounded as diffusers rounds."""
    array = images.permute(0, 2, 3, 1).cpu().float().numpy()
    return np.asarray((array * 255).round(), dtype=np.uint8)
