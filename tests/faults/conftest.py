"""Kill real commands at random moments: `tox run -e faults`, with `-- --kills 200` for the whole campaign.

A moment is a number of files in the folder a command writes to, drawn up to what a whole run leaves, and up to a third
of a second more: most kills fall into work, not into imports.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LONGEST = 900  # seconds; a command that takes longer hangs
_REPORT: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="of builds; of each other command a tenth, at least one")
    parser.addoption("--fault-seed", type=int, default=0, help="of the moments")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("faults")
    for line in _REPORT:
        terminalreporter.write_line(line)


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, without temporary files of processes that were killed."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


@dataclass
class Faults:
    """One campaign: what it runs, and what became of it.

    Attributes:
        kills: How many commands are to be killed.
        patience: Seconds that what a command started may outlive it.
    """

    name: str
    kills: int
    rng: random.Random
    patience: float = 60.0
    seen: Counter[str] = field(default_factory=Counter)

    def start(self, words: list[str], cwd: Path) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own, its output in a file: nothing is lost to a full pipe."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        name, *rest = words
        with (cwd / "output.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"benchmark.{name}", *rest],
                cwd=cwd,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def end(self, process: "subprocess.Popen[str]", cwd: Path) -> int:
        """Wait for a command; return its exit code."""
        code = process.wait(timeout=_LONGEST)
        assert "Traceback" not in (cwd / "output.log").read_text(), (cwd / "output.log").read_text()[-3000:]
        return code

    def run(self, words: list[str], cwd: Path) -> None:
        """Run a command, which has to end well."""
        code = self.end(self.start(words, cwd), cwd)
        assert code == 0, (cwd / "output.log").read_text()[-3000:]

    def kill(self, words: list[str], cwd: Path, folder: Path, most: int) -> None:
        """Start a command and end it when a random number of files lies in a folder, unless it ends before."""
        self.strike(self.start(words, cwd), folder, most)

    def strike(self, process: "subprocess.Popen[str]", folder: Path, most: int) -> None:
        """End a process by SIGKILL, or now and then by SIGTERM, alone or with all that it started."""
        awaited, how = self.rng.randint(0, most), self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        until = time.monotonic() + _LONGEST
        while process.poll() is None and _count(folder) < awaited:
            assert time.monotonic() < until, f"{process.args!r} hangs"
            time.sleep(0.005)
        time.sleep(self.rng.uniform(0, 0.3))
        if process.poll() is None:
            alone = self.rng.random() < 0.3
            os.kill(process.pid, how) if alone else os.killpg(process.pid, how)
            self.seen[f"{how.name}{' to the first process alone' if alone else ''}"] += 1
        else:
            self.seen["ended before"] += 1
        process.wait(timeout=_LONGEST)
        self._wait_for_the_rest(process.pid)

    def _wait_for_the_rest(self, group: int) -> None:
        """See that what a command started does not outlive it."""
        until = time.monotonic() + self.patience
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(group, 0)
                assert time.monotonic() < until, "a worker outlives its command"
                time.sleep(0.05)

    def left_over(self, folder: Path) -> None:
        """Count temporary files that killed processes left behind; nobody reads them."""
        self.seen["temporary files left"] += len(list(folder.rglob("*.tmp")))


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Return the campaign of a test; its line of the report is printed at the end."""
    kills = request.config.getoption("--kills")
    name = request.node.name.removeprefix("test_").replace("_", " ")
    share = kills if "build" in name else max(1, kills // 10)
    made = Faults(name, share, random.Random(f"{request.config.getoption('--fault-seed')} {name}"))
    started = time.monotonic()
    yield made
    seen = ", ".join(f"{count} {what}" for what, count in made.seen.items())
    _REPORT.append(f"{made.name}: in {time.monotonic() - started:.0f} s: {seen}")
