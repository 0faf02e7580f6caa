"""Features of the bundled scenes referee: 64 dimensions, so that a few hundred images give a Frechet distance."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images
from benchmark.scenes.models import REFEREE_FILE, Referee, load_referee, to_input

_BATCH = 64


@dataclass(frozen=True)
class Scenes(Encoder):
    """Mean bottleneck activations of the segmentation referee; images must be 64 x 64."""

    @cached_property
    def _referee(self) -> Referee:
        return load_referee()

    def identity(self) -> dict[str, str]:
        """Return the name of the space and the hash of its weights."""
        return {"space": "scenes", "weights_sha256": sha256_file(REFEREE_FILE)}

    @torch.inference_mode()
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return float32 (N, 64)."""
        parts = [self._referee.features(to_input(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
        return torch.cat(parts).numpy()
