"""Files from outside, damaged at random or made to harm: each is read as it stands, or refused with one line."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark import registry, study
from benchmark.base.errors import UserError
from benchmark.base.files import sealed_json, sha256
from benchmark.cli import SIZES, fill, parse_size
from benchmark.contracts.plugins import Condition, Encoder, Method, Metric, Source
from benchmark.engine.claims import read_claims
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.imagesets import read_config
from benchmark.engine.plan import Plan
from benchmark.engine.recipes import read_recipe
from benchmark.engine.records import read_failures, read_probes, read_record
from benchmark.engine.runs import RUN, read_finished
from benchmark.engine.shards import read_commit
from benchmark.engine.studies import STUDIES
from benchmark.leaderboard import CLAIMS, main
from benchmark.regress import read_bands
from benchmark.sources.folder import Folder
from benchmark.train import Train
from tests.commands.test_leaderboard import made_up, with_probes

RECIPES = Path(__file__).parents[2] / "datasets"
IMAGES_JSON = {
    "config": {
        "dataset": {"name": "d", "path": "d", "fingerprint": "f"},
        "split": "test",
        "samples": {"n": 2, "sha256": "s"},
        "prompts": "full",
        "sampling": {"eval_seed": 0},
        "base": {"name": "b", "weights_sha256": "w"},
        "condition": {"name": "seg"},
        "control": None,
    },
    "provenance": {},
    "status": "finished",
}
BANDS = {
    "pins": {"dataset": "d", "conditioning": "c", "token_ids": "t", "losses": {"1": 0.5}},
    "runs": [{"seed": "0", "failed": False, "onset": 3, "values": {"control": 0.5}}],
    "environment": {},
}
FAILURE = {
    "failure_id": "f",
    "created": "now",
    "dataset": {"name": "d", "plan_hash": "p"},
    "condition": "seg",
    "method": "controlnet",
    "base": "b",
    "training": {"recipe": {"steps": 1, "batch": 1, "seeds": {}}, "num_samples": 1},
    "reason": "the loss is nan",
    "environment": {},
}
Read = Callable[[Path], object]


def _folder(path: Path) -> None:
    source = Folder(str(path.parent))
    source.identity()
    list(source.read(next(iter(source.parts())), 64))


def _study(path: Path) -> None:
    study.describe(study.read_design(str(path), Path("out")))


def shown(path: Path) -> None:
    """Render the board of one record, as it would be after a pull request."""
    assert main(["--results", str(path.parent), "--html", str(path.parent / "site")]) == 0


def _curve(path: Path) -> None:
    """Read a curve as that of a record which names it as it is."""
    attached = {path.suffix: sha256(path.read_bytes())}
    read_probes(path, made_up("a", 0.5).model_copy(update={"attached": attached}))


def _record(path: Path) -> None:
    read_record(path)
    shown(path)


SEALED = ("images.json", "run.json", "results/record.json", "f.failed.json", "bands.json")
# By the name of a file: what a whole one holds, or how to come by it, and who reads it.
JSON: dict[str, tuple[Any, Read]] = {
    "plan.json": (None, lambda path: Plan.read(path.parent)),
    "manifest.json": (None, lambda path: BuiltDataset.open(path.parent)),
    "commits/val-000000.json": (None, lambda path: read_commit(path.parents[1], "val-000000")),
    "images.json": (IMAGES_JSON, lambda path: read_config(path.parent)),
    "run.json": (IMAGES_JSON, lambda path: read_finished(path.parent, RUN)),
    "results/record.json": (made_up("a", 0.5).model_dump(mode="json"), _record),
    "f.failed.json": (FAILURE, lambda path: read_failures(path.parent)),
    "bands.json": (BANDS, read_bands),
    "curve.jsonl": ({"step": 1, "probe": {"miou.normalised": 0.5}}, _curve),
    "metadata.jsonl": ({"file_name": "a.png", "text": "a"}, _folder),
}
TOML: dict[str, tuple[Path, Read]] = {
    "study.toml": (STUDIES / "smoke.toml", _study),
    "ways.toml": (STUDIES / "ablation.toml", _study),
    "recipe.toml": (RECIPES / "fill50k.toml", lambda path: read_recipe(str(path))),
    "claims.toml": (CLAIMS, read_claims),
}


@pytest.fixture
def place(tmp_path: Path, tiny_dataset: Path, photos: Path) -> Path:
    """A folder that holds a whole file of every kind."""
    for name in ("plan.json", "manifest.json", "commits"):
        copy = shutil.copytree if (tiny_dataset / name).is_dir() else shutil.copyfile
        copy(tiny_dataset / name, tmp_path / name)
    (tmp_path / "results").mkdir()
    for i in range(4):
        shutil.copyfile(photos / "more" / f"tall-{i:02d}.png", tmp_path / f"{'abcd'[i]}.png")
    return tmp_path


def whole(place: Path, name: str) -> bytes:
    if name in TOML:
        return TOML[name][0].read_bytes()
    value = JSON[name][0]
    if value is None:
        return (place / name).read_bytes()
    return written(name, value)


def written(name: str, value: Any) -> bytes:
    """Return a file's content, with the seal that goes with it; unlike ours, it may hold what is no number."""
    plain = json.dumps(value, indent=None if name.endswith("l") else 2).encode()
    seal = b'{\n  "content_sha256": "' + sha256(plain).encode() + b'",'
    return seal + plain[1:] if name in SEALED else plain


def attempt(read: Read, path: Path, data: bytes) -> bool:
    """Read what is written to a file, alone in its place but for what it belongs to; return whether it was taken."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        read(path)
    except UserError:
        return False
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    return True


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
ANY = st.recursive(
    LEAVES | st.sampled_from(["../../x", "\0", "\x1b[2J", "=1+1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
quick = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(data: st.DataObject, text: bytes) -> bytes:
    """Return bytes cut off, with some changed, or others altogether."""
    kind = data.draw(st.sampled_from(["cut", "flip", "other"]))
    if kind == "cut":
        return text[: data.draw(st.integers(0, len(text) - 1))]
    if kind == "other":
        return data.draw(
            st.binary(max_size=40) | st.sampled_from([b"[" * 100_000, b"9" * 5000, b"a=" + b"[" * 100_000])
        )
    changed = bytearray(text)
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) inside a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [pair for key in keys for pair in [(value, key), *places(value[key])]]


@pytest.mark.parametrize("name", [*JSON, *TOML])
@given(data=st.data())
@quick
def test_damaged_bytes_are_refused_or_read(place: Path, name: str, data: st.DataObject) -> None:
    read = (JSON | TOML)[name][1]
    attempt(read, place / name, damaged(data, whole(place, name)))


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
@quick
def test_any_other_value_in_any_place_is_refused_or_read(place: Path, name: str, data: st.DataObject) -> None:
    value = json.loads(whole(place, name))
    value.pop("content_sha256", None)
    container, key = data.draw(st.sampled_from(places(value)))
    if data.draw(st.booleans()):
        container[key] = data.draw(ANY)
    else:
        del container[key]
    attempt(JSON[name][1], place / name, written(name, value))


@pytest.mark.parametrize("name", [*JSON, *TOML])
def test_the_whole_file_is_read(place: Path, name: str) -> None:
    assert attempt((JSON | TOML)[name][1], place / name, whole(place, name))


@pytest.mark.parametrize("name", JSON)
def test_a_file_that_was_cut_is_never_read_as_whole(place: Path, name: str) -> None:
    text = whole(place, name).rstrip()
    for end in {0, 1, len(text) // 3, len(text) // 2, len(text) - 2, len(text) - 1} - (
        {0} if name.endswith("l") else set()
    ):
        assert not attempt(JSON[name][1], place / name, text[:end])


TABLES = st.dictionaries(
    st.sampled_from(["cond", "size", "seed", "steps", "out", "run", "no_hygiene", "x"]), ANY, max_size=3
)


@given(document=st.dictionaries(st.sampled_from([*study._ENTRIES, "x"]), TABLES | ANY, max_size=3))
@quick
def test_a_study_of_any_values_is_refused_or_a_design(place: Path, document: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "read_toml", lambda path: document)
        attempt(_study, place / "study.toml", b"")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nsteps = 'many'", 'steps: "many" is no whole number'),
        ("[train]\nsteps = 0", "at least 1"),
        ("[train]\ngradient_checkpointing = 1", "gradient_checkpointing is true or false"),
        ("[train]\ncond = ['seg']", "cond has to be one value"),
        ("[build]\nout = {a = 1}", "out has to be a plain text or number"),
        ("[trian]\nsteps = 3", 'unknown entry "trian"; did you mean "train"'),
        ('[build]\nrecipe = "ade20k-seg"', "build.recipe is not read in a study"),
        ("train = 3", "train has to be a table"),
        ("[grid]\ngenerate = 3", "grid.generate has to be a table"),
        ('[grid]\nmethod = ["../../x"]', "would lead out of the study's folder"),
        (f"[grid]\nseed = {list(range(101))}\nsteps = {list(range(1, 101))}", "10100 combinations"),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_anything_is_done(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text if text.startswith("[build]") else 'build.cond = ["seg"]\n' + text)
    with pytest.raises(UserError) as caught:
        study.read_design(str(path), tmp_path / "out")
    assert told in str(caught.value)


def test_numbers_of_a_study_stay_as_they_are_written_and_texts_are_read_as_typed(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('build = {cond = ["seg"], size = "2k"}\ntrain = {learning_rate = 1, empty_prompt_rate = 0.5}')
    design = study.read_design(str(path), tmp_path / "out")
    (cell,) = design.cells
    assert design.build.size == 2000
    assert repr(cell.trains[0].learning_rate) == "1"  # ids hold the number as it is written
    assert cell.trains[0].empty_prompt_rate == 0.5


WORDS = st.text("abcdefgz0123456789.,:=_-+ \x1b\u0663\n", max_size=12)


@pytest.mark.parametrize("family", [Source, Condition, Encoder, Method, Metric])
@given(data=st.data())
@quick
def test_any_words_make_a_plugin_or_a_line(family: type[Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(registry.names(family)) | WORDS)
    fields = st.sampled_from(["path", "space", "model", "low", "palette", "seed", "std", "val", "weights", "x"])
    value = WORDS | st.sampled_from(["nan", "inf", "-1", "9" * 30, "9" * 5000, "true", ""])
    pairs = data.draw(st.lists(st.tuples(fields, value), max_size=3))
    spec = name + data.draw(st.just("") | WORDS.map(lambda text: ":" + text))
    spec += "".join(f",{field}={text}" for field, text in pairs)
    with contextlib.suppress(UserError):
        made = registry.make(family, spec)
        assert registry.remake(family, registry.describe(made)) == made


@given(st.dictionaries(st.sampled_from(["name", "low", "high", "x"]), ANY | st.just("canny"), max_size=4))
@quick
def test_any_description_makes_a_plugin_or_a_line(description: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        assert registry.describe(registry.remake(Condition, description)).items() >= description.items()


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="low is given twice"):
        registry.make(Condition, "canny,low=1,low=2")


@given(st.text(max_size=12) | st.integers().map(str) | st.from_regex(r"\d+[kmKM]?", fullmatch=True))
@quick
def test_a_size_is_a_number_of_a_sensible_size_or_a_line(text: str) -> None:
    try:
        size = fill(Train, ["--dataset", "d", f"--num-samples={text}"]).num_samples
    except UserError:
        return
    assert size is not None
    assert 1 <= size <= 10**9
    assert size == SIZES.get(text) or str(size).startswith(text.lower().lstrip("0").rstrip("km"))


def test_a_number_beyond_every_seed_and_size_is_refused() -> None:
    for words in (["--seed", "1" * 19], ["--steps", "9" * 5000], ["--num-samples", "9999m"]):
        with pytest.raises(UserError):
            fill(Train, ["--dataset", "d", *words])
    assert parse_size("1000m") == 10**9


@pytest.mark.parametrize("identity", ["../../out", "a/b", "javascript:alert(1)", "", ".hidden", "a\nb"])
def test_an_id_that_is_a_path_or_a_link_is_no_record(tmp_path: Path, identity: str) -> None:
    record = made_up("a", 0.5).model_dump(mode="json") | {"evaluation_id": identity}
    (tmp_path / "a.json").write_bytes(sealed_json(record))
    assert main(["--results", str(tmp_path / ".")]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["a.json"]


def test_names_are_no_formulas_no_cells_and_no_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formulas = ["=HYPERLINK(1)", "+1", "-1", "@x", "\t=1"]
    others = ["a|b", "<img src=x onerror=1>", "[x](javascript:1)", "\x1b[2J", "a\nb"]
    for i, name in enumerate([*formulas, *others]):
        path = tmp_path / f"r{i}.json"
        path.write_bytes(sealed_json(made_up(f"r{i}", 0.5, key=f"k{i}", method=name).model_dump(mode="json")))
        with_probes(path, {100: 0.5})
    assert main(["--results", str(tmp_path)]) == 0
    board, csv = (tmp_path / "README.md").read_text(), (tmp_path / "leaderboard.csv").read_text()
    cells = {cell.strip('"') for cell in csv.replace("\n", ",").split(",")}
    assert {f"'{text}" for text in formulas} <= cells
    assert not {*formulas} & cells
    for text in ("<img", "](javascript", "\x1b"):
        assert text not in board
    lines = [line for line in board.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in lines if "made-up" in line and "prompts" in line}
    assert len(widths) == 2  # of the two tables that name the dataset
    assert "\x1b" not in capsys.readouterr().out
