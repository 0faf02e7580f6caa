"""Inception features as clean-fid computes them: its network, its resize, and nothing else is called FID.

Parmar et al., arXiv 2104.11222. The network is a TorchScript file, which is a program: none but the published one is
loaded, unless another is named by its hash.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from numpy.typing import NDArray

from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images
from benchmark.engine.pretrained import choose_device, single_precision

_FILE = "inception-2015-12-05.pt"
_PUBLISHED = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_BATCH = 32


@dataclass(frozen=True)
class Inception(Encoder):
    """Pool features, 2048 dimensions; `weights` is the file of that name or its folder, by default clean-fid's own."""

    weights: str = "/tmp"
    sha256: str = _PUBLISHED

    @cached_property
    def _checked(self) -> Path:
        """The file, its content checked."""
        path = Path(self.weights) if Path(self.weights).name == _FILE else Path(self.weights) / _FILE
        if not path.is_file():
            raise UserError(
                f"the weights of Inception are missing: put {_FILE}, as clean-fid downloads it, at {path}, or name "
                "its place as in fid:FOLDER"
            )
        found = sha256_file(path)
        if found != self.sha256:
            raise UserError(f"{path} has the sha256 {found}, not {self.sha256}; it is not loaded: replace it")
        return path

    @cached_property
    def _network(self) -> InceptionV3W:
        with catch_warnings():
            simplefilter("ignore", FutureWarning)  # TorchScript is on its way out; the published network is one
            network = InceptionV3W(str(self._checked.parent), download=False)
        return network.to(choose_device(None))

    def identity(self) -> dict[str, str]:
        """Return the name of the space and the hash of its weights."""
        return {"space": "inception, clean-fid", "weights_sha256": sha256_file(self._checked)}

    @torch.inference_mode()
    @single_precision()
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return float32 (N, 2048) of images of any size, each resized alone as clean-fid resizes."""
        resize, device = build_resizer("clean"), choose_device(None)
        parts = []
        for i in range(0, len(images), _BATCH):
            pixels = np.stack([resize(image) for image in images[i : i + _BATCH]]).transpose(0, 3, 1, 2)
            parts.append(self._network(torch.from_numpy(pixels).to(device)).cpu().numpy())
        return np.concatenate(parts)
