"""Say what produced a number: machine, packages, and the commit of the code."""

import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_RECORDED = ("torch", "diffusers", "transformers", "datasets", "torchmetrics", "numpy", "opencv-python-headless")


def usable_cores() -> int:
    """Return how many cores this process may use: on a shared machine fewer than there are, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def machine() -> str:
    """Return the processor's name and the number of cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {usable_cores()} cores"


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number."""
    return versions_of(_RECORDED)


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of distributions, "absent" for one that is not there."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


@cache
def commit() -> tuple[str, bool]:
    """Return (commit, dirty) of the checkout this package runs from; ("unknown", True) outside one."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return head, bool(changes)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
