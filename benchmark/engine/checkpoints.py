"""Keep tensors in safetensors files, written atomically: weights, optimiser states, caches. No pickle.

A checkpoint is a folder of them whose seal tells whether it is still what was written.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import pretty_json, read_json, replace_file, sha256_file, write_through

_SEAL = "state/sha256.json"
KEPT_CURVE = "state/curve.jsonl"  # of a checkpoint: the run's curve up to it


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors and string metadata as one safetensors file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with disk_errors():
        write_through(path, lambda temporary: save_file(contiguous, temporary, dict(metadata or {})))


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what the disk refused to safetensors as the OSError it was, so that a full disk is told as such."""
    try:
        yield
    except SafetensorError as error:
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from None


def seal(folder: Path) -> None:
    """Write down in a folder the hash of every file in it: safetensors would not notice a bit that turned."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    replace_file(folder / _SEAL, pretty_json(hashes))


def check_seal(folder: Path, names: Callable[[str], bool] = lambda name: True) -> None:
    """Make sure that the files of a sealed folder, all or those of some names, are those it was sealed with.

    Raises:
        UserError: One is missing or another, the folder has no seal, or the seal knows no such file.
    """
    sealed = {name: digest for name, digest in read_json(folder / _SEAL).items() if names(name)}
    if not sealed:
        raise UserError(f"{_SEAL} does not name it")
    for name, digest in sealed.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{name} is missing")
        if sha256_file(path) != digest:
            raise UserError(f"{name} is not what was written")


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return (tensors, metadata) of a safetensors file.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the command again") from None


def checkpoint_step(path: Path) -> int:
    """Return the update a checkpoint folder was written after."""
    return int(path.name.removeprefix("step-"))


def newest_checkpoint(run: Path) -> Path:
    """Return the run's newest checkpoint folder.

    Raises:
        UserError: There is none.
    """
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint; train it with python -m benchmark.train")
    return found[-1]


def weights_at(run: Path, step: int) -> Path:
    """Return the folder of the weights a run had after so many updates.

    Raises:
        UserError: They are not there, or are not what was written.
    """
    return _sound(run, step, lambda name: not name.startswith("state/"))


def curve_at(run: Path, step: int) -> bytes:
    """Return the curve of a run up to so many updates, as its checkpoint keeps it.

    Raises:
        UserError: It is not there, or is not what was written.
    """
    return (_sound(run, step, lambda name: name == KEPT_CURVE) / KEPT_CURVE).read_bytes()


def _sound(run: Path, step: int, names: Callable[[str], bool]) -> Path:
    folder = run / "checkpoints" / f"step-{step}"
    try:
        check_seal(folder, names)
    except UserError as error:
        remedy = "delete that folder and run the run's train command again"
        raise UserError(f"{folder} is not whole ({error}); {remedy}") from None
    return folder


def checkpoints(run: Path) -> list[Path]:
    """Return the run's checkpoint folders, the newest last."""
    found = [p for p in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=checkpoint_step)


def whole_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint that is as it was written, or None where there is none at all.

    One that is damaged is deleted where there is one before it: training from there makes it again, bit by bit.

    Raises:
        UserError: There are only damaged ones.
    """
    found = checkpoints(run)
    while found:
        newest = found.pop()
        try:
            check_seal(newest)
            return newest
        except UserError as error:
            damaged = f"{newest} is damaged ({error})"
        if not found:
            raise UserError(f"{damaged}; delete that folder to train again without it")
        say(f"{damaged} and deleted; going on from {found[-1].name}")
        shutil.rmtree(newest)
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the state of an optimiser with one tensor per (parameter position, name)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rows = [(i, optimizer.state[parameter]) for i, parameter in enumerate(parameters) if parameter in optimizer.state]
    return {f"optimizer.{i}.{name}": _own(name, value) for i, row in rows for name, value in row.items()}


def _own(name: str, value: Any) -> torch.Tensor:
    """Return a value of an optimiser's state as a tensor that no other one shares, as safetensors requires."""
    tensor = torch.as_tensor(value)
    return tensor.clone() if name.startswith("qmap") else tensor  # bitsandbytes has one table for all parameters


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore what `optimizer_tensors` returned; the optimiser must hold the same parameters in the same order."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor | int]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, position, field = name.split(".", 2)
            # bitsandbytes counts updates with a plain number
            value = int(tensor) if tensor.dtype == torch.int64 else _laid_out(tensor, parameters[int(position)])
            state.setdefault(int(position), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the layout of its parameter, if it has its shape.

    torch's fused AdamW reads both as they lie in memory and does not look whether they lie alike.
    """
    same = tensor.shape == parameter.shape
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor) if same else tensor


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors with a prefix and a dot before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with a prefix and a dot, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def parameter_count(module: torch.nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
