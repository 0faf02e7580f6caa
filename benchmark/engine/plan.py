"""The plan of a dataset: everything that decides its bytes, and nothing about its size."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmark.base.errors import UserError
from benchmark.base.files import (
    canonical_json,
    create_once,
    difference,
    pretty_json,
    read_json,
    refuse_foreign,
    sha256,
    without_empty,
)
from benchmark.base.forms import read_form
from benchmark.base.provenance import versions_of

PLAN_VERSION = 1
_ENCODERS = ("pyarrow", "opencv-python-headless", "pillow", "simplejpeg", "numba")
_NETWORKS = ("torch", "transformers", "controlnet-aux")  # what a network sees depends on who resizes and normalises


@dataclass(frozen=True)
class Plan:
    """Plugins as `registry.describe` writes them, the source's identity, and versions of what makes bytes.

    Attributes:
        captioner: Of captions that are missing, its model, commit and hash; None without one.
        hygiene: The checks and their limits as `hygiene.settings` gives them, or None where nothing is checked.
    """

    source: dict[str, Any]
    source_identity: dict[str, Any]
    conditions: list[dict[str, Any]]
    annotators: dict[str, dict[str, Any] | None]
    annotator_identities: dict[str, dict[str, str]]
    resolution: int
    versions: dict[str, str]
    plan_version: int = PLAN_VERSION
    captioner: dict[str, Any] | None = None
    hygiene: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a plan whose plugins have no names, as only one from elsewhere can be."""
        if self.plan_version != PLAN_VERSION:
            raise UserError(f"a plan of version {self.plan_version}, not {PLAN_VERSION}; build the dataset again")
        plugins = [self.source, *self.conditions, *(a for a in self.annotators.values() if a is not None)]
        names = [condition.get("name") for condition in self.conditions]
        if not names or not all(isinstance(plugin.get("name"), str) for plugin in plugins):
            raise UserError("a plan without a source and conditions by name; build the dataset again")
        if {*names} != {*self.annotators}:
            raise UserError("a plan whose annotators are not those of its conditions; build the dataset again")

    @staticmethod
    def versions_now(identities: Iterable[dict[str, Any]], captioner: dict[str, Any] | None) -> dict[str, str]:
        """Return the versions of the libraries that decode, resize and encode, and of those that run its networks."""
        networks = _NETWORKS if captioner or any(identities) else ()
        return versions_of((*_ENCODERS, *networks))

    def record(self) -> dict[str, Any]:
        """Return the plan as it is written: without a key for what is not asked for."""
        return without_empty(asdict(self), "captioner", "hygiene")

    @property
    def loads_models(self) -> bool:
        """Whether networks see its images: annotators with weights, or a captioner."""
        return self.captioner is not None or any(self.annotator_identities.values())

    @property
    def hash(self) -> str:
        """The sha256 of the plan: the name of the build."""
        return sha256(canonical_json(self.record()))

    def write(self, folder: Path) -> None:
        """Put the plan into a dataset folder, or check that the folder already holds this one.

        Raises:
            UserError: The folder holds another plan, or files that are no dataset.
        """
        path = folder / "plan.json"
        refuse_foreign(folder, path)
        if not create_once(path, pretty_json(self.record())):
            present = read_json(path)
            if present != self.record():
                changes = difference(present, self.record())
                raise UserError(f"{folder} holds another plan ({changes}); give another --out or delete the folder")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the plan of a dataset folder.

        Raises:
            UserError: The folder holds no valid plan.
        """
        if not (folder / "plan.json").exists():
            raise UserError(f"{folder} is no dataset folder (no plan.json); make one with python -m benchmark.build")
        return read_form(cls, folder / "plan.json", "build the dataset again")
