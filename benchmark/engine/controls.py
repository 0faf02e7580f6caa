"""Controls made of controls: several added up, or one that acts on one branch of classifier-free guidance."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Residuals

# How residuals act under classifier-free guidance. "uniform": alike, on both branches. The others act on the branch
# with the prompt alone. "resolution": times the latents' side over the residual's, the 64 / h of arXiv 2302.05543,
# section 3.4 (1 to 8 at 512 pixels). "guess": the guess mode of the authors' code, 0.825 to the power of a residual's
# distance from the middle.
CONTROL_WEIGHTINGS = ("uniform", "resolution", "guess")
_GUESS_DECAY = 0.825


class Summed(nn.Module):
    """Several controls whose residuals are added without weights (arXiv 2302.05543, section 3.4).

    Each reads its own three channels of the conditioning image, (B, 3 k, H, W).
    """

    def __init__(self, controls: Sequence[nn.Module]) -> None:
        super().__init__()
        self.controls = nn.ModuleList(controls)

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return the sum of what every control gives for its own part of the image."""
        parts = image.chunk(len(self.controls), dim=1)
        found: Iterator[Residuals] = (
            control(latents, timesteps, text, part) for control, part in zip(self.controls, parts, strict=True)
        )
        return reduce(_added, found)


def _added(a: Residuals, b: Residuals) -> Residuals:
    if a.weights and b.weights:
        raise UserError("only one of several controls may train part of the U-Net; leave the other out")
    middles = _sums(*([] if one.middle is None else [one.middle] for one in (a, b)))
    return Residuals(
        down=_sums(a.down, b.down),
        middle=middles[0] if middles else None,
        encoder=_sums(a.encoder, b.encoder),
        weights={**a.weights, **b.weights},
    )


def _sums(a: Sequence[Tensor], b: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the sums of residuals in the same places; what only one side has stays as it is."""
    return [x + y for x, y in zip(a, b, strict=True)] if a and b else a or b


class WithPromptAlone(nn.Module):
    """A control that acts on the second half of a batch, the branch with the prompt, with weighted residuals."""

    def __init__(self, control: nn.Module, weighting: str) -> None:
        super().__init__()
        self.control = control
        self.weighting = weighting

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Residuals:
        """Return residuals (2 B, ...) that are zero in their first half."""
        half = len(latents) // 2
        found: Residuals = self.control(latents[half:], timesteps, text[half:], image[half:])
        if found.middle is None or found.encoder or found.weights:
            raise UserError(f"control weighting {self.weighting} is for residuals at the skips alone; use uniform")
        residuals = [*found.down, found.middle]
        weights = residual_weights(self.weighting, latents.shape[-1], [residual.shape[-1] for residual in residuals])
        both = [
            torch.cat([torch.zeros_like(residual), residual * weight])
            for residual, weight in zip(residuals, weights, strict=True)
        ]
        return found._replace(down=both[:-1], middle=both[-1])


@contextmanager
def encoded_once(control: nn.Module | None) -> Iterator[None]:
    """Let the parts of a control that see the conditioning image alone compute their answer once, not in every step.

    A module names them in `image_encoders`. In a ControlNet of the bundled base that is a sixth of a step's operations,
    of a T2I-Adapter it is all.
    """
    modules = control.modules() if control is not None else ()
    parts = dict.fromkeys(part for module in modules for part in getattr(module, "image_encoders", ()))
    for part in parts:
        part.forward = _Once(part.forward)
    try:
        yield
    finally:
        for part in parts:
            del part.forward  # the class's own shows again


class _Once:
    """Answers for a tensor, or the same part of one, that it saw last as it did then."""

    def __init__(self, compute: Callable[[Tensor], Any]) -> None:
        self._compute = compute
        self._seen: tuple[Any, ...] | None = None
        self._answer: Any = None

    def __call__(self, image: Tensor) -> Any:
        place = (image.untyped_storage()._cdata, image.storage_offset(), image.shape, image.stride(), image.dtype)
        seen = (*place, image._version)
        if seen != self._seen:
            self._seen, self._answer = seen, self._compute(image)
        return self._answer


def residual_weights(weighting: str, latent_side: int, sides: Sequence[int]) -> list[float]:
    """Return the weight of each residual, the middle last, from its side and that of the latents."""
    if weighting == "resolution":
        return [latent_side / side for side in sides]
    return [_GUESS_DECAY ** (len(sides) - 1 - i) for i in range(len(sides))]
