import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.base.errors import UserError
from benchmark.base.provenance import usable_cores
from benchmark.engine.executors import beside


def test_a_function_runs_beside_and_sees_what_is_held_here(tmp_path: Path) -> None:
    held, found = {"word": "seen"}, tmp_path / "found"

    def leave() -> None:
        found.write_text(f"{held['word']} by {os.getpid()}")

    with beside(leave):
        held["word"] = "too late"
    word, _, process = found.read_text().partition(" by ")
    assert (word, process != str(os.getpid())) == ("seen", True)


def raise_user_error() -> None:
    raise UserError("page.html is damaged; make it again")


def raise_full_disk() -> None:
    raise OSError(28, "No space left on device", "page.html")


@pytest.mark.parametrize("function", [raise_user_error, raise_full_disk])
def test_what_it_raised_is_raised_here_after_the_body(function: Callable[[], None]) -> None:
    body = []
    with pytest.raises((UserError, OSError), match=r"page.html") as caught, beside(function):
        body.append("done")
    assert body == ["done"]
    with pytest.raises(type(caught.value)) as alone:
        function()
    assert caught.value.args == alone.value.args


def test_a_process_ended_from_outside_is_an_error_in_one_line() -> None:
    with pytest.raises(UserError, match="ended from outside"), beside(lambda: os.kill(os.getpid(), signal.SIGKILL)):
        pass


def test_an_error_of_the_body_ends_what_runs_beside(tmp_path: Path) -> None:
    started, release = os.pipe()

    def wait_for_ever() -> None:
        os.write(release, b"x")
        signal.pause()

    def fail() -> None:
        with beside(wait_for_ever):
            assert os.read(started, 1) == b"x"
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        fail()
    os.close(release)
    assert os.read(started, 1) == b""  # the other end is closed everywhere: the process is gone
    os.close(started)


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no `sched_getaffinity`; a job of a cluster may use a few of a machine's cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()
