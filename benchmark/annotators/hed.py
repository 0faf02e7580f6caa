"""Soft edges of HED (Xie & Tu 2015) as the ControlNet authors trained it again, from controlnet-aux."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.annotators._edges import SoftEdges


@dataclass(frozen=True)
class Hed(SoftEdges):
    """The mean of five scales; on smooth ground it finds texture that nobody would draw."""

    kind: ClassVar[str] = "hed"
