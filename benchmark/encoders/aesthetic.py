"""Aesthetic scores of images: a predictor of LAION's on unit CLIP vectors (Schuhmann et al., arXiv 2210.08402).

Two kinds are published: one layer (github.com/LAION-AI/aesthetic-predictor), and five without anything but dropout in
between (github.com/christophschuhmann/improved-aesthetic-predictor). They do not agree: a record has the hash.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.base.errors import UserError, first_line
from benchmark.base.files import canonical_json, sha256, sha256_file
from benchmark.contracts.plugins import Encoder, Images
from benchmark.encoders.clip import Clip

_USUAL = "sa_0_4_vit_l_14_linear.pth"  # where LAION's own code keeps it: ~/.cache/emb_reader
_KINDS = ("weight", "bias")
_LAYERS = ("0", "2", "4", "6", "7")  # of the improved predictor; dropout has the other numbers


@dataclass(frozen=True)
class Aesthetic(Encoder):
    """One score an image, usually 1 to 10; `head` is the file of a predictor, `clip` the model it was trained on."""

    head: str = str(Path("~/.cache/emb_reader") / _USUAL)
    clip: str = "openai/clip-vit-large-patch14"

    @cached_property
    def _clip(self) -> Clip:
        return Clip(self.clip)

    @property
    def _file(self) -> Path:
        path = Path(self.head).expanduser()
        if not path.is_file():
            raise UserError(
                f"the aesthetic predictor is missing: put {_USUAL}, as github.com/LAION-AI/aesthetic-predictor holds "
                f"it, at {path}, or name its place as in clip_aesthetic:FILE"
            )
        return path

    @cached_property
    def _head(self) -> nn.Module:
        """The predictor's layers, in their order.

        Raises:
            UserError: A file of anything else; pickled code is not run.
        """
        try:
            state: dict[str, Tensor] = torch.load(self._file, map_location="cpu", weights_only=True)
            prefixes = [f"layers.{number}." for number in _LAYERS] if "layers.0.weight" in state else [""]
            shapes = [state[f"{prefix}weight"].shape for prefix in prefixes]
            layers = [nn.Linear(width, height) for height, width in shapes]
            named = {f"{i}.{kind}": state.pop(prefix + kind) for i, prefix in enumerate(prefixes) for kind in _KINDS}
            head = nn.Sequential(*layers)
            head.load_state_dict(named)
        except Exception as error:  # a damaged file raises many kinds
            raise UserError(
                f"{self._file} holds no aesthetic predictor ({first_line(error)}); fetch it again"
            ) from None
        if state or shapes[-1][0] != 1:
            raise UserError(f"{self._file} holds another network than LAION's linear predictors; fetch one of those")
        return head.eval()

    def identity(self) -> dict[str, str]:
        """Return the name of the space, and one hash for predictor and CLIP."""
        clip = self._clip.identity()
        digest = sha256(canonical_json([sha256_file(self._file), clip["weights_sha256"]]))
        return {"space": f"aesthetic on {clip['space']}", "weights_sha256": digest}

    @torch.inference_mode()
    def encode(self, images: Images) -> NDArray[np.float32]:
        """Return the scores, float32 (N, 1), of images of any size.

        Raises:
            UserError: The predictor is one of vectors of another width.
        """
        vectors = torch.from_numpy(self._clip.encode(images))
        wanted = next(self._head.parameters()).shape[1]
        if vectors.shape[1] != wanted:
            raise UserError(
                f"{self._file} predicts from {wanted} numbers, {self.clip} gives {vectors.shape[1]}; give the model it "
                "was trained on, as in clip_aesthetic:FILE,clip=MODEL"
            )
        scores: NDArray[np.float32] = self._head(vectors).numpy()
        return scores
