"""What a dataset survives: rows that are tried again, a full disk, damage that only a deep check sees; and exports."""

import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from pyarrow import parquet

from benchmark.base.files import pretty_json, sha256_file
from benchmark.base.images import encode_bilevel_png
from benchmark.build import main
from benchmark.contracts import splitting
from benchmark.engine.datasets import BuiltDataset, Manifest
from benchmark.engine.exporters import safe_name
from benchmark.engine.shards import Commit
from benchmark.sources.folder import Folder

SPLITS = ("train", "val", "test")


def command(source: Path | str, out: Path, *more: str) -> list[str]:
    spec = source if isinstance(source, str) else f"folder:{source}"
    return ["--cond", "canny", "--source", spec, "--workers", "1", "--out", str(out), *more]


@pytest.fixture(scope="module")
def pictures(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with captions, half of them JPEG of the final size; not to be changed."""
    folder = tmp_path_factory.mktemp("pictures") / "pictures"
    shutil.copytree(photos, folder)
    for i, path in enumerate(sorted(folder.glob("*.jpg"))):
        Image.open(path).convert("RGB").crop((60, 60, 124, 124)).save(path, quality=90)
        path.with_suffix(".txt").write_text(f"caption {i}")
    return folder


@pytest.fixture(scope="module")
def built(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltDataset:
    out = tmp_path_factory.mktemp("built") / "out"
    assert main(command(pictures, out)) == 0
    return BuiltDataset.open(out)


def shards(folder: Path) -> dict[str, bytes]:
    paths = [path for name in ("data", "commits") for path in (folder / name).iterdir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def rows(dataset: BuiltDataset) -> dict[str, tuple[str | None, bytes, bytes]]:
    found = [r for s in SPLITS for r in dataset.rows(s, ["key", "caption", "image", "cond_canny"])]
    return {row["key"]: (row["caption"], row["image"]["bytes"], row["cond_canny"]["bytes"]) for row in found}


def test_a_row_that_failed_is_tried_again_and_nothing_else_is_written(
    pictures: Path, built: BuiltDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = Path(shutil.copytree(pictures, tmp_path / "pictures")), tmp_path / "out"
    lost = ["wide-03.jpg", "more/tall-05.png"]
    for name in lost:
        (source / name).write_bytes(b"")
    assert main(command(source, out)) == 2
    assert f"--retry-failed {out}" in capsys.readouterr().err
    before, builds = shards(out), f"python -m benchmark.build --cond canny --source folder:{source}"

    shutil.copy(pictures / lost[0], source / lost[0])
    assert main(["--retry-failed", str(out)]) == 2  # one is still broken
    assert lost[1] in capsys.readouterr().err
    first = shards(out)
    shutil.copy(pictures / lost[1], source / lost[1])
    assert main(["--retry-failed", str(out)]) == 0
    after = shards(out)
    assert before.items() < first.items() < after.items()
    dataset = BuiltDataset.open(out)
    assert dataset.manifest.failed == {}
    assert rows(dataset) == rows(built)
    assert dataset.command == builds  # and not what mended it
    assert f"Made by `{builds}` from" in (out / "README.md").read_text()
    assert dataset.manifest.fingerprint != built.manifest.fingerprint
    retries = [commit for commit in dataset.manifest.shards if "-r" in commit["shard"]]
    assert all(commit["source_identity"]["num_images"] == 24 for commit in retries)
    assert main(["--verify", str(out), "--deep", "--recompute", "1"]) == 0
    (source / "wide-04.jpg").write_bytes((source / lost[0]).read_bytes())
    assert main(["--verify", str(out), "--recompute", "1"]) == 1
    shutil.copy(pictures / "wide-04.jpg", source / "wide-04.jpg")
    assert main(["--retry-failed", str(out)]) == 0
    assert "already built" in capsys.readouterr().out
    assert shards(out) == after


def test_the_same_build_command_finds_a_retried_dataset_built(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For want of one row another part was built; with the row back, the size would be reached without that part."""
    monkeypatch.setattr(splitting, "PART", 4)
    out, whole = tmp_path / "out", Path.read_bytes
    words = [*command(pictures, out), "--size", "8"]
    first = next(part for part in Folder(str(pictures)).parts() if part.name == "train-000000")
    lost = next(iter(Folder(str(pictures)).read(first, 64))).key

    def broken(path: Path) -> bytes:
        if path == pictures / lost:
            raise OSError("Input/output error")
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        assert main(words) == 2
    assert main(["--retry-failed", str(out)]) == 0
    held = BuiltDataset.open(out).manifest
    assert held.num_rows["train"] == 12
    capsys.readouterr()
    assert main(words) == 0
    assert "is already built" in capsys.readouterr().out
    assert BuiltDataset.open(out).manifest == held


def test_a_later_build_keeps_rows_that_were_tried_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk failed, not the picture: the source's identity is the same before and after."""
    out, whole = tmp_path / "out", Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.name == "wide-03.jpg":
            raise OSError("Input/output error")
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        assert main(command(pictures, out)) == 2
    assert main(["--retry-failed", str(out)]) == 0
    dataset = BuiltDataset.open(out)
    assert "wide-03.jpg" in rows(dataset)
    assert main(command(pictures, out)) == 0
    assert BuiltDataset.open(out).manifest == dataset.manifest
    assert all("source_identity" not in commit for commit in dataset.manifest.shards)


def test_a_build_that_was_broken_off_cannot_be_retried(
    built: BuiltDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(built.folder, tmp_path / "out"))
    (out / "commits" / "val-000000.json").unlink()
    assert main(["--retry-failed", str(out)]) == 2
    assert "is not finished; run the same build command again" in capsys.readouterr().err


LIMITED = """
import resource, sys
from benchmark.base.images import encode_bilevel_png
from benchmark.build import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    pictures: Path, built: BuiltDataset, tmp_path: Path
) -> None:
    """The kernel refuses to write more than 20,000 bytes to a file, as it refuses on a disk without room."""
    out = tmp_path / "out"
    words = [sys.executable, "-c", LIMITED, *command(pictures, out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1].rpartition("\r")[2]
    assert "make room, then run the same command again to go on" in line
    assert "Traceback" not in done.stderr
    assert not list(out.rglob("*.tmp"))
    assert main(command(pictures, out)) == 0
    assert shards(out) == shards(built.folder)
    assert BuiltDataset.open(out).manifest == built.manifest


def forge(dataset: BuiltDataset, out: Path, **cells: object) -> Path:
    """Copy a dataset with one row of its test shard changed, and every name and hash of files made right again."""
    folder = Path(shutil.copytree(dataset.folder, out))
    commits = [Commit(**shard) for shard in dataset.manifest.shards]
    i = next(i for i, commit in enumerate(commits) if commit.split == "test")
    path = folder / str(commits[i].file)
    table = parquet.read_table(path)
    changed = table.to_pylist()
    changed[1].update({name: value(changed) if callable(value) else value for name, value in cells.items()})
    parquet.write_table(table.from_pylist(changed, schema=table.schema), path, row_group_size=100)
    digest = sha256_file(path)
    own = path.rename(path.with_name(f"{commits[i].shard}-{digest[:12]}.parquet"))
    forged = {"file": f"data/{own.name}", "sha256": digest, "num_bytes": own.stat().st_size}
    commits[i] = Commit(**{**asdict(commits[i]), **forged})
    Manifest.of(dataset.plan, commits, folder, dataset.manifest.is_shuffled).write(folder)
    return folder


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"image": lambda rows: rows[0]["image"]}, "the image is not the one that was hashed"),
        ({"image": {"bytes": b"\xff\xd8", "path": "x.jpg"}}, "image: unreadable"),
        ({"cond_canny": {"bytes": b"no map", "path": "x.png"}}, "cond_canny: is no such map"),
        ({"cond_canny": {"bytes": encode_bilevel_png(np.zeros((32, 32), bool)), "path": "x.png"}}, "no map of 64 x 64"),
        ({"width": 63}, "the image is 64 x 64 pixels, not 64 x 64"),
        ({"key": lambda rows: rows[0]["key"]}, "is in the dataset twice"),
        ({"phash": 1}, "phash is not that of the image"),
    ],
)
def test_a_deep_check_names_a_row_that_no_hash_of_files_gives_away(
    cells: dict[str, object], told: str, built: BuiltDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = forge(built, tmp_path / "out", **cells)
    assert main(["--verify", str(folder)]) == 0
    capsys.readouterr()
    assert main(["--verify", str(folder), "--deep"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert told in line


def test_a_deep_check_finds_scenes_whole(tiny_dataset: Path) -> None:
    assert main(["--verify", str(tiny_dataset), "--deep"]) == 0


def test_a_webdataset_gives_back_the_same_samples(built: BuiltDataset, tmp_path: Path) -> None:
    assert main(["--export", f"webdataset:{built.folder}", "--out", str(tmp_path / "tars")]) == 0
    found = {}
    for split in SPLITS:
        with tarfile.open(tmp_path / "tars" / f"{split}-000000.tar") as archive:
            files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        for key in (row["key"] for row in built.rows(split, ["key"])):
            name = safe_name(key)
            caption = files[f"{name}.txt"].decode() or None
            found[key] = (caption, files[f"{name}.jpg"], files[f"{name}.cond_canny.png"])
            assert json.loads(files[f"{name}.json"])["key"] == key
    assert found == rows(built)
    loaded = load_dataset("webdataset", data_files=str(tmp_path / "tars" / "test-*.tar"), cache_dir=str(tmp_path / "c"))
    assert len(loaded["train"]) == built.manifest.num_rows["test"]
    assert main(command(f"webdataset:{tmp_path / 'tars'}", tmp_path / "again")) == 0
    again = [(caption or None, *files) for caption, *files in rows(BuiltDataset.open(tmp_path / "again")).values()]
    assert sorted(map(repr, again)) == sorted(map(repr, rows(built).values()))


def test_an_imagefolder_gives_back_the_same_samples(built: BuiltDataset, tmp_path: Path) -> None:
    out = tmp_path / "files"
    assert main(["--export", f"imagefolder:{built.folder}", "--out", str(out)]) == 0
    loaded = load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert {n: len(s) for n, s in loaded.items()} == {
        "train": built.manifest.num_rows["train"],
        "validation": built.manifest.num_rows["val"],
        "test": built.manifest.num_rows["test"],
    }
    everything = rows(built)
    for split in loaded.values():
        for row in split:
            caption, image, map_ = everything[row["key"]]
            assert row["text"] == caption
            for shown, data in ((row["image"], image), (row["cond_canny"], map_)):
                stored = Image.open(io.BytesIO(data)).convert("RGB")
                np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.asarray(stored))
    assert main(command(out, tmp_path / "again")) == 0
    again = rows(BuiltDataset.open(tmp_path / "again"))
    assert sorted(map(repr, again.values())) == sorted(map(repr, everything.values()))


@pytest.mark.parametrize("name", ["webdataset", "imagefolder"])
def test_an_export_is_whole_or_absent_and_the_same_every_time(
    name: str, built: BuiltDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--export", f"{name}:{built.folder}", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.engine.exporters.replace_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    assert list(tmp_path.iterdir()) == []
    assert main(words) == main([*words[:3], str(tmp_path / "other")]) == 0
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = tmp_path / "other"
    assert files == {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(words) == 0
    assert "already exported" in capsys.readouterr().out
    (out / "export.json").write_bytes(pretty_json({}))
    assert main(words) == 2
    assert "is not empty; give another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("zip:DIR", 'no format "zip"'),
        ("webdataset", "write webdataset:DIR"),
        ("webdataset:no", "no is no dataset folder"),
    ],
)
def test_an_export_that_cannot_be_is_refused(spec: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--export", spec]) == 2
    assert told in capsys.readouterr().err


def test_names_of_files_are_safe_and_differ_as_keys_do() -> None:
    rng = random.Random(0)
    keys = {"".join(rng.choice("./\\%a\u00e9\n ~") for _ in range(rng.randrange(1, 300))) for _ in range(3000)}
    keys |= {"..", ".", "a/../../b", "/etc/passwd", "a" * 500, "a" * 501, "__key__", "_", "%5F_key__", "_" * 200}
    names = {safe_name(key) for key in keys}
    assert len(names) == len(keys)
    assert all(len(name) <= 120 and not set(name) & set("./\\\n\0 ") for name in names)
    assert not any(name.startswith("_") for name in names)


def test_figures_are_whole_at_a_resolution_that_is_not_their_own(tmp_path: Path) -> None:
    words = [
        "--cond",
        "pose",
        "--source",
        "scenes,val=2,test=2",
        "--size",
        "2",
        "--resolution",
        "128",
        "--workers",
        "1",
    ]
    assert main([*words, "--out", str(tmp_path / "figures")]) == 0
    assert main(["--verify", str(tmp_path / "figures"), "--deep"]) == 0
