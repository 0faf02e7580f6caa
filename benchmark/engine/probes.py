"""Does a run follow its condition yet? A few fixed conditions, prompts and noises, drawn and scored while it trains.

The loss does not show when control begins (it is flat before and after); the score of fixed conditions does.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmark.contracts.plugins import Annotator, Condition, Images
from benchmark.engine.bases import Base, at_a_time
from benchmark.engine.diffusion import Sampling, draw
from benchmark.engine.imagesets import Reference
from benchmark.engine.latents import round_trip

PROBE_SAMPLES = 64


@dataclass(frozen=True)
class Probe:
    """Fixed samples of the validation split, with all it takes to draw and score them.

    Attributes:
        base: The frozen model.
        condition: What is followed.
        referee: Reads the condition back from what is drawn.
        reference: The samples: maps, captions and real images.
        settings: How images are drawn; the noise of a sample never changes.
    """

    base: Base
    condition: Condition
    referee: Annotator
    reference: Reference
    settings: Sampling

    def __call__(self, module: nn.Module | None) -> dict[str, float]:
        """Return the condition's scores of what a module (None: the base alone) draws, and normalised control of each.

        Normalised control is (run - no control) / (vae - no control) on the same samples; it is left out where the
        autoencoder's round trip scores no better than the base alone.
        """
        scores = self._floor if module is None else self._scores(self._drawn(module))
        named = {name: round(value, 6) for name, value in scores.items()}
        for name, value in scores.items():
            room = self._ceiling[name] - self._floor[name]
            if room * (-1 if name in self.condition.errors else 1) > 0:
                named[f"{name}.normalised"] = round((value - self._floor[name]) / room, 6)
        return named

    @cached_property
    def _pictures(self) -> Images:
        return self.reference.images()

    @cached_property
    def _floor(self) -> dict[str, float]:
        return self._scores(self._drawn(None))

    @cached_property
    def _ceiling(self) -> dict[str, float]:
        return self._scores(round_trip(self.base, self._pictures))

    @cached_property
    def _conditioning(self) -> NDArray[np.uint8]:
        side = self._pictures.shape[1]
        maps = [self.condition.decode(data) for data in self.reference.maps]
        return np.stack([self.condition.render(map_, side) for map_ in maps])

    def _drawn(self, module: nn.Module | None) -> Images:
        parts, few = [], at_a_time(self._pictures.shape[1])
        for i in range(0, len(self.reference.keys), few):
            one = slice(i, i + few)
            keys, captions = self.reference.keys[one], self.reference.captions[one]
            parts.append(draw(self.base, module, keys, captions, self._conditioning[one], self.settings))
        return np.concatenate(parts)

    def _scores(self, images: Images) -> dict[str, float]:
        truth = [self.condition.decode(data) for data in self.reference.maps]
        read = self.referee.annotate(images)
        rows = [self.condition.compare(a, b) for a, b in zip(truth, read, strict=True)]
        return {name: float(value) for name, value in self.condition.scores(np.sum(rows, axis=0)).items()}
