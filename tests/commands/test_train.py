"""Training as a command: signals at any moment, a full disk, a tracker that watches, several processes."""

import errno
import fcntl
import json
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark import build, evaluate, generate, train
from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.engine import runs
from benchmark.engine.bases import BUNDLED
from benchmark.engine.checkpoints import load_tensors, save_tensors
from benchmark.engine.journal import journal, read_curve
from benchmark.engine.latents import CachedMoments
from benchmark.engine.reader import EncodedMaps

# Trains in a forked process and counts the calls of functions; then once more, and each time kills the process after
# another number of calls, until the last is left to end.
KILLED = """
import os, random, signal, sys
from benchmark import train
from benchmark.engine import bases, controls, datasets, imagesets, latents, probes, training

def profile(frame, event, arg):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)

def forked(out):
    if not os.fork():
        sys.setprofile(profile)
        code = train.main([*sys.argv[3:], "--out", out])
        sys.setprofile(None)
        os.write(pipe[1], str(calls).encode())
        os._exit(code)
    return os.waitstatus_to_exitcode(os.wait()[1])

calls, last, pipe, draw = 0, 0, os.pipe(), random.Random(0)
assert forked(sys.argv[1]) == 0
most = int(os.read(pipe[0], 99))
for last in (draw.randrange(1, most // 2) for _ in range(3)):
    assert forked(sys.argv[2]) == -signal.SIGKILL
last = 0
assert forked(sys.argv[2]) == 0
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


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(pairs: Path, whole: Path, tmp_path: Path) -> None:
    """The moments are counted in calls of functions, so that they are the same on any machine."""
    runs = [tmp_path / name for name in ("counted", "killed")]
    driver = [sys.executable, "-c", KILLED, *map(str, runs), *command(pairs, tmp_path)]
    done = subprocess.run(driver, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(runs[0]) == contents(runs[1]) == contents(whole)


def test_a_draw_of_a_source_in_its_own_order_says_of_how_many(pairs: Path, whole: Path, tmp_path: Path) -> None:
    """There a draw of the first thousand rows and one of a million are not alike, and share no cell of a board."""
    ordered = Path(shutil.copytree(pairs, tmp_path / "pairs"))
    manifest = json.loads((ordered / "manifest.json").read_text())
    assert manifest.pop("is_shuffled")
    (ordered / "manifest.json").write_text(json.dumps(manifest))
    assert train.main(command(ordered, tmp_path / "run", "--num-samples", "4")) == 0
    of_all, of_few = (json.loads((run / "run.json").read_text())["config"] for run in (whole, tmp_path / "run"))
    assert "drawn_from" not in of_all
    assert of_few["drawn_from"] == manifest["num_rows"]["train"] > of_few["num_samples"] == 4


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


def test_a_run_does_not_go_on_upon_other_weights_of_its_base(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, run = Path(shutil.copytree(BUNDLED["scenes-tiny"], tmp_path / "base")), tmp_path / "run"
    words = [*command(pairs, run), "--base", str(base)]
    assert train.main(words) == 0
    shutil.rmtree(run / "checkpoints")
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_tensors(file, {name: tensor * 0 for name, tensor in load_tensors(file)[0].items()}, {"format": "pt"})
    capsys.readouterr()
    assert train.main(words) == 2
    assert f"{run} was begun on other weights of" in capsys.readouterr().err


def test_nothing_is_drawn_upon_other_weights_of_a_runs_base(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, run = Path(shutil.copytree(BUNDLED["scenes-tiny"], tmp_path / "base")), tmp_path / "run"
    assert train.main([*command(pairs, run), "--base", str(base)]) == 0
    few = ["--dataset", str(pairs), "--limit", "3", "--num-inference-steps", "1"]
    drawn, floor = tmp_path / "drawn", tmp_path / "floor"
    assert generate.main([*few, "--run", str(run), "--out", str(drawn)]) == 0
    assert generate.main([*few, "--base", str(base), "--out", str(floor)]) == 0
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_tensors(file, {name: tensor * 0 for name, tensor in load_tensors(file)[0].items()}, {"format": "pt"})
    capsys.readouterr()
    assert generate.main([*few, "--run", str(run), "--out", str(tmp_path / "images")]) == 2
    assert f"{run} was begun on other weights of" in capsys.readouterr().err
    assert not (tmp_path / "images").exists()
    scoring = ["--images", str(drawn), "--no-control", str(floor), "--metric", "diversity"]
    assert evaluate.main([*scoring, "--results", str(tmp_path / "results")]) == 2
    assert f"{drawn} was drawn on other weights of" in capsys.readouterr().err


def test_two_processes_do_not_train_one_run(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(command(pairs, run)) == 0
    shutil.rmtree(run / "checkpoints")
    with runs.held(run):
        assert train.main(command(pairs, run)) == 2
    assert "another process works in" in capsys.readouterr().err
    assert train.main(command(pairs, run)) == 0


def test_where_nothing_can_be_locked_it_is_said_and_the_run_goes_on(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert train.main(command(pairs, tmp_path / "run")) == 0
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().out


def test_a_folder_with_a_record_that_was_broken_off_in_writing_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / f".{runs.RUN}.0123456789ab.tmp").write_text("{")
    assert runs.ended(tmp_path, runs.RUN, {}) is None
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no"):
        runs.ended(tmp_path, runs.RUN, {})


def points(run: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_tracker_sees_what_the_curve_holds_and_changes_no_bit(
    pairs: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(command(pairs, run, "--tracker", "tensorboard", "--schedule", "constant")) == 0
    assert contents(run) == contents(whole)
    steps, losses = zip(*points(run, "loss"), strict=True)
    assert list(steps) == [row["step"] for row in read_curve(run)]
    assert list(losses) == pytest.approx([row["loss"] for row in read_curve(run)], rel=1e-6)
    assert [rate for _, rate in points(run, "learning_rate")] == pytest.approx([6e-4] * len(steps))
    assert all(0 < value < 10_000 for _, value in points(run, "images_per_second"))
    assert all(0.1 < value < 100 for _, value in points(run, "peak_memory_gib"))
    assert "--tracker tensorboard" in json.loads((run / "run.json").read_bytes())["provenance"]["command"]
    (last,) = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1:]
    assert all(word in last for word in ("6/6", "updates", "loss=", "memory=", " GiB"))


def test_a_tracker_shows_no_point_twice_after_an_interruption(tmp_path: Path) -> None:
    """The first process notes two updates more than its checkpoint has, and never closes its file."""
    for first, steps, probes in ((0, (1, 11, 21), (0, 10, 20)), (10, (11, 21, 31), (20, 30))):
        before = [row for row in read_curve(tmp_path) if row["step"] <= first] if first else []
        opened = journal(tmp_path, 2, first, "".join(f"{json.dumps(row)}\n" for row in before).encode(), "tensorboard")
        notes = opened.__enter__()
        for step in steps:
            notes.loss(step, step + first / 20, learning_rate=0.5)
        for step in probes:
            notes.probe(step, {"miou": step + first / 20})
    assert points(tmp_path, "loss") == [(1, 1.0), (11, 11.5), (21, 21.5), (31, 31.5)]
    assert points(tmp_path, "probe/miou") == [(0, 0.0), (10, 10.0), (20, 20.5), (30, 30.5)]
    assert [row["step"] for row in read_curve(tmp_path)] == [1, 0, 10, 11, 21, 31, 20, 30]


@pytest.mark.parametrize(
    ("name", "told"),
    [("tensorbord", 'no tracker "tensorbord"; did you mean "tensorboard"?'), ("wandb", "pip install wandb")],
)
def test_a_tracker_that_cannot_be_used_is_refused(
    name: str, told: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(command(pairs, tmp_path / "run", "--tracker", name)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Two processes, as torchrun starts them; each prints the hashes of its noise, and of its gradients before and after
# they are added up.
RANKS = """
import hashlib, os, sys
import torch
from benchmark import train
from benchmark.engine import bases, controls, datasets, imagesets, latents, probes, training
from benchmark.engine.ranks import Ranks
from benchmark.engine.reader import Batch

def show(what, tensors):
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
    os.write(1, f"{os.environ['RANK']} {what} {digest}\\n".encode())

def part(batch, number, parts, divide=Batch.part):
    own = divide(batch, number, parts)
    show("noise", [own.noise])
    return own

def add_gradients(ranks, module, add=Ranks.add_gradients):
    for what in ("own", "all"):
        show(what, [p.grad for p in module.parameters() if p.grad is not None])
        if what == "own":
            add(ranks, module)

Batch.part, Ranks.add_gradients = part, add_gradients
places = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1], "TORCHELASTIC_RUN_ID": "test"}
for rank in ("0", "1"):
    if not os.fork():
        os.environ |= {**places, "RANK": rank, "LOCAL_RANK": rank}
        os._exit(train.main(sys.argv[2:]))
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)]
raise SystemExit(max(codes))
"""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def optimizer(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(run / "checkpoints" / "step-2" / "state" / "optimizer.safetensors")
    return tensors


def assert_same_training(one: Path, two: Path) -> None:
    """The losses and Adam's mean of the gradients are those of the whole batch."""
    losses = [[row["loss"] for row in read_curve(run)] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    expected, found = optimizer(one), optimizer(two)
    assert found.keys() == expected.keys()
    means = [name for name in expected if name.endswith(".exp_avg")]
    error = sum(float((found[name] - expected[name]).square().sum()) for name in means)
    assert error < 1e-8 * sum(float(expected[name].square().sum()) for name in means)


def test_two_processes_train_what_one_does_with_the_whole_batch(pairs: Path, tmp_path: Path) -> None:
    words = [*command(pairs, tmp_path / "two"), "--steps", "2", "--batch", "4", "--gradient-accumulation-steps", "2"]
    driver = [sys.executable, "-c", RANKS, free_port(), *words]
    done = subprocess.run(driver, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"([01]) (noise|own|all) ([0-9a-f]{64})", done.stdout)  # lines of two processes may be one
    hashes = {(rank, what): [h for r, w, h in shown if (r, w) == (rank, what)] for rank, what, _ in shown}
    for what, shared in (("noise", False), ("own", False), ("all", True)):
        assert len(hashes["0", what]) == 2
        assert [a == b for a, b in zip(hashes["0", what], hashes["1", what], strict=True)] == [shared] * 2
    assert done.stdout.count("trained ") == 1
    assert json.loads((tmp_path / "two" / "run.json").read_bytes())["config"]["num_processes"] == 2
    assert train.main([*words, "--out", str(tmp_path / "one")]) == 0
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_trains_and_resumes_and_refuses_a_batch_it_cannot_divide(pairs: Path, tmp_path: Path) -> None:
    words = [*command(pairs, tmp_path / "two"), "--steps", "2", "--batch", "4", "--checkpoint-every", "1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    launch += ["-m", "benchmark.train"]
    refused = subprocess.run([*launch, *words, "--batch", "3"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "train: a batch of 3 has no 2 equal parts; change either" in refused.stderr
    subprocess.run([*launch, *words], check=True, capture_output=True)
    before = contents(tmp_path / "two")
    runs.reopen(tmp_path / "two", runs.RUN)
    again = subprocess.run([*launch, *words], check=True, capture_output=True, text=True)
    assert again.stdout.count("trained ") == 1
    assert contents(tmp_path / "two") == before
    assert train.main([*words, "--out", str(tmp_path / "one")]) == 0
    assert_same_training(tmp_path / "one", tmp_path / "two")


def test_an_optimiser_that_is_not_installed_is_refused(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    assert train.main(command(pairs, tmp_path / "run", "--use-8bit-adam")) == 2
    assert "pip install bitsandbytes, or leave it out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_record_of_a_run_has_no_word_of_what_it_did_not_use(whole: Path) -> None:
    config = json.loads((whole / runs.RUN).read_bytes())["config"]
    assert "num_processes" not in config
    assert "use_8bit_adam" not in config["recipe"]


@pytest.mark.parametrize("more", [[], ["--corrupt", "shifted_map=0.5", "--corrupt", "foreign_map=0.3"]])
def test_latents_and_maps_that_are_read_as_they_are_needed_give_the_same_bits(
    more: list[str], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.main(command(pairs, tmp_path / "held", *more)) == 0
    asked: dict[str, list[int]] = {"maps": [], "latents": []}
    render, read = EncodedMaps.__getitem__, CachedMoments.__getitem__

    def rendered(maps: EncodedMaps, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked["maps"].append(len(rows))
        return render(maps, rows)

    def taken(moments: CachedMoments, at: torch.Tensor) -> torch.Tensor:
        asked["latents"].append(len(at))
        return read(moments, at)

    monkeypatch.setattr(EncodedMaps, "__getitem__", rendered)
    monkeypatch.setattr(CachedMoments, "__getitem__", taken)
    monkeypatch.setattr(train, "_IN_MEMORY", 0)
    assert train.main(command(pairs, tmp_path / "needed", *more)) == 0
    assert asked == {"maps": [2] * 6, "latents": [2] * 6}
    assert contents(tmp_path / "needed") == contents(tmp_path / "held")
