"""Posterior moments of a dataset's images, encoded once for every run that uses them; keyed by content, not by run."""

from collections.abc import Iterable, Sequence
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


def moments_of_shards(base: Base, shards: Iterable[Path], cache: Path) -> list[Tensor]:
    """Return mean and standard deviation (N, 2, C, h, w), single precision, of the images in each shard file.

    A cache file is named by the shard's and the autoencoder's content: any run may share it, none can mistake it.
    The tensors are mapped from these files: what they take while their hash is checked can be given back.
    """
    vae = base.vae_sha256[:12]
    parts = []
    for shard in shards:
        path = cache / vae / f"{shard.stem}.safetensors"
        moments = _read(path)
        if moments is None:
            images = [decode_rgb(row["image"]["bytes"]) for row in read_rows(shard, ["image"])]
            encoded = encode_moments(base, np.stack(images), shard.stem)
            save_tensors(path, {"moments": encoded}, {_DIGEST: _digest(encoded)})
            moments = load_tensors(path)[0]["moments"]
        parts.append(moments)
    return parts


def rows_of(parts: Sequence[Tensor], places: NDArray[np.int64]) -> Tensor:
    """Return the rows at places (N,) of parts laid end to end."""
    rows, start = torch.empty(len(places), *parts[0].shape[1:]), 0
    for part in parts:
        here = (places >= start) & (places < start + len(part))
        rows[torch.from_numpy(here)] = part[torch.from_numpy(places[here] - start)]
        start += len(part)
    return rows


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
    """Return mean and standard deviation (N, 2, C, h, w) of images uint8 (N, H, W, 3), on the CPU."""
    parts = []
    with progress(len(images), f"encode {what}", "images") as bar:
        for i in range(0, len(images), _BATCH):
            batch = pixels(images[i : i + _BATCH]).to(base.device) * 2 - 1
            posterior = base.vae.encode(batch).latent_dist
            parts.append(torch.stack([posterior.mean, posterior.std], dim=1).cpu())
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
