"""A million pairs on this machine, small first and killed on the way: `python tests/perf/build_large.py WORK`.

One dataset grows through the sizes by the same command; on the way to every size but the first its processes are killed
(SIGKILL) and the command is given again. At the middle size it must have the fingerprint of a dataset that nothing
disturbed. The largest is verified, exported to tars, and built from those again, with another condition, small and
whole. Every step appends a line to WORK/steps.jsonl: seconds, greatest memory of all processes together, pairs, bytes.
What a step leaves stays; a step that is in steps.jsonl is not done again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIZES = ["10k", "100k", "large"]
KILLS = 3
POLL = 0.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", nargs=3, default=SIZES)
    form = parser.parse_args()
    form.work.mkdir(parents=True, exist_ok=True)
    build_from_nothing(form.work, form.sizes)
    build_again_from_tars(form.work, form.sizes)


def build_from_nothing(work: Path, sizes: list[str]) -> None:
    """Grow one dataset with kills, make another of the middle size without; verify the largest."""
    small, middle, large = sizes
    command = ["build", "--cond", "seg", "--cond", "canny"]
    step(work, f"grown to {small}", [*command, "--size", small, "--out", "grown"])
    step(work, f"grown to {middle}, killed", [*command, "--size", middle, "--out", "grown"], kills=KILLS)
    step(work, f"{middle} undisturbed", [*command, "--size", middle, "--out", "undisturbed"])
    done = steps(work)
    grown, undisturbed = (done[name]["fingerprint"] for name in (f"grown to {middle}, killed", f"{middle} undisturbed"))
    if grown != undisturbed:
        raise SystemExit(f"killed and undisturbed differ: {grown}, {undisturbed}")
    step(work, f"grown to {large}, killed", [*command, "--size", large, "--out", "grown"], kills=KILLS)
    step(work, f"{large}, nothing to do", [*command, "--size", large, "--out", "grown"])
    step(work, f"verify {large}", ["build", "--verify", "grown"])
    step(work, f"verify {large}, 1 % built again", ["build", "--verify", "grown", "--recompute", "1%"])


def build_again_from_tars(work: Path, sizes: list[str]) -> None:
    """Export the largest dataset; build from the tars, which are read in order, with another condition."""
    small, _, large = sizes
    step(work, f"export {large}", ["build", "--export", "webdataset:grown", "--out", "tars"])
    command = ["build", "--source", "webdataset:tars/*.tar", "--cond", "lines", "--annotator", "lsd"]
    step(work, f"{small} from tars", [*command, "--size", small, "--out", "again-small"])
    step(work, f"{large} from tars", [*command, "--size", large, "--out", "again-large"])
    step(work, f"verify {large} from tars", ["build", "--verify", "again-large"])


def step(work: Path, name: str, words: list[str], kills: int = 0) -> None:
    """Run a command in the folder, killing it so many times at even shares of its new shards, and put down its cost."""
    if name in steps(work):
        return
    out = work / words[words.index("--out") + 1] if "--out" in words else None
    before = len(commits(out))
    total = expected_shards(work, words) if kills else 0
    marks = [before + (total - before) * (i + 1) // (kills + 1) for i in range(kills)]
    started, peak = time.time(), 0
    for mark in [*marks, None]:
        peak = max(peak, run(work, words, out, mark))
    seconds = time.time() - started
    line = {
        "step": name,
        "command": " ".join(words),
        "seconds": round(seconds, 1),
        "peak_mib": peak // 2**20,
        "kills": kills,
    }
    line |= outcome(out, started) if out and (out / "manifest.json").exists() else {}
    with (work / "steps.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def run(work: Path, words: list[str], out: Path | None, mark: int | None) -> int:
    """Run a command to its end, or until so many shards are committed and it is killed; return its peak memory."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"benchmark.{words[0]}", *words[1:]]
    process = subprocess.Popen(command, cwd=work, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        if mark is not None and len(commits(out)) >= mark:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return peak
        time.sleep(POLL)
    if process.returncode or mark is not None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode} before shard {mark}")
    return peak


def memory(session: int) -> int:
    """Return the bytes that all processes of a session hold, what they share counted once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                total += 1024 * int((folder / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return total


def commits(out: Path | None) -> list[Path]:
    return sorted((out / "commits").glob("*.json")) if out else []


def expected_shards(work: Path, words: list[str]) -> int:
    command = [sys.executable, "-m", f"benchmark.{words[0]}", *words[1:], "--dry-run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=True).stdout
    count: int = json.loads(said)["shards"]
    return count


def outcome(out: Path, started: float) -> dict[str, object]:
    """Return what a build left, and the rate of the last tenth of its new shards over that of the first."""
    manifest = json.loads((out / "manifest.json").read_text())
    ends = sorted(path.stat().st_mtime for path in commits(out) if path.stat().st_mtime >= started)
    pairs = sum(manifest["num_rows"].values())
    left = {
        "fingerprint": manifest["fingerprint"],
        "pairs": pairs,
        "excluded": len(manifest.get("excluded", {})),
        "bytes": sum(path.stat().st_size for path in (out / "data").rglob("*.parquet")),
        "new_shards": len(ends),
    }
    if len(ends) >= 40:
        tenth = len(ends) // 10
        left["last_over_first_tenth"] = round((ends[tenth] - ends[0]) / (ends[-1] - ends[-1 - tenth]), 3)
        left["seconds_making_shards"] = round(ends[-1] - started, 1)
    return left


def steps(work: Path) -> dict[str, dict[str, object]]:
    path = work / "steps.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {line["step"]: line for line in lines}


if __name__ == "__main__":
    main()
