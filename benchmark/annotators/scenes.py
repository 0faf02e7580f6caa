"""The bundled referee of the scenes world: a small network that segments 64 x 64 renders."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Annotator, Images, Map
from benchmark.scenes.models import REFEREE_FILE, Referee, load_referee, to_input

_BATCH = 64


@dataclass(frozen=True)
class Scenes(Annotator):
    """Segmentation into the classes of the scenes palette."""

    condition: ClassVar[str] = "seg"

    @cached_property
    def _referee(self) -> Referee:
        return load_referee()

    def identity(self) -> dict[str, str]:
        """Return the hash of the referee's weights."""
        return {"weights_sha256": sha256_file(REFEREE_FILE)}

    @torch.inference_mode()
    def annotate(self, images: Images) -> list[Map]:
        """Return one uint16 (64, 64) id map for each image of uint8 (N, 64, 64, 3)."""
        ids = [self._referee(to_input(images[i : i + _BATCH])).argmax(dim=1) for i in range(0, len(images), _BATCH)]
        return [Map(map_) for map_ in torch.cat(ids).numpy().astype(np.uint16)]
