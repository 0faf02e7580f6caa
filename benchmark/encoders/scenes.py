"""Features of the bundled scenes referee: 64 dimensions, so that a few hundred images give a Frechet distance."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images
from benchmark.scenes.models import REFEREE_FILE, Referee, load_referee
from benchmark.scenes.reading import features


@dataclass(frozen=True)
class Scenes(Encoder):
    """Mean bottleneck activations of the referee; images must be 64 x 64."""

    @cached_property
    def _referee(self) -> Referee:
        return load_referee()

    def identity(self) -> dict[str, str]:
        """Return the name of the space and the hash of its weights."""
        return {"space": "scenes", "weights_sha256": sha256_file(REFEREE_FILE)}

    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return float32 (N, 64)."""
        return features(self._referee, images).astype(np.float32)
