"""Freed memory: kept by the process that asks for it, given back by any other."""

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_used_again_without_asking_the_system_for_pages() -> None:
    ask = "from benchmark.base.memory import keep_freed_memory; keep_freed_memory()"
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", _FAULTS.format(ask=words)], capture_output=True, check=True).stdout)
        for words in (ask, "")
    )
    assert kept < 0.1 * given_back
