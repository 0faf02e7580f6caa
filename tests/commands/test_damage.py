"""What a bit that turned, a cut or a loss does to the files between two commands: never another number in silence."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import compare, evaluate, generate, leaderboard, train

DRAW = ["--limit", "24", "--num-inference-steps", "2", "--device", "cpu"]
PROBED = ["--steps", "2", "--batch", "4", "--num-samples", "40", "--probe-every", "1", "--device", "cpu"]
TRAIN = ["--dataset", "data", "--cond", "seg", *PROBED, "--out", "run"]
EVALUATE = ["--images", "images", "--no-control", "floor", "--cache", "cache"]
Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def whole(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its images, the floor, and a record beside one other; not to be changed."""
    home = tmp_path_factory.mktemp("damage")
    (home / "data").symlink_to(tiny_dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert train.main(TRAIN) == 0
        for words in (["--run", "run", "--out", "images"], ["--out", "floor"]):
            assert generate.main(["--dataset", "data", *DRAW, *words]) == 0
        assert evaluate.main([*EVALUATE, "--results", "results"]) == 0
        assert evaluate.main([*EVALUATE, "--results", "results", "--metric", "clip_score"]) == 0
    return home


@pytest.fixture
def home(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where commands run."""
    shutil.copytree(whole, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def call(main: Main, home: Path) -> int:
    """Run the command that reads what was damaged."""
    records = sorted(str(path.relative_to(home)) for path in home.glob("results/*/*/*/*.json"))
    words: dict[Main, list[str]] = {
        train.main: TRAIN,
        generate.main: ["--dataset", "data", "--run", "run", *DRAW, "--out", "again"],
        evaluate.main: [*EVALUATE, "--results", "again"],
        leaderboard.main: ["--results", "results"],
        compare.main: [records[0], records[0]],
    }
    return main(words[main])


def damage(path: Path, how: str) -> None:
    """Turn a bit in the middle of a file, cut it there, or delete it."""
    data = path.read_bytes()
    middle = len(data) // 2
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:middle] + (bytes([data[middle] ^ 1]) + data[middle + 1 :] if how == "bit" else b""))


READ = [
    ("run/run.json", [train.main, generate.main, evaluate.main]),
    ("run/checkpoints/step-2/config.json", [generate.main]),
    ("run/checkpoints/step-2/diffusion_pytorch_model.safetensors", [train.main, generate.main]),
    ("run/checkpoints/step-2/state/sha256.json", [generate.main, evaluate.main]),
    ("run/checkpoints/step-2/state/curve.jsonl", [train.main, evaluate.main]),
    ("images/images.json", [evaluate.main]),
    ("images/*-00000001.png", [evaluate.main]),
    ("floor/images.json", [evaluate.main]),
    ("floor/*-00000002.png", [evaluate.main]),
    ("cache/vectors/*/*.safetensors", [evaluate.main]),
    ("results/*/*/*/*.json", [leaderboard.main, compare.main]),
    ("results/*/*/*/*.jsonl.gz", [leaderboard.main]),
    ("results/*/*/*/*.webp", [leaderboard.main]),
    ("results/*/*/*/*.parquet", [compare.main]),
]


@pytest.mark.parametrize("how", ["bit", "cut", "missing"])
@pytest.mark.parametrize(("pattern", "main"), [(pattern, main) for pattern, mains in READ for main in mains])
def test_a_damaged_file_is_named_in_one_line(
    pattern: str, main: Main, how: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(home.glob(pattern))[0]
    damage(path, how)
    code, last = call(main, home), capsys.readouterr().err.rpartition("\n")[0].rpartition("\n")[2]
    if how == "missing" and (pattern.startswith("cache") or pattern.endswith("/*.json")):
        assert code == 0  # made again; or not there, as any other record
        return
    assert code == 2
    assert any(name in last for name in (path.name, path.stem, path.parent.name))
    assert not list(home.glob("again/**/*.json"))


def test_a_run_that_lost_its_weights_is_trained_again_to_the_same_bits(
    home: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(home / "run" / "checkpoints")
    assert call(generate.main, home) == 2
    assert "run the run's train command again" in capsys.readouterr().err
    assert call(train.main, home) == 0
    for path in (whole / "run" / "checkpoints").rglob("*.*"):
        assert (home / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert call(generate.main, home) == 0
    assert call(evaluate.main, home) == 0
    assert call(train.main, home) == 0
    assert "is already finished" in capsys.readouterr().out


def test_released_weights_are_told_apart_by_what_they_hold(
    home: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = home / "mine"
    shutil.copytree(home / "run" / "checkpoints" / "step-2", net)
    words = ["--dataset", "data", "--controlnet", "mine", "--cond", "seg", *DRAW, "--out", "theirs"]
    assert generate.main(words) == 0
    assert train.main([*TRAIN[:-1], "other", "--init-seed", "5"]) == 0
    shutil.copytree(home / "other" / "checkpoints" / "step-2", net, dirs_exist_ok=True)
    assert generate.main(words) == 2
    assert "control.weights_sha256" in capsys.readouterr().err
