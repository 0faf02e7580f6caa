"""Bad input ends in one line that helps, exit code 2, and no traceback; nothing is left behind."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import build, generate, train
from benchmark.engine.datasets import BuiltDataset

Command = Callable[[list[str]], int]
BAR = re.compile(r"\[\d\d:\d\d|\d+%\|")


def lines(stderr: str) -> list[str]:
    """What was written to stderr, without the states of progress bars."""
    return [line for line in re.split(r"[\r\n]+", stderr) if line.strip() and not BAR.search(line)]


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Command, list[str]], str]:
    """Run a command that has to fail, in an empty folder; return its one line."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)

    def run(command: Command, argv: list[str]) -> str:
        before = files(tmp_path)
        assert command(argv) == 2
        (line,) = lines(capsys.readouterr().err)
        assert "Traceback" not in line
        assert files(tmp_path) == before
        return line

    return run


Refused = Callable[[Command, list[str]], str]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("", "--cond is missing; allowed: canny"),
        ("--cond sge", 'no condition "sge"; did you mean "seg"? allowed: canny'),
        ("--cond seg --source scene", 'no source "scene"; did you mean "scenes"? allowed: folder'),
        ("--cond canny --annotator cany", 'no annotator "cany"; did you mean "canny"? allowed: canny'),
        ("--cond seg --annotator canny", "annotator canny makes canny maps, not seg"),
        ("--cond seg --annotator scenes --annotator canny", "2 annotators for 1 conditions"),
        ("--cond canny,lwo=3", 'canny has no field "lwo"; did you mean "low"? allowed: high, low'),
        ("--cond canny,low=abc", 'low="abc" is no int'),
        ("--cond seg,palette=ade20k", "are in its own palette, not seg,palette=ade20k"),
        ("--cond seg,palette=ade", 'no palette "ade"; did you mean "ade20k"? allowed: ade20k'),
        ("--cond canny --source folder", "folder needs path: write folder:PATH"),
        ("--cond canny --source folder:nowhere", "nowhere is not a folder"),
        ("--cond canny --source hub:nowhere/nothing", "cannot open the dataset nowhere/nothing"),
        ("--cond seg --sise 10", 'unknown option --sise; did you mean "--size"?'),
        ("--cond seg --size many", '"many" is no size; write 500, 10k, 1m, tiny, small, large'),
        ("--cond seg --size -5", "size"),
        ("--cond seg --size 0", "size"),
        ("--cond seg --workers 0", "workers"),
        ("--cond seg --workers two", "--workers"),
        ("--cond seg --resolution 0", "resolution"),
        ("--cond seg --resolution -64", "resolution"),
        ("--cond seg --max-failed -1", "max-failed"),
        ("--cond canny --cond canny,low=5", "canny"),
        ("--cond seg --source scenes,val=0", "val"),
        ("--cond", "--cond"),
        ("extra --cond seg", "extra"),
        ("--verify nowhere", "nowhere is no dataset folder (no plan.json)"),
    ],
)
def test_build_refuses(argv: str, told: str, refused: Refused) -> None:
    line = refused(build.main, argv.split())
    assert line.startswith("build: ")
    assert told in line


@pytest.mark.parametrize("share", ["2", "-1", "nan", "some"])
def test_verify_refuses_a_share_that_is_none(share: str, tiny_dataset: Path, refused: Refused) -> None:
    assert "recompute" in refused(build.main, ["--verify", str(tiny_dataset), "--recompute", share])


def test_build_refuses_an_empty_source_folder(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(build.main, ["--cond", "canny", "--source", f"folder:{tmp_path / 'empty'}"])
    assert "holds no image; allowed: .bmp" in line


def test_build_refuses_an_out_folder_with_other_peoples_files(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "not empty" in refused(build.main, ["--cond", "seg", "--out", str(tmp_path / "mine")])


def test_build_refuses_an_out_path_that_is_a_file(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in refused(build.main, ["--cond", "seg", "--out", str(tmp_path / "file")])


def test_build_says_which_annotators_there_are_where_a_source_has_no_maps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert build.main(["--cond", "seg", "--source", f"folder:{photos}", "--workers", "1"]) == 2
    (line,) = lines(capsys.readouterr().err)
    assert "give --annotator NAME, allowed: canny" in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_unreadable_image_is_named_and_the_good_ones_are_kept(
    workers: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = Path(shutil.copytree(photos, tmp_path / "photos")), tmp_path / "out"
    whole = (source / "wide-03.jpg").read_bytes()
    (source / "more" / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    words = ["--cond", "canny", "--source", f"folder:{source}", "--workers", workers, "--out", str(out)]
    assert build.main(words) == 2
    (line,) = lines(capsys.readouterr().err)
    assert "more/torn.jpg" in line
    assert "--max-failed 1" in line
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    assert not (out / "manifest.json").exists()

    assert build.main([*words, "--max-failed", "1"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "data").iterdir()} == kept
    dataset = BuiltDataset.open(out)
    assert list(dataset.manifest.failed) == ["more/torn.jpg"]
    keys = [row["key"] for split in ("train", "val", "test") for row in dataset.rows(split, ["key"])]
    assert sorted(keys) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--cond seg", "--dataset"),
        ("--dataset nowhere", "nowhere is no dataset folder (no plan.json); make one with python -m benchmark.build"),
        ("--dataset TINY --cond sge", 'no condition "sge"; did you mean "seg"? allowed: canny, seg'),
        ("--dataset TINY --method controlnt", 'no method "controlnt"; did you mean "controlnet"?'),
        ("--dataset TINY --base scenes-tny", 'no base "scenes-tny"'),
        ("--dataset TINY --num-samples 10k", "500 training pairs are too few"),
        ("--dataset TINY --schedule cosin", 'no schedule "cosin"; did you mean "cosine"?'),
        ("--dataset TINY --batch 32 --gradient-accumulation-steps 5", "a batch of 32 has no 5 equal parts"),
        ("--dataset TINY --ema-decay 1.5", "ema-decay"),
        ("--dataset TINY --corrupt wrong_captoin=0.2", 'did you mean "wrong_caption"'),
        ("--dataset TINY --corrupt foreign_map=1 --corrupt foreign_map=0.5", "--corrupt names foreign_map twice"),
        ("--dataset TINY --snr-gamma 0", "snr-gamma"),
        ("--dataset TINY --noise-seed -1", "noise-seed"),
        ("--dataset TINY --mixed-precision fp8", 'no precision "fp8"; allowed: bf16, no'),
        ("--dataset TINY --steps 0", "steps"),
        ("--dataset TINY --batch 0", "batch"),
        ("--dataset TINY --learning-rate -1", "learning-rate"),
        ("--dataset TINY --empty-prompt-rate 7", "empty-prompt-rate"),
        ("--dataset TINY --checkpoint-every 0", "checkpoint-every"),
        ("--dataset TINY --num-samples 0", "num-samples"),
        ("--dataset TINY --replicate -1", "replicate"),
        ("--dataset TINY --device gpu", "device"),
    ],
)
def test_train_refuses(argv: str, told: str, tiny_dataset: Path, refused: Refused) -> None:
    words = argv.replace("TINY", str(tiny_dataset)).split()
    words += [] if "--steps" in words else ["--steps", "1"]
    words += [] if "--batch" in words else ["--batch", "1"]
    line = refused(train.main, words)
    assert line.startswith("train: ")
    assert told in line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--dataset nowhere", "nowhere is no dataset folder"),
        ("--dataset TINY --split tset", 'no split "tset"; did you mean "test"? allowed: test, train, val'),
        ("--dataset TINY --prompts fll", 'no prompts "fll"; did you mean "full"? allowed: conflicting, full, insuf'),
        ("--dataset TINY --run a --controlnet b", "--run and --controlnet exclude each other"),
        ("--dataset TINY --method t2i_adapter", "--method goes with --controlnet"),
        ("--dataset TINY --run a --base b", "a run knows its base"),
        ("--dataset TINY --controlnet nowhere --cond seg --method lora", 'no method "lora"; allowed: controlnet, '),
        ("--dataset TINY --scheduler ddmi", 'no scheduler "ddmi"; did you mean "ddim"? allowed: ddim, dpm++, euler'),
        ("--dataset TINY --run nowhere", "nowhere holds no run.json; make it with python -m benchmark.train"),
        ("--dataset TINY --controlnet nowhere", "nowhere"),
        ("--dataset TINY --base nowhere", 'no base "nowhere"'),
        ("--dataset TINY --limit many", '"many" is no size'),
        ("--dataset TINY --limit 0", "limit"),
        ("--dataset TINY --num-inference-steps 0", "num-inference-steps"),
        ("--dataset TINY --batch 0", "batch"),
        ("--dataset TINY --device gpu", "device"),
    ],
)
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`")  # huggingface_hub's own affair
def test_generate_refuses(argv: str, told: str, tiny_dataset: Path, refused: Refused) -> None:
    line = refused(generate.main, argv.replace("TINY", str(tiny_dataset)).split())
    assert line.startswith("generate: ")
    assert told in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("build --cond sge", 'build: no condition "sge"; did you mean "seg"? allowed: canny, depth, lineart, lines, '),
        ("train --dataset TINY --base nowhere --out run", 'train: no base "nowhere"'),
    ],
)
def test_a_real_process_prints_one_line_and_exits_with_2(
    words: str, told: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    name, *argv = words.replace("TINY", str(tiny_dataset)).split()
    environment = {**os.environ, "PYTHONPATH": str(Path(build.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmark.{name}", *argv],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = lines(done.stderr)
    assert line.startswith(told)
