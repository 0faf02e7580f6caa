"""CLIP image and text vectors: the bundled scenes CLIP, or any transformers CLIP by hub id or path."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from benchmark.base.errors import UserError, first_line
from benchmark.base.files import canonical_json, sha256, sha256_file
from benchmark.contracts.plugins import Encoder, Images
from benchmark.engine.pretrained import (
    UNREADABLE,
    choose_device,
    hash_weights,
    load_whole,
    quiet_libraries,
    single_precision,
)
from benchmark.scenes.models import CLIP_FOLDER

_BATCH = 64


@dataclass(frozen=True)
class Clip(Encoder):
    """Unit vectors of a CLIP model; `model` is "scenes", a hub id or a folder."""

    model: str = "scenes"

    @property
    def _folder(self) -> str:
        return str(CLIP_FOLDER) if self.model == "scenes" else self.model

    @cached_property
    def _clip(self) -> CLIPModel:
        quiet_libraries()
        return self._part(partial(load_whole, CLIPModel)).eval().to(choose_device(None))

    @cached_property
    def _tokenizer(self) -> CLIPTokenizer:
        return self._part(CLIPTokenizer.from_pretrained)

    @cached_property
    def _processor(self) -> CLIPImageProcessorPil:
        return self._part(CLIPImageProcessorPil.from_pretrained)

    def _part(self, load: Callable[[str], Any]) -> Any:
        """Return the model, the tokenizer or the processor.

        Raises:
            UserError: It is not to be had.
        """
        try:
            return load(self._folder)
        except UNREADABLE as error:
            reason = first_line(error)
            raise UserError(f'no CLIP "{self.model}" ({reason}); give a hub id or a folder: clip:PLACE') from None

    def identity(self) -> dict[str, str]:
        """Return the name of the space and the hashes of its weights and its vocabulary."""
        weights = Path(self._folder) / "model.safetensors"
        # a model of the hub, or one in several files, is told by its tensors
        digest = sha256_file(weights) if weights.exists() else hash_weights(self._clip)
        vocabulary = sha256(canonical_json(self._tokenizer.get_vocab()))
        name = Path(self.model).name if Path(self.model).is_dir() else self.model
        return {"space": f"clip-{name}", "weights_sha256": digest, "vocabulary_sha256": vocabulary}

    @torch.inference_mode()
    @single_precision()
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return unit vectors, float32 (N, D), of images of any size."""
        parts = []
        for i in range(0, len(images), _BATCH):
            batch = self._processor(list(images[i : i + _BATCH]), return_tensors="pt").to(self._clip.device)
            parts.append(_unit(self._clip.get_image_features(pixel_values=batch.pixel_values).pooler_output))
        return np.concatenate(parts)

    @torch.inference_mode()
    @single_precision()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, float32 (N, D), of texts cut at the model's length."""
        parts = []
        for i in range(0, len(texts), _BATCH):
            batch = list(texts[i : i + _BATCH])
            tokens = self._tokenizer(batch, padding=True, truncation=True, return_tensors="pt").to(self._clip.device)
            parts.append(_unit(self._clip.get_text_features(**tokens).pooler_output))
        return np.concatenate(parts)


def _unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
    return array
