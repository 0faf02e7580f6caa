"""The engines of `benchmark.build`: the same bytes from all, also where work is lost, done twice or late."""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from benchmark import assembly, build
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file
from benchmark.contracts.plugins import Part
from benchmark.engine import executors, shards
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.executors import run_local, run_ray
from benchmark.engine.plan import Plan
from benchmark.sources.folder import Folder

# what older releases of Ray leave behind: log files and a process that nobody closed
pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:Exception ignored in. <{what}:pytest.PytestUnraisableExceptionWarning")
    for what in ("_io.FileIO name=.*/ray-.*/logs/", "function Popen.__del__")
]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the card, which says where the folder is."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def wait_for(condition: Any) -> None:
    """Wait until a condition holds, at most five minutes."""
    ends = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,300 small pictures, which are five parts: two held out, two of 500 and one of 40."""
    folder = tmp_path_factory.mktemp("source") / "tiles"
    folder.mkdir()
    draws = np.random.default_rng(0).integers(0, 256, (1300, 4, 4, 3), np.uint8)
    for i, blocks in enumerate(draws):
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(folder / f"{i:04d}.jpg")
    return folder


@pytest.fixture(scope="module")
def words(tiles: Path) -> list[str]:
    return f"--cond canny --source folder:{tiles} --resolution 32 --size 1040 --no-hygiene --out".split()


@pytest.fixture(scope="module")
def local(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as one process makes it; not to be changed."""
    folder = tmp_path_factory.mktemp("local") / "tiles"
    assert build.main([*words, str(folder), "--workers", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes that work, of one processor each, and one that leads them, all on this machine; at RAY_ADDRESS."""
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as logs, pytest.MonkeyPatch.context() as patch:
        (Path(logs) / "ray").mkdir()
        patch.setenv("RAY_TMPDIR", logs)  # short: the names of sockets have an end
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        nodes = Cluster(head_node_args=head, initialize_head=True)
        for _ in range(2):
            nodes.add_node(**NODE, num_gpus=1)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


def test_a_build_on_two_nodes_one_of_which_is_killed_has_the_bytes_of_a_local_one(
    cluster: Cluster, words: list[str], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def held(plan: Plan, folder: Path, part: Part) -> Any:
        node = ray.get_runtime_context().get_node_id()
        (marks / f"{node}.{part.name}").touch()
        while not (marks / "killed").exists() or node in (marks / "killed").read_text():
            time.sleep(0.02)  # for ever on the killed node, whose process may outlive it for a moment
        return assembly.build_shard(plan, folder, part)

    def started() -> dict[str, set[str]]:
        """The parts that each node took up."""
        names = [path.name.split(".") for path in marks.glob("*.*")]
        return {node: {part for other, part in names if other == node} for node, _ in names}

    def victim() -> Any:
        """A node whose end the driver outlives: it is a client of any of them, of which is not in our hands."""
        mine = ray.get_runtime_context().get_node_id()
        sockets = [each["RayletSocketName"] for each in ray.nodes() if each["NodeID"] != mine]
        return next(node for node in cluster.worker_nodes if node.raylet_socket_name in sockets)

    def kill() -> None:
        try:
            wait_for(lambda: len(started()) == 2)
            cluster.remove_node(victim(), allow_graceful=False)
            wait_for(lambda: any(not each["Alive"] for each in ray.nodes()))
        finally:
            dead = [each["NodeID"] for each in ray.nodes() if not each["Alive"]]
            replace_file(marks / "killed", "\n".join(dead).encode())

    monkeypatch.setattr(build, "_build_shared", held)
    killer = threading.Thread(target=kill)
    killer.start()
    assert build.main([*words, str(tmp_path / "tiles"), "--engine", "ray"]) == 0
    killer.join()
    assert contents(tmp_path / "tiles") == contents(local)
    one, other = started().values()
    assert one & other  # what was lost was done again


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_dies_is_replaced_and_its_item_done_again(tmp_path: Path) -> None:
    def mortal(item: int) -> tuple[int, str]:
        if item == 2 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return item, os.environ["CUDA_VISIBLE_DEVICES"]

    assert sorted(run_ray(mortal, range(5), 1, warm=True)) == [(item, "0") for item in range(5)]
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("cluster")
def test_an_item_that_ends_every_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_RETRIES", 0)

    def poison(item: int) -> None:
        os._exit(item)

    with pytest.raises(UserError, match="Ray lost a process 1 times at the same work"):
        list(run_ray(poison, [1], 1, warm=True))


@pytest.mark.usefixtures("cluster")
def test_an_annotator_with_weights_gives_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    words = ["--cond", "depth", "--source", f"folder:{photos}", "--annotator", "scenes:depth", "--workers", "1"]
    assert build.main([*words, "--out", str(tmp_path / "ray" / "photos"), "--engine", "ray"]) == 0
    assert build.main([*words, "--out", str(tmp_path / "local" / "photos")]) == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_without_a_cluster_ray_is_started_here_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)

    def where(item: int) -> Path:
        if item == 3:
            raise UserError("three is too many")
        return Path.cwd()

    with TemporaryDirectory() as own:  # short: the names of sockets have an end
        monkeypatch.setattr(tempfile, "tempdir", own)
        results = run_ray(where, [1, 2, 3], 1)
        assert [next(results), next(results)] == [tmp_path, tmp_path]
        with pytest.raises(UserError, match=r"^three is too many$"):
            next(results)
        assert list(Path(own).iterdir()) == []
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []


def test_ranks_share_a_build_and_the_last_to_end_finishes_it(
    words: list[str], local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiles"
    share = [*words, str(folder), "--workers", "1", "--world", "2", "--rank"]
    assert build.main([*share, "1"]) == 0
    assert "rank 1 of 2 has built its share; 3 shards of others are missing" in capsys.readouterr().out
    made = sorted(path.stem for path in (folder / "commits").glob("*.json"))
    assert made == ["train-000001", "val-000000"]  # of test-0, val-0, train-0, train-1, train-2
    assert not (folder / "manifest.json").exists()
    assert build.main([*share, "0"]) == 0
    assert contents(folder) == contents(local)


def test_the_last_rank_goes_on_alone_where_failed_rows_make_another_part_due(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = Path(shutil.copytree(tiles, tmp_path / "source")), tmp_path / "out"
    parts = {part.name: part for part in Folder(str(tiles)).parts()}
    lost = next(iter(Folder(str(tiles)).read(parts["train-000000"], 32))).key
    (source / lost).write_bytes(b"no picture")
    words = f"--cond canny --source folder:{source} --resolution 32 --size 500 --no-hygiene --max-failed 1".split()
    for rank in ("0", "1"):
        assert not (folder / "manifest.json").exists()
        assert build.main([*words, "--out", str(folder), "--workers", "1", "--world", "2", "--rank", rank]) == 0
    assert "1 shards of others are missing" in capsys.readouterr().out
    assert BuiltDataset.open(folder).manifest.num_rows["train"] == 999


@pytest.fixture
def few(photos: Path, tmp_path: Path) -> tuple[Plan, Path, list[Part]]:
    """A plan over a copy of the photographs, a folder for its dataset, and its parts."""
    source = Path(shutil.copytree(photos, tmp_path / "source"))
    plan = build.make_plan(build.Build(cond=("canny",), source=f"folder:{source}"))
    return plan, tmp_path / "out", list(Folder(str(source)).parts())


def test_a_part_that_several_build_at_once_is_committed_once(few: tuple[Plan, Path, list[Part]]) -> None:
    plan, folder, parts = few
    first, *others = run_local(partial(assembly.build_shard, plan, folder), [parts[-1]] * 4, 2)
    assert others == [first] * 3
    assert len(list((folder / "commits").iterdir())) == len(list((folder / "data").iterdir())) == 1
    assert shards.check_file(folder, first) is None


def test_a_late_writer_changes_neither_the_commit_nor_what_is_read(
    few: tuple[Plan, Path, list[Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder, parts = few
    commits = [assembly.build_shard(plan, folder, part) for part in parts]
    before = contents(folder)
    monkeypatch.setattr(assembly, "is_whole", lambda folder, shard: False)  # as it was when the late one began
    assert [assembly.build_shard(plan, folder, part) for part in parts] == commits
    assert contents(folder) == before
    source = Path(plan.source["path"])
    for path in source.rglob("*.*"):  # a writer that saw other pictures
        Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(path)
    assert [assembly.build_shard(plan, folder, part) for part in parts] == commits
    assert contents(folder).items() > before.items()
    assert all(shards.check_file(folder, commit) is None for commit in commits)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--engine spark", 'no engine "spark"; allowed: local, ray'),
        ("--rank 2 --world 2", "--rank 2 is not below --world 2; ranks count from 0"),
        ("--engine ray", "--engine ray needs Ray; pip install ray"),
    ],
)
def test_an_engine_that_is_not_there_is_one_line(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = ["--out", str(tmp_path / "out")]
    assert build.main(["--cond", "seg", "--source", "scenes,val=8,test=24", *words.split(), *out]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_a_node_does_not_see_is_an_error(tmp_path: Path) -> None:
    plan = build.make_plan(build.Build(cond=("canny",)))
    with pytest.raises(UserError, match="give an --out that all nodes share"):
        build._build_shared(plan, tmp_path / "nowhere", Part("train-000000", 500))
    with pytest.raises(UserError, match="start the command in a folder that all nodes share"):
        executors._enter(tmp_path / "nowhere")
