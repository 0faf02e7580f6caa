"""Freed memory: kept by the process that asks for it, given back by any other."""

import os
import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, torch
{ask}
def work():
    kept = [torch.ones(2**22) for _ in range(16)]  # 16 MiB each, all of them held at once and freed
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


# glibc raises its own thresholds as it goes, by how blocks happen to lie; named, they stay.
_FROM_THE_START = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def faults(ask: str) -> int:
    """Return how many pages a process asks for to do once more what it has done before."""
    command, environment = [sys.executable, "-c", _FAULTS.format(ask=ask)], os.environ | _FROM_THE_START
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_used_again_without_asking_the_system_for_pages() -> None:
    kept = faults("from benchmark.base.memory import keep_freed_memory; keep_freed_memory()")
    assert kept < 0.1 * faults("")
