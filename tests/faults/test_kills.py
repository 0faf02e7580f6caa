"""Commands that are killed, again and again: the same command goes on, and ends with the same bytes."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark.base.files import unsealed
from benchmark.engine.records import write_record
from tests.commands.test_leaderboard import made_up, with_probes
from tests.commands.test_study import TINY
from tests.faults.conftest import Faults, files

pytestmark = pytest.mark.slow

BUILD_LINE = "build --cond seg --cond canny --source scenes,val=40,test=40 --size 1000 --out out"
TRAIN_LINE = (
    "train --dataset data --cond seg --steps 1 --batch 4 --num-samples 40 --probe-every 0 --device cpu --out run"
)
BUILD = BUILD_LINE.split()
DRAW = ["--limit", "24", "--num-inference-steps", "2", "--device", "cpu"]


def place(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def lasting(folder: Path) -> dict[str, object]:
    """Return the files of a results folder, records without the moment, machine and speed they were made with."""
    found: dict[str, object] = {}
    for name, data in files(folder).items():
        if name.endswith(".json"):
            record = json.loads(unsealed(data, name, "it is whole or absent"))
            found[name] = {key: value for key, value in record.items() if key not in ("created", "environment")}
        elif name.endswith(".webp") or "/" not in name:
            found[name] = data
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_builds_that_are_killed(workers: str, faults: Faults, tmp_path: Path) -> None:
    words = [*BUILD, "--workers", workers]
    whole = place(tmp_path, "whole")
    faults.run(words, whole)
    wanted = files(whole / "out")
    for i in range(-(-faults.kills // 2)):  # half of the campaign for each number of workers
        here = place(tmp_path, f"round-{i}")
        faults.kill(words, here, here / "out", len(wanted))
        faults.run(words, here)
        assert files(here / "out") == wanted
        faults.left_over(here)
        shutil.rmtree(here)


def test_builds_on_ray_that_are_killed(faults: Faults, tmp_path: Path) -> None:
    """Ray takes its time to start: a twentieth of the campaign, each with the processes that the command started."""
    faults.patience = 180.0  # Ray's agents of a node, which do no work of ours, miss it after a minute or a little more
    whole = place(tmp_path, "whole")
    faults.run([*BUILD, "--workers", "1"], whole)
    wanted = files(whole / "out")
    for i in range(max(1, faults.kills // 20)):
        here = place(tmp_path, f"round-{i}")
        faults.kill([*BUILD, "--engine", "ray"], here, here / "out", len(wanted))
        faults.run([*BUILD, "--engine", "ray"], here)
        assert files(here / "out") == wanted
        faults.left_over(here)
        shutil.rmtree(here)


def test_two_builds_of_one_folder_one_of_which_is_killed(faults: Faults, tmp_path: Path) -> None:
    words = [*BUILD, "--workers", "1"]
    whole = place(tmp_path, "whole")
    faults.run(words, whole)
    wanted = files(whole / "out")
    for i in range(max(1, faults.kills // 4)):
        here = place(tmp_path, f"round-{i}")
        both = [faults.start(words, here) for _ in range(2)]
        faults.strike(both[0], here / "out", len(wanted))
        assert faults.end(both[1], here) == 0
        assert files(here / "out") == wanted
        faults.left_over(here)
        shutil.rmtree(here)


def test_generations_that_are_killed(faults: Faults, tiny_dataset: Path, tmp_path: Path) -> None:
    words = ["generate", "--dataset", str(tiny_dataset), *DRAW, "--batch", "4", "--out", "out"]
    whole = place(tmp_path, "whole")
    faults.run(words, whole)
    wanted = files(whole / "out")
    about = json.loads(wanted.pop("images.json"))
    for i in range(faults.kills):
        here = place(tmp_path, f"round-{i}")
        faults.kill(words, here, here / "out", len(wanted))
        faults.run(words, here)
        found = files(here / "out")
        again = json.loads(found.pop("images.json"))
        assert (again["config"], again["status"]) == (about["config"], about["status"])
        assert found == wanted


@pytest.fixture
def drawn(faults: Faults, tiny_dataset: Path, tmp_path: Path) -> Path:
    """A folder with images of a run, and the floor."""
    home = place(tmp_path, "home")
    (home / "data").symlink_to(tiny_dataset)
    faults.run(TRAIN_LINE.split(), home)
    for words in (["--run", "run", "--out", "images"], ["--out", "floor"]):
        faults.run(["generate", "--dataset", "data", *DRAW, *words], home)
    return home


def test_evaluations_that_are_killed(faults: Faults, drawn: Path) -> None:
    common = ["evaluate", "--images", "images", "--no-control", "floor"]
    faults.run([*common, "--results", "whole"], drawn)
    wanted = lasting(drawn / "whole")
    for i in range(faults.kills):
        folder = drawn / f"round-{i}"
        words = [*common, "--cache", f"cache-{i}", "--results", folder.name]
        faults.kill(words, drawn, folder, len(wanted))
        left = lasting(folder)
        assert left == wanted or not any(name.endswith(".json") for name in left)
        faults.run(words, drawn)
        assert lasting(folder) == wanted


def test_studies_that_are_killed(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ["study", "run", str(tmp_path / "tiny.toml"), "--out", "out"]
    whole = place(tmp_path, "whole")
    faults.run(words, whole)
    wanted, most = lasting(whole / "out" / "results"), len(files(whole / "out"))
    for i in range(faults.kills):
        here = place(tmp_path, f"round-{i}")
        for _ in range(3):
            faults.kill(words, here, here / "out", most)
        faults.run(words, here)
        assert lasting(here / "out" / "results") == wanted
        assert files(here / "out" / "datasets") == files(whole / "out" / "datasets")
        shutil.rmtree(here)


def test_boards_whose_rendering_is_killed(faults: Faults, tmp_path: Path) -> None:
    results = place(tmp_path, "results")
    for i in range(40):
        with_probes(write_record(results, made_up(f"run-{i}", i / 100, seed=i)), {100: 0.2, 200: i / 100})
    faults.run(["leaderboard", "--results", "results", "--html", "site"], tmp_path)
    wanted = files(tmp_path / "site")
    board, table = ((results / name).read_bytes() for name in ("README.md", "leaderboard.csv"))
    for i in range(faults.kills):
        words = ["leaderboard", "--results", "results", "--html", f"site-{i}"]
        (results / "README.md").unlink()
        faults.kill(words, tmp_path, tmp_path / f"site-{i}", len(wanted))
        kept = results / "README.md"
        assert not kept.exists() or kept.read_bytes() == board
        faults.run(words, tmp_path)
        assert files(tmp_path / f"site-{i}") == wanted
        assert [(results / name).read_bytes() for name in ("README.md", "leaderboard.csv")] == [board, table]


def bulk(folder: Path) -> dict[str, bytes]:
    """Return the data of a folder: what no moment, machine or place is written into."""
    kinds = (".png", ".safetensors", ".parquet", ".webp", ".js", ".css")
    return {name: data for name, data in files(folder).items() if name.endswith(kinds)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("1m", BUILD_LINE.split()[:-1]),
        ("16m", TRAIN_LINE.split()[:-1]),
        ("64k", ["generate", "--dataset", "data", *DRAW, "--out"]),
        ("32k", ["evaluate", "--images", "images", "--no-control", "floor", "--results"]),
        ("1m", ["leaderboard", "--results", "results", "--html"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    size: str, words: list[str], faults: Faults, drawn: Path
) -> None:
    faults.run(["evaluate", "--images", "images", "--no-control", "floor", "--results", "results"], drawn)
    faults.run([*words, "whole"], drawn)
    disk = place(drawn, "disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        assert faults.end(faults.start([*words, "disk/out"], drawn), drawn) == 2
        last = (drawn / "output.log").read_text().splitlines()[-1]
        assert "No space left on device" in last
        assert "make room, then run the same command again to go on" in last
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        faults.run([*words, "disk/out"], drawn)
        assert bulk(disk / "out") == bulk(drawn / "whole") != {}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("words", [BUILD[:-1], ["train", "--dataset", "data", "--steps", "1", "--out"]])
def test_a_folder_nobody_may_write_to_is_one_line(
    words: list[str], faults: Faults, tiny_dataset: Path, tmp_path: Path
) -> None:
    """Root may write anywhere but where the kernel itself refuses."""
    (tmp_path / "data").symlink_to(tiny_dataset)
    locked = Path("/sys") if os.geteuid() == 0 else place(tmp_path, "locked")
    if locked.is_relative_to(tmp_path):
        locked.chmod(0o555)
    assert faults.end(faults.start([*words, str(locked / "out")], tmp_path), tmp_path) == 2
    last = (tmp_path / "output.log").read_text().splitlines()[-1]
    assert str(locked / "out") in last
    assert "give a place you may write to" in last
