"""DINOv2 image vectors (Oquab et al., arXiv 2304.07193): where Inception misranks diffusion, people agree with these.

Stein et al., arXiv 2306.04675, for the Frechet distance of ViT-L/14; resized as there, by PIL's bicubic filter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import Dinov2Model

from benchmark.base.errors import UserError, first_line
from benchmark.contracts.plugins import Encoder, Images
from benchmark.engine.pretrained import (
    UNREADABLE,
    choose_device,
    hash_weights,
    load_whole,
    quiet_libraries,
    single_precision,
)

_BATCH = 32
_SIDE = 224
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet
_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Dinov2(Encoder):
    """The class token after the last norm; `model` is a transformers hub id or a folder."""

    model: str = "facebook/dinov2-large"

    @cached_property
    def _network(self) -> Dinov2Model:
        quiet_libraries()
        try:
            network = load_whole(Dinov2Model, self.model)
        except UNREADABLE as error:
            reason = first_line(error)
            raise UserError(f'no DINOv2 "{self.model}" ({reason}); give a hub id or a folder: dinov2:PLACE') from None
        return network.eval().to(choose_device(None))

    def identity(self) -> dict[str, str]:
        """Return the name of the space and the hash of its weights."""
        return {"space": "dinov2, class token, PIL bicubic to 224", "weights_sha256": hash_weights(self._network)}

    @torch.inference_mode()
    @single_precision()
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return float32 (N, D) of images of any size."""
        parts = []
        for i in range(0, len(images), _BATCH):
            pixels = np.stack([_prepared(image) for image in images[i : i + _BATCH]])
            batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._network.device)
            parts.append(self._network(pixel_values=batch).pooler_output.cpu().numpy())
        return np.concatenate(parts)


def _prepared(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    resized = np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.asarray((resized / 255 - _MEAN) / _STD)
