"""Pretrained networks of diffusers and transformers: quietly loaded, whole or not at all, hashed, on a device."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from benchmark.base.errors import UserError, first_line

# diffusers and transformers raise many kinds of a folder that holds no model, a damaged one, or one with its own code.
UNREADABLE = Exception
# Parts of a name that a file may lack, for no answer depends on them: the count of batches is read in training alone;
# the first fusion layer of DPT is given no residual, and Intel's files leave its unit out.
_NEVER_READ = (".num_batches_tracked", ".fusion_stage.layers.0.residual_layer1.")


def quiet_libraries() -> None:
    """Keep diffusers and transformers from drawing their own bars and notices between our lines."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_whole(kind: Any, place: str | Path, **options: Any) -> Any:
    """Return the network of a folder or hub id, in single precision, every weight of it read from safetensors.

    diffusers and transformers draw what a file lacks at random and go on with a warning: every number that such a
    network gives is another one in the next process.

    Args:
        kind: The class of diffusers or transformers that reads it.
        place: Folder or hub id.
        **options: What else `from_pretrained` is told.

    Raises:
        ValueError: The file lacks weights; it names one.
        Exception: What the library raises of a folder it cannot read (`UNREADABLE`).
    """
    precision = "torch_dtype" if issubclass(kind, ModelMixin) else "dtype"  # names that all versions allowed know
    options = {**options, precision: torch.float32, "use_safetensors": True, "output_loading_info": True}
    network, report = kind.from_pretrained(place, **options)
    lacking = sorted(name for name in report["missing_keys"] if not any(part in name for part in _NEVER_READ))
    if lacking:
        raise ValueError(f"the file of {type(network).__name__} lacks {len(lacking)} weights, {lacking[0]} among them")
    return network


@contextmanager
def within_memory(remedy: str) -> Iterator[None]:
    """Say in one line that a GPU has no room for the body, and what takes less.

    Raises:
        UserError: It has none.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"there is no room for it on the GPU ({first_line(error)}); {remedy}") from None


@contextmanager
def single_precision() -> Iterator[None]:
    """Compute convolutions on a GPU in single precision, which drops to TF32, of 10 bits, unless it is told not to.

    Vectors of images are compared with those that others computed, on whatever machine.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def hash_weights(module: nn.Module) -> str:
    """Return a hash over the names and values of a module's weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def choose_device(wanted: str | None) -> str:
    """Return the device asked for, by default "cuda" where there is one, else "cpu".

    Raises:
        UserError: The device does not exist here.
    """
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda") or (wanted == "cuda" and not torch.cuda.is_available()):
        raise UserError(f'no device "{wanted}" here; allowed: cpu{", cuda" if torch.cuda.is_available() else ""}')
    return wanted
