"""Any transformers checkpoint for one map an image, with the image processor that belongs to it."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig

from benchmark.annotators._hub import Weights, batches
from benchmark.base.errors import UserError, first_line
from benchmark.contracts.plugins import Annotator, Images, Map
from benchmark.engine.pretrained import UNREADABLE, choose_device, load_whole, quiet_libraries

_FILES = {"config": "config.json", "processor": "preprocessor_config.json"}


@lru_cache(maxsize=2)
def _load(auto: Any, model: str, revision: str | None) -> Any:
    """Return a model kept for the next shard, in single precision on the best device there is."""
    quiet_libraries()
    try:
        loaded = load_whole(auto, model, revision=revision, trust_remote_code=False)
    except UNREADABLE as error:
        reason = first_line(error)
        raise UserError(f"{model} cannot be loaded ({reason}); give a checkpoint with safetensors weights") from None
    return loaded.eval().requires_grad_(False).to(choose_device(None))


@dataclass(frozen=True)
class Checkpoint(Annotator):
    """A model and its image processor, which resizes as the model was trained; maps come back at the image's own size.

    Attributes:
        model: Hub id or folder; the weights must be one file model.safetensors.
        revision: Commit, tag or branch of the hub; pin a commit for a dataset that must not change.
    """

    model: str
    revision: str | None = None

    @property
    def _weights(self) -> Weights:
        return Weights(self.model, self.revision, "model.safetensors")

    def _file(self, name: str) -> Weights:
        return Weights(self.model, self._weights.commit, _FILES[name])

    def identity(self) -> dict[str, str]:
        """Return the sha256 of the weights, of the model's configuration and the processor's, and the hub's commit."""
        hashes = {f"{name}_sha256": self._file(name).identity()["weights_sha256"] for name in _FILES}
        return {**self._weights.identity(), **hashes}

    @cached_property
    def _config(self) -> PretrainedConfig:
        path = self._file("config").path
        try:
            return AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
        except UNREADABLE as error:
            raise UserError(f"{path} describes no transformers model ({first_line(error)})") from None

    @cached_property
    def _processor(self) -> Any:
        path = self._file("processor").path
        try:
            return AutoImageProcessor.from_pretrained(path.parent, trust_remote_code=False)
        except UNREADABLE as error:
            raise UserError(f"{path} describes no image processor ({first_line(error)})") from None

    @property
    @abstractmethod
    def _auto(self) -> Any:
        """The transformers class that loads the model."""

    @abstractmethod
    def _maps(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[NDArray[Any]]:
        """Return canonical maps of the model's outputs for images of sizes (height, width)."""

    @torch.inference_mode()
    def annotate(self, images: Images) -> list[Map]:
        """Return one map for each image of uint8 (N, H, W, 3) RGB, at its own size."""
        model = _load(self._auto, self.model, self._weights.commit)
        found: list[NDArray[Any]] = []
        for batch in batches(images):
            inputs = self._processor(images=[np.ascontiguousarray(image) for image in batch], return_tensors="pt")
            outputs = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
            found += self._maps(outputs, [images.shape[1:3]] * len(batch))
        return [Map(each) for each in found]
