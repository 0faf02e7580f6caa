"""Run a function over items, on this machine or on a Ray cluster, with a bounded number under way.

An item may be done twice, where a process was lost or is slow to end: what a function leaves must not depend on that.
"""

import os
import platform
import signal
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import islice
from math import ceil
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from benchmark.base.errors import UserError
from benchmark.base.provenance import usable_cores

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 3  # of an item whose process was lost
_STORE_BYTES = 80 * 2**20  # Ray takes no less; items and results are small


def run_local(function: Callable[[T], R], items: Sequence[T], workers: int | None) -> Iterator[R]:
    """Yield function(item) in the order of the items, from spawned processes where workers is over 1.

    Args:
        function: What to run; it can be pickled.
        items: Its arguments.
        workers: Processes; by default as many as this one may use cores.
    """
    workers = min(workers or usable_cores(), len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    under_way: deque[Future[R]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended from outside, as where memory runs out; what is finished is kept: run the "
                "same command again, with fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Watch the process that started this one: without it nobody would ever give this one work, or end it."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def beside(function: Callable[[], None]) -> Iterator[None]:
    """Run a function in a process of its own while the body runs here, and raise what it raised.

    The process is a fork: it sees all that this one holds, without a copy. Where there is no fork (Windows), or it is
    unsafe (macOS), the function runs here, before the body.

    Args:
        function: What to run; it leaves files, and nothing else that is seen here.

    Raises:
        UserError: What the function found wrong, or that its process was ended from outside.
    """
    if platform.system() != "Linux":
        function()
        yield
        return
    context = get_context("fork")
    answer, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, theirs))
    process.start()
    theirs.close()
    try:
        yield
        error = answer.recv()
    except EOFError:
        raise UserError(
            "a process was ended from outside, as where memory runs out; run the same command again"
        ) from None
    finally:
        process.kill()  # it has answered, or nobody waits for its answer any more
        process.join()
        process.close()
        answer.close()
    if error is not None:
        raise error


def _answer(function: Callable[[], None], answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    _end_with_parent()
    try:
        function()
    except Exception as error:
        answer.send(error)
    else:
        answer.send(None)


def run_ray(function: Callable[[T], R], items: Sequence[T], workers: int | None, warm: bool = False) -> Iterator[R]:
    """Yield function(item) in the order they end, from the Ray cluster at RAY_ADDRESS, else from one started here.

    What a lost node had under way is done again elsewhere. The working folder has to be there on every node.

    Args:
        function: What to run; it can be pickled.
        items: Its arguments, hashable.
        workers: Items at a time; by default as many as the cluster has processors, or, where it is warm, GPUs.
        warm: Whether the processes are actors, which keep what the function loads, and have a share of a GPU each.

    Raises:
        UserError: No Ray, no such cluster, or an item whose process was lost every time.
    """
    if not items:
        return
    here = Path.cwd()

    def call(item: T) -> R:
        _enter(here)
        return function(item)

    with _cluster(workers) as ray:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        usual = gpus if warm and gpus else max(1, int(resources.get("CPU", 0)))
        workers = min(workers or usual, len(items))
        try:
            yield from _by_actors(ray, call, items, workers, gpus) if warm else _by_tasks(ray, call, items, workers)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"Ray lost a process {_RETRIES + 1} times at the same work ({reason}); run again") from None


def _by_tasks(ray: Any, call: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Yield results of tasks, twice as many as workers under way; Ray itself repeats those that are lost."""
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(call)
    waiting = iter(items)
    under_way = [task.remote(item) for item in islice(waiting, 2 * workers)]
    while under_way:
        (ended,), under_way = ray.wait(under_way)
        yield ray.get(ended)
        under_way += [task.remote(item) for item in islice(waiting, 1)]


def _by_actors(ray: Any, call: Callable[[T], R], items: Sequence[T], workers: int, gpus: int) -> Iterator[R]:
    """Yield results of actors, one item each at a time; another takes the place, and the item, of one that is lost."""

    class Warm:
        def run(self, given: tuple[T, ...]) -> list[R]:
            return [call(item) for item in given]

    actor_of = ray.remote(num_cpus=1, num_gpus=1 / ceil(workers / gpus) if gpus else 0)(Warm)
    under_way: dict[Any, tuple[Any, tuple[T, ...]]] = {}

    def give(actor: Any, *given: T) -> None:
        under_way[actor.run.remote(given)] = actor, given

    for _ in range(workers):
        give(actor_of.remote())  # nothing: the answer says that the actor is there, which may take a while
    waiting, idle, losses, left = deque(items), [], Counter[T](), len(items)
    while left:
        (ended, *_), _ = ray.wait(list(under_way))
        actor, given = under_way.pop(ended)
        try:
            results = ray.get(ended)
        except ray.exceptions.RayActorError:
            losses.update(given)
            if any(losses[item] > _RETRIES for item in given):
                raise
            waiting.extendleft(given)
            give(actor_of.remote())
        else:
            yield from results
            left -= len(given)
            idle.append(actor)
        while idle and waiting:
            give(idle.pop(), waiting.popleft())


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """Give Ray, connected to the cluster at RAY_ADDRESS, else to one on this machine that ends with the context."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray; pip install ray") from None
    address = os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        own: dict[str, Any] = {}
        if not address:
            logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            own = {"num_cpus": workers or usable_cores(), "include_dashboard": False, "_temp_dir": logs}
            own["object_store_memory"] = _STORE_BYTES
        try:
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
        except ConnectionError:
            raise UserError(
                f"no Ray cluster answers at RAY_ADDRESS={address}; start it (ray start --head), or unset RAY_ADDRESS "
                "to use this machine alone"
            ) from None
        stack.callback(ray.shutdown)
        yield ray


def _enter(folder: Path) -> None:
    """Go to the working folder of the command, from which relative paths are meant."""
    try:
        os.chdir(folder)
    except OSError:
        raise UserError(
            f"{platform.node()} has no folder {folder}; start the command in a folder that all nodes share"
        ) from None
