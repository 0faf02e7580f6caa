"""One training in several processes, as torchrun and accelerate start them: each takes its part of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

_PATIENCE = timedelta(days=7)  # the others wait while the main process encodes a dataset, or probes


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of a training.

    Attributes:
        rank: Its number, from 0; that of the main process, which alone writes.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes, probes and tells."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of every process's values, the same in each of them."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def add_gradients(self, module: nn.Module) -> None:
        """Give every process the sum of all gradients, bit by bit the same."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        totals = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process through before the others, so that they find what it has done."""
        if not self.is_main:
            distributed.barrier()
        yield
        if self.is_main and self.world > 1:
            distributed.barrier()


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that were launched together, for as long as the context lasts; alone without a launcher."""
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
