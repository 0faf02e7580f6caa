"""Soft edges of PiDiNet (Su et al. 2021), from controlnet-aux: thinner and more abstract than those of HED."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.annotators._edges import SoftEdges


@dataclass(frozen=True)
class Pidinet(SoftEdges):
    """The fused output of pixel differences at four scales; faint edges in the dark are lost."""

    kind: ClassVar[str] = "pidinet"
