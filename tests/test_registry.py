"""The registry: one grammar for every plugin, found by file name, with errors that finish the sentence."""

import subprocess
import sys
import types
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmark import registry, train
from benchmark.base.errors import UserError
from benchmark.base.images import encode_png
from benchmark.contracts.plugins import Annotator, Condition, Encoder, Images, Map, Method, Metric, Source

_EVERY = [(family, name) for family in registry.FAMILIES for name in registry.names(family)]
every_plugin = pytest.mark.parametrize(("family", "name"), _EVERY)


@pytest.mark.parametrize(
    ("family", "some"),
    [
        (Source, {"scenes", "folder", "hub", "parquet", "webdataset"}),
        (Condition, {"canny", "seg"}),
        (Annotator, {"canny", "scenes"}),
        (Encoder, {"clip", "scenes"}),
        (Method, {"controlnet", "controlnet_lite", "t2i_adapter"}),
        (Metric, {"clip_score", "cmmd", "diversity", "fd", "kid"}),
    ],
)
def test_plugins_are_the_files_of_their_family(family: type[Any], some: set[str]) -> None:
    names = registry.names(family)
    folder = Path(registry.__file__).parent / registry.FAMILIES[family]
    assert some <= set(names)
    assert names == sorted(names)
    assert set(names) == {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}


def test_listing_names_imports_nothing() -> None:
    code = (
        "import sys; from benchmark import registry\n"
        "for family in registry.FAMILIES: assert registry.names(family)\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "own = [m for m in sys.modules if m.startswith(tuple(f'benchmark.{f}' for f in registry.FAMILIES.values()))]\n"
        "assert not heavy and not own, (heavy, own)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_root(), check=False)
    assert done.returncode == 0, done.stderr


def _root() -> Path:
    return Path(registry.__file__).parents[1]


@every_plugin
def test_every_plugin_is_a_frozen_dataclass_of_its_family_with_a_sentence(family: type[Any], name: str) -> None:
    plugin = registry._load(family, name)
    assert issubclass(plugin, family)
    assert plugin.__dataclass_params__.frozen
    assert len((sys.modules[plugin.__module__].__doc__ or "").strip()) > 20


def test_a_bare_name_has_all_defaults() -> None:
    assert registry.describe(registry.make(Condition, "canny")) == {"name": "canny", "low": 100, "high": 200}


def test_fields_are_typed() -> None:
    assert registry.describe(registry.make(Condition, "canny,low=20,high=60")) == {
        "name": "canny",
        "low": 20,
        "high": 60,
    }


def test_the_argument_is_the_first_field() -> None:
    assert registry.make(Encoder, "clip:a/b") == registry.make(Encoder, "clip,model=a/b")
    assert registry.make(Source, "scenes:3") == registry.make(Source, "scenes,seed=3")


@pytest.mark.parametrize("path", ["my photos, 2024", "a,b/c,D=1", "a:b", "C:/x", "s3://bucket/k", "a,B=c", "x=1/y"])
def test_a_path_may_hold_commas_colons_and_equals_signs(path: str) -> None:
    assert registry.describe(registry.make(Encoder, f"clip:{path}"))["model"] == path


def test_fields_may_follow_a_path_with_commas() -> None:
    made = registry.make(Encoder, "clip,model=a,b/c=d")
    assert registry.describe(made) == {"name": "clip", "model": "a,b/c=d"}
    assert registry.describe(registry.make(Source, "scenes:3,val=8,test=9")) == {
        "name": "scenes", "seed": 3, "val": 8, "test": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("family", "spec", "words"),
    [
        (Condition, "cany", 'no condition "cany"; did you mean "canny"? allowed: canny, '),
        (Source, "scene", 'no source "scene"; did you mean "scenes"?'),
        (Metric, "", 'no metric ""; allowed: '),
        (Condition, "_private", 'no condition "_private"'),
        (Condition, "../seg", 'no condition "../seg"'),
        (Condition, "Canny", 'no condition "Canny"; did you mean "canny"?'),
        (Condition, "canny,lo=3", 'canny has no field "lo"; did you mean "low"? allowed: high, low'),
        (Condition, "canny,annotator=x", 'canny has no field "annotator"'),
        (Condition, "canny,low=much", 'canny: low="much" is no int'),
        (Condition, "canny,low=", 'canny: low="" is no int'),
        (Condition, "canny,low=1.5", 'canny: low="1.5" is no int'),
        (Annotator, "canny:x", 'canny: low="x" is no int'),
        (Annotator, "scenes:x", 'scenes reads no "x"; allowed: depth, lines'),
        (Encoder, "scenes:x", 'scenes takes no argument, but "x" was given'),
        (Source, "folder", "folder needs path: write folder:PATH or folder,path=..."),
    ],
)
def test_errors_say_what_was_wrong_and_what_is_allowed(family: type[Any], spec: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        registry.make(family, spec)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_an_argument_and_its_field_together_are_refused() -> None:
    with pytest.raises(UserError, match="seed"):
        registry.make(Source, "scenes:1,seed=2")


@every_plugin
def test_what_is_described_can_be_made_again(family: type[Any], name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    needs_path = any(registry._is_required(field) for field in fields(registry._load(family, name)))
    plugin = registry.make(family, f"{name}:{tmp_path}" if needs_path else name)
    assert registry.describe(plugin)["name"] == name
    assert registry.remake(family, registry.describe(plugin)) == plugin


def test_a_name_of_one_family_is_unknown_in_another() -> None:
    with pytest.raises(UserError, match='no metric "canny"'):
        registry.make(Metric, "canny")


@pytest.mark.parametrize(("cond", "own"), [("depth", "scenes,kind=depth"), ("canny", "canny")])
def test_a_condition_is_read_back_by_its_own_referee_or_the_one_asked_for(cond: str, own: str) -> None:
    condition = registry.make(Condition, cond)
    assert registry.spec(registry.make_referee(None, condition, "scenes")).startswith(own)
    assert registry.make_referee(own, condition, "folder") == registry.make(Annotator, own)
    with pytest.raises(UserError, match=f"the referee scenes:seg makes seg maps, but the condition is {cond}"):
        registry.make_referee("scenes:seg", condition, "scenes")


def test_the_referee_of_scenes_reads_no_other_pictures_unless_it_is_asked_to() -> None:
    told = r"scenes,kind=depth reads depth off images of scenes alone, not of hub; give --referee"
    with pytest.raises(UserError, match=told):
        registry.make_referee(None, registry.make(Condition, "depth"), "hub")
    assert registry.make_referee(None, registry.make(Condition, "canny"), "hub").world is None


def test_a_referee_without_a_probe_to_read_is_refused(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", str(tiny_dataset), "--probe-every", "0", "--referee", "scenes:seg", "--out", "nowhere"]
    assert train.main(words) == 2
    assert "--referee reads the images of a probe, and there is none" in capsys.readouterr().err


@dataclass(frozen=True)
class Toy(Annotator):
    """A plugin of another package, with a field of every kind."""

    share: float = 0.5
    deep: bool = False
    limit: int | None = None

    condition: ClassVar[str] = "canny"

    def annotate(self, images: Images) -> list[Map]:
        return []


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package whose entry point is not named like its module, as is usual."""
    module = types.ModuleType("acme_annotators")
    monkeypatch.setattr(Toy, "__module__", "acme_annotators")
    module.Toy = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_annotators", module)
    point = EntryPoint("toy", "acme_annotators:Toy", "benchmark.annotators")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(registry, "_entry_points", registry._entry_points.__wrapped__)  # not what was found before


@pytest.mark.usefixtures("_toy")
def test_other_packages_add_plugins_by_entry_points() -> None:
    assert "toy" in registry.names(Annotator)
    assert "toy" not in registry.names(Condition)
    assert registry.make(Annotator, "toy:0.25,deep=true,limit=3") == Toy(0.25, True, 3)
    assert registry.make(Annotator, "toy,deep=false") == Toy()
    with pytest.raises(UserError, match='toy: deep="yes" is no truth value; allowed: true, false'):
        registry.make(Annotator, "toy,deep=yes")


@pytest.mark.usefixtures("_toy")
def test_a_plugin_of_another_package_can_be_made_again_from_its_description() -> None:
    toy = registry.make(Annotator, "toy,share=0.1")
    assert registry.describe(toy) == {"name": "toy", "share": 0.1, "deep": False, "limit": None}
    assert registry.remake(Annotator, registry.describe(toy)) == toy
