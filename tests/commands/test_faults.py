"""What a training survives: signals at any moment, a full disk, and a start that was broken off."""

import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark import build, train
from benchmark.base.files import sha256_file
from benchmark.engine import runs

# Forks a training for each number and stops it with the signal after so many calls of functions, 0: never.
STOPPED = """
import os, sys
from benchmark import train
from benchmark.engine import bases, controls, datasets, imagesets, latents, probes, training

def profile(frame, event, arg):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), number)

number, words, calls = int(sys.argv[1]), sys.argv[3:], 0
for last in map(int, sys.argv[2].split(",")):
    child = os.fork()
    if not child:
        sys.setprofile(profile)
        code = train.main(words)
        sys.setprofile(None)
        print(calls, flush=True)
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (-number if last else 0), code
"""


@pytest.fixture(scope="module")
def pairs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "pairs"
    words = ["--cond", "canny", "--source", f"folder:{photos}", "--no-hygiene", "--workers", "1", "--out", str(folder)]
    assert build.main(words) == 0
    return folder


def command(pairs: Path, out: Path, *more: str) -> list[str]:
    words = ["--cond", "canny", "--steps", "6", "--batch", "2", "--checkpoint-every", "2", "--ema-decay", "0.9"]
    places = ["--dataset", str(pairs), "--cache", str(pairs.parent / "cache"), "--out", str(out)]
    return [*words, *places, "--probe-every", "0", "--device", "cpu", *more]


def contents(run: Path) -> dict[str, str]:
    """Return the hashes of a run's checkpoints and curve."""
    found = [*(path for path in (run / "checkpoints").rglob("*") if path.is_file()), run / "curve.jsonl"]
    return {path.relative_to(run).as_posix(): sha256_file(path) for path in found}


@pytest.fixture(scope="module")
def whole(pairs: Path) -> Path:
    """A run that nothing interrupted."""
    out = pairs.parent / "whole"
    assert train.main(command(pairs, out)) == 0
    return out


def stopped(number: signal.Signals, moments: list[int], words: list[str]) -> int:
    """Stop a training in a forked process at each moment, then let it end; return the calls the last one took."""
    driver = [sys.executable, "-c", STOPPED, str(int(number)), ",".join(map(str, [*moments, 0])), *words]
    done = subprocess.run(driver, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(pairs: Path, whole: Path, tmp_path: Path) -> None:
    """The moments are counted in calls of functions, so that they are the same on any machine."""
    calls = stopped(signal.SIGKILL, [], command(pairs, tmp_path / "counted"))
    assert contents(tmp_path / "counted") == contents(whole)
    draw = random.Random(0)
    moments = [draw.randrange(1, calls // 2) for _ in range(4)]
    stopped(signal.SIGKILL, moments, command(pairs, tmp_path / "killed"))
    assert contents(tmp_path / "killed") == contents(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "count"), [(signal.SIGKILL, 50), (signal.SIGTERM, 5)])
def test_the_command_stopped_by_a_signal_at_random_moments_ends_with_the_same_bits(
    pairs: Path, whole: Path, tmp_path: Path, number: signal.Signals, count: int
) -> None:
    """Real processes, moments in time; a run that was faster than its moment is stopped sooner in a new folder."""
    words = [sys.executable, "-m", "benchmark.train"]
    started = time.monotonic()
    subprocess.run([*words, *command(pairs, tmp_path / "timed")], check=True, capture_output=True)
    seconds, draw, caught = time.monotonic() - started, random.Random(int(number)), 0
    for i in range(10 * count):
        argv = [*words, *command(pairs, tmp_path / str(i))]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(draw.uniform(0, seconds))
            process.send_signal(number)
        caught += process.returncode == -number
        subprocess.run(argv, check=True, capture_output=True)
        assert contents(tmp_path / str(i)) == contents(whole)
        if caught == count:
            return
    pytest.fail(f"only {caught} runs were stopped")


@pytest.mark.parametrize("megabytes", [5, 12], ids=["weights", "optimiser"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    pairs: Path, whole: Path, tmp_path: Path, megabytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel refuses to write more than that to a file, as it refuses on a disk without room."""
    words, limits = command(pairs, tmp_path / "run"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes * 10**6, limits[1]))
    try:
        assert train.main(words) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    line = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert line.startswith("train: File too large")
    assert "make room, then run the same command again to go on" in line
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert train.main(words) == 0
    assert contents(tmp_path / "run") == contents(whole)


def test_a_folder_with_a_record_that_was_broken_off_in_writing_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / f".{runs.RUN}.0123456789ab.tmp").write_text("{")
    assert runs.ended(tmp_path, runs.RUN, {}) is None
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(runs.UserError, match="is not empty and holds no"):
        runs.ended(tmp_path, runs.RUN, {})
