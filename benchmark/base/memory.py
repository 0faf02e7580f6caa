"""What the C library does with memory that is no longer used."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_HIGHEST_TRIM, _HIGHEST_MMAP = 2**31 - 1, 32 * 2**20  # bytes; what an int holds, and what glibc allows


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees, for what it allocates next; another C library goes on as it does.

    A step of a network on a processor frees hundreds of megabytes and wants them again in the next step. Given back to
    the system in between, each page is cleared and mapped anew (docs/LOG.md). The most memory held stays the same.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _HIGHEST_TRIM)
        libc.mallopt(_MMAP_THRESHOLD, _HIGHEST_MMAP)
