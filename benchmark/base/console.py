"""What a command prints while it works: progress with rate and time left, and one-line statements."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(total: int | None, what: str, unit: str, done: int = 0, *, hidden: bool = False) -> "tqdm[Any]":
    """Return a progress bar on stderr: in place on a terminal, a line every ten seconds in a log, or nothing."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    name = f" {unit}"
    return tqdm(
        total=total, desc=plain(what), unit=name, initial=done, mininterval=interval, dynamic_ncols=True, disable=hidden
    )


def track(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    """Yield items while showing progress."""
    with progress(total, what, unit) as bar:
        for item in items:
            yield item
            bar.update()


def say(line: str) -> None:
    """Print one line of a command's answer to stdout; where nobody reads it any more, work goes on."""
    try:
        print(plain(line), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain(text: str) -> str:
    r"""Return text that moves no cursor and turns no writing: what is not printable is spelt out, as in ``\x1b``."""
    if text.isprintable():  # nearly always, and a hundred times as fast
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
