"""Work of a GPU that is recorded once and replayed, for where asking for its kernels one by one takes longer than they.

A step of Stable Diffusion 1.5 with a ControlNet is some thousands of kernels. Python asks for them at a rate that keeps
an H200 busy for half of the time, and for a tenth of it with small networks (docs/LOG.md). Replayed, the same kernels
follow each other without it: the numbers stay the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.base.errors import UserError, first_line

Work = Callable[..., Tensor]
_WARM = 3  # runs in which libraries choose kernels and make room for them; what is recorded must do neither


class Recorded:
    """A function of tensors whose shapes never change, as one CUDA graph.

    What it writes beside its result, gradients say, is written to the same memory in every replay: it is to be used
    before the next one. It must neither wait for the GPU nor copy to it from memory that is not pinned.

    Args:
        work: The function.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._result = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what the function gives for inputs on the GPU or in pinned memory; the first call records it.

        Raises:
            UserError: It does what cannot be recorded.
        """
        if self._graph is None:
            self._record(*inputs)
        for place, new in zip(self._inputs, inputs, strict=True):
            place.copy_(new, non_blocking=True)
        assert self._graph is not None
        self._graph.replay()
        return self._result.clone()

    def _record(self, *inputs: Tensor) -> None:
        self._inputs = tuple(tensor.to("cuda", copy=True) for tensor in inputs)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM):
                self._work(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads may do as they like
                self._result = self._work(*self._inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(f"this step cannot be recorded ({first_line(error)}); give --eager") from error
