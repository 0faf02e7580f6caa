"""Captions for images that have none, by an image-to-text model of transformers."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from huggingface_hub.errors import HFValidationError
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmark.base.errors import UserError, first_line
from benchmark.base.files import canonical_json, sha256, sha256_file
from benchmark.base.provenance import versions_of
from benchmark.contracts.plugins import Images
from benchmark.engine.pretrained import UNREADABLE, choose_device, load_whole, quiet_libraries

_BATCH = 16
_MAX_NEW_TOKENS = 40
_PARTS = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class Captioner:
    """A model such as BLIP that writes a caption from the image alone, greedily: no draw, no beam, 40 tokens at most.

    Attributes:
        model: Hub id, or a folder in the hub's layout, with weights as safetensors.
        revision: Commit, tag or branch of the hub repository.
    """

    model: str
    revision: str | None = None

    @classmethod
    def of(cls, text: str) -> "Captioner":
        """Return the captioner of ``MODEL`` or ``MODEL@REVISION``."""
        if Path(text).is_dir():
            return cls(text)
        model, _, revision = text.partition("@")
        return cls(model, revision or None)

    @cached_property
    def _folder(self) -> Path:
        if Path(self.model).is_dir():
            return Path(self.model)
        try:
            offline = is_offline_mode()  # said, since older versions ask the hub even for a commit they have
            return Path(
                snapshot_download(self.model, revision=self.revision, allow_patterns=_PARTS, local_files_only=offline)
            )
        except (OSError, HFValidationError) as error:
            reason = first_line(error)
            raise UserError(f"no captioner {self.model} ({reason}); give a hub id or a folder") from None

    def identity(self) -> dict[str, Any]:
        """Return what pins the captions: the commit, the content of the files, and how they are used.

        Raises:
            UserError: The model is nowhere to be had, or is none that captions images.
        """
        _load(self._folder)
        files = sorted({path for pattern in _PARTS for path in self._folder.glob(pattern)})
        content = sha256(canonical_json([[path.name, sha256_file(path)] for path in files]))
        commit = None if Path(self.model).is_dir() else self._folder.name
        versions = versions_of(("torch", "transformers"))
        return {"commit": commit, "content_sha256": content, "max_new_tokens": _MAX_NEW_TOKENS, "versions": versions}

    @torch.inference_mode()
    def caption(self, images: Images) -> list[str]:
        """Return a caption for each image of uint8 (N, H, W, 3) RGB; empty where the model has nothing to say."""
        processor, model = _load(self._folder)
        texts: list[str] = []
        for i in range(0, len(images), _BATCH):
            inputs = processor(images=list(images[i : i + _BATCH]), return_tensors="pt").to(model.device)
            tokens = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=_MAX_NEW_TOKENS)
            texts += [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
        return texts


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Any]:
    quiet_libraries()
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model = load_whole(AutoModelForImageTextToText, folder, trust_remote_code=False)
    except UNREADABLE as error:
        reason = first_line(error)
        raise UserError(
            f"{folder} captions no images ({reason}); give an image-to-text model of transformers with safetensors, "
            f"such as a BLIP"
        ) from None
    return processor, model.to(choose_device(None)).eval()
