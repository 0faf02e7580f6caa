"""A build holds every map to the form its condition declares, whoever made it."""

import sys
import types
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from benchmark import build, registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Annotator, Condition, Images, Map
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.imagesets import load_reference
from benchmark.observation import Evidence, ReadBack


@dataclass(frozen=True)
class Marks(Annotator):
    """Marks where red is strong; what is done to them is a field."""

    fault: str = "none"

    condition: ClassVar[str] = "canny"

    def annotate(self, images: Images) -> list[Map]:
        masks = [image[..., 0] > np.quantile(image[..., 0], 0.9) for image in images]
        if self.fault == "inverted":
            return [Map(~mask) for mask in masks]
        if self.fault == "bytes":
            return [Map(mask.astype(np.uint8) * 255) if i == 1 else Map(mask) for i, mask in enumerate(masks)]
        return [Map(mask) for mask in masks]

    def reject(self, map_: Map) -> str | None:
        bright = map_.array[:32].mean() > map_.array[32:].mean()
        return "the upper half is brighter" if self.fault == "top" and bright else None


@pytest.fixture(autouse=True)
def _marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the annotator as another package's."""
    module = types.ModuleType("acme_marks")
    monkeypatch.setattr(Marks, "__module__", "acme_marks")
    module.Marks = Marks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_marks", module)
    point = EntryPoint("marks", "acme_marks:Marks", "benchmark.annotators")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(registry, "_entry_points", registry._entry_points.__wrapped__)  # not what was found before


def built(photos: Path, out: Path, fault: str, *more: str) -> int:
    words = ["--cond", "canny", "--annotator", f"marks:{fault}", "--source", f"folder:{photos}", "--workers", "1"]
    return build.main([*words, "--no-hygiene", "--out", str(out), *more])


def test_maps_of_the_form_are_built(photos: Path, tmp_path: Path) -> None:
    assert built(photos, tmp_path / "set", "none") == 0
    assert "dropped" not in (tmp_path / "set" / "manifest.json").read_text()


def test_inverted_maps_stop_the_build(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert built(photos, tmp_path / "set", "inverted") == 2
    assert "canny maps of" in (line := capsys.readouterr().err)
    assert "marks must be white on black" in line


def test_a_map_of_another_form_fails_its_row(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert built(photos, tmp_path / "set", "bytes") == 2
    assert "its canny map is uint8 (64, 64), not bool (64, 64)" in capsys.readouterr().err
    assert built(photos, tmp_path / "set", "bytes", "--max-failed", "3") == 0


def test_rejected_rows_are_left_out_and_counted(photos: Path, tmp_path: Path) -> None:
    assert built(photos, tmp_path / "all", "none") == built(photos, tmp_path / "some", "top") == 0
    every, some = (BuiltDataset.open(tmp_path / name) for name in ("all", "some"))
    dropped = {key for split in ("train", "val", "test") for c in some.commits(split) for key in c.dropped}
    kept = {row["key"] for split in ("train", "val", "test") for row in some.rows(split, ["key"])}
    both = {row["key"] for split in ("train", "val", "test") for row in every.rows(split, ["key"])}
    assert dropped
    assert kept.isdisjoint(dropped)
    assert kept | dropped == both
    assert not some.manifest.failed
    assert (
        f"Left out on purpose: {len(dropped)} (the upper half is brighter)" in (some.folder / "README.md").read_text()
    )
    assert build.main(["--verify", str(some.folder), "--recompute", "1"]) == 0


def test_a_referee_with_chance_draws_what_the_build_drew(photos: Path, tmp_path: Path) -> None:
    words = ["--cond", "canny", "--annotator", "random_canny", "--source", f"folder:{photos}", "--workers", "1"]
    assert build.main([*words, "--out", str(tmp_path / "set")]) == 0
    dataset, condition = BuiltDataset.open(tmp_path / "set"), registry.make(Condition, "canny")
    reference = load_reference(dataset, "train", "canny", None)
    images = reference.images()
    evidence = Evidence(slice(0, len(images)), [images], images, images, [images])
    for referee, alike in (("random_canny", True), ("random_canny,seed=1", False), ("canny", False)):
        reading = ReadBack(condition, registry.make(Annotator, referee), reference)
        reading.see(evidence)
        assert (condition.scores(reading.rows["real"].sum(axis=0))["f1"] == 1.0) == alike


def test_an_annotator_at_other_thresholds_than_the_condition_is_refused() -> None:
    condition = registry.make(Condition, "canny,low=20,high=40")
    registry.check_fits(condition, registry.make(Annotator, "canny,low=20,high=40"))
    registry.check_fits(condition, registry.make(Annotator, "random_canny"))
    with pytest.raises(UserError, match="canny,low=100,high=200 and canny,low=20,high=40 differ in high, low"):
        registry.check_fits(condition, registry.make(Annotator, "canny"))


def test_an_annotator_of_other_classes_is_refused() -> None:
    referee = registry.make(Annotator, "scenes:seg")
    condition = registry.make(Condition, "seg")
    registry.check_fits(condition, referee)
    with pytest.raises(UserError, match="tells 7 classes apart, but canny holds None"):
        registry.check_fits(registry.make(Condition, "canny"), referee)
