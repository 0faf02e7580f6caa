"""A dataset folder with a damaged file: never read as whole, and the same build goes on where it says so."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from benchmark import build
from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.reader import Subset

WORDS = ["--cond", "seg", "--cond", "canny", "--source", "scenes,val=8,test=24", "--size", "500", "--workers", "1"]


def everything(folder: Path) -> list[dict[str, object]]:
    dataset = BuiltDataset.open(folder)
    columns = ["key", "image", "caption", "cond_seg", "cond_canny"]
    return [row for split in ("val", "test") for row in dataset.rows(split, columns)]


@pytest.fixture
def copy(tiny_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dataset, tmp_path / "copy"))


@pytest.mark.parametrize("pattern", ["data/val-*", "manifest.json", "plan.json"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_file_is_an_error_or_changes_nothing(pattern: str, cut: bool, copy: Path) -> None:
    rng, whole = random.Random(0), everything(copy)
    (path,) = copy.glob(pattern)
    data = path.read_bytes()
    errors = 0
    for _ in range(25):
        place = rng.randrange(len(data.rstrip()))
        changed = data[:place] + bytes([data[place] ^ 1 << rng.randrange(7)]) + data[place + 1 :]
        path.write_bytes(data[:place] if cut else changed)
        try:
            assert everything(copy) == whole
        except UserError:
            errors += 1
    assert errors == 25 if cut or path.suffix == ".parquet" else errors > 20


def test_the_keys_of_a_shard_with_fewer_rows_than_were_committed_are_refused(copy: Path) -> None:
    dataset = BuiltDataset.open(copy)
    assert dataset.keys("val") == [row["key"] for row in dataset.rows("val", ["key"])]
    (shard,) = copy.glob("data/val-*")
    parquet.write_table(parquet.read_table(shard).slice(0, 5), shard)
    with pytest.raises(UserError, match="is not the file that was committed; delete it"):
        dataset.keys("val")


def test_pairs_are_named_by_all_that_their_shards_hold(copy: Path) -> None:
    """Also by captions and maps, which a row that was read again may have otherwise under the same plan."""
    dataset = BuiltDataset.open(copy)
    before = Subset.of(dataset, 40, 0, 0)
    (shard,) = copy.glob("data/train-*")
    table = parquet.read_table(shard)
    captions = table["caption"].to_pylist()[::-1]
    parquet.write_table(table.set_column(table.column_names.index("caption"), "caption", [captions]), shard)
    digest = sha256_file(shard)
    own = shard.rename(shard.with_name(f"train-000000-{digest[:12]}.parquet"))
    forged = {"file": f"data/{own.name}", "sha256": digest, "num_bytes": own.stat().st_size}
    shards = [{**s, **forged} if s["shard"] == "train-000000" else s for s in dataset.manifest.shards]
    mended = replace(dataset, manifest=replace(dataset.manifest, shards=shards))
    after = Subset.of(mended, 40, 0, 0)
    assert before.keys == after.keys
    assert before.sha256 != after.sha256


@pytest.mark.parametrize("kind", ["a shard", "a commit", "the manifest", "the plan"])
def test_what_is_deleted_as_the_error_says_is_built_again_to_the_same_bytes(
    kind: str, tiny_dataset: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = copy.glob("data/val-*")
    commit, manifest = copy / "commits" / "val-000000.json", copy / "manifest.json"
    damaged = {"a shard": shard, "a commit": commit, "the manifest": manifest, "the plan": copy / "plan.json"}[kind]
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    assert build.main(["--verify", str(copy)]) in (1, 2) or kind == "a commit"
    code = build.main([*WORDS, "--out", str(copy)])
    assert code == 2 or kind == "a shard"
    assert "Traceback" not in capsys.readouterr().err
    if kind == "the plan":
        return  # it is what a folder is; nothing can be told without it
    for path in (shard, commit, manifest) if kind == "a shard" else (damaged,):
        path.unlink()
    assert build.main([*WORDS, "--out", str(copy)]) == 0
    for path in (shard, commit, manifest):
        assert path.read_bytes() == (tiny_dataset / path.relative_to(copy)).read_bytes()


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "data/other.parquet"])
def test_a_commit_that_names_a_file_elsewhere_is_refused(name: str, copy: Path) -> None:
    path = copy / "manifest.json"
    (shard,) = copy.glob("data/val-*")
    path.write_text(path.read_text().replace(f"data/{shard.name}", name))
    with pytest.raises(UserError, match="names another file"):
        BuiltDataset.open(copy)
