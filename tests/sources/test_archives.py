"""Sources that are read in their own order: tars of samples, and Parquet files as `datasets` writes them."""

import contextlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, Features, Image, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from benchmark import build
from benchmark.base.errors import UserError
from benchmark.contracts import splitting
from benchmark.contracts.plugins import Sample, Source
from benchmark.contracts.splitting import consecutive, in_files
from benchmark.engine.datasets import BuiltDataset
from benchmark.sources.parquet import Parquet
from benchmark.sources.webdataset import Webdataset, _index


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def pictures(photos: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(photos.rglob("*.*"))]


@pytest.fixture
def tars(pictures: list[bytes], tmp_path: Path) -> Path:
    """Two tars of 14 and 10 samples, captions as txt in one and in json in the other, members in no order."""
    folder = tmp_path / "tars"
    folder.mkdir()
    first = [(f"{i:04d}.jpg", data) for i, data in enumerate(pictures[:14])]
    first += [(f"{i:04d}.txt", f"caption {i}\n".encode()) for i in reversed(range(14))]
    second = []
    for i, data in enumerate(pictures[14:]):
        second += [(f"{i:04d}.json", json.dumps({"caption": f"json {i}", "url": "x"}).encode()), (f"{i:04d}.png", data)]
    write_tar(folder / "00000.tar", first)
    write_tar(folder / "00001.tar", second)
    return folder


@pytest.fixture
def table(pictures: list[bytes], tmp_path: Path) -> Path:
    """Two Parquet files with small row groups, as `datasets` writes them."""
    folder = tmp_path / "table"
    folder.mkdir()
    features = Features({"image": Image(), "text": Value("string"), "more": Value("int64")})
    for file, (start, stop) in enumerate([(0, 14), (14, 24)]):
        rows = {
            "image": [{"bytes": data, "path": None} for data in pictures[start:stop]],
            "text": [f"caption {i}" for i in range(start, stop)],
            "more": list(range(start, stop)),
        }
        Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{file}.parquet"), batch_size=4)
    assert pq.ParquetFile(folder / "0.parquet").num_row_groups > 2
    return folder


def samples(source: Source) -> list[Sample]:
    found = [sample for part in source.parts() for sample in source.read(part, 64)]
    assert len({sample.key for sample in found}) == len(found)
    assert sum(part.num_samples for part in source.parts()) == len(found)
    return found


def test_tars_give_every_sample_once_in_their_own_order(tars: Path, pictures: list[bytes]) -> None:
    found = samples(Webdataset(str(tars)))
    assert [sample.image for sample in found] == pictures
    assert [sample.caption for sample in found] == [
        *(f"caption {i}" for i in range(14)),
        *(f"json {i}" for i in range(10)),
    ]
    assert [found[0].key, found[14].key] == ["00000/0000", "00001/0000"]
    assert samples(Webdataset(str(tars / "*.tar"))) == found


def test_parquet_files_give_every_row_once_in_their_own_order(table: Path, pictures: list[bytes]) -> None:
    found = samples(Parquet(str(table)))
    assert [sample.image for sample in found] == pictures
    assert [sample.caption for sample in found] == [f"caption {i}" for i in range(24)]
    assert [found[0].key, found[14].key] == ["0/00000000", "1/00000000"]
    assert samples(Parquet(str(table / "*.parquet"), caption="more"))[3].caption == "3"


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_they_build_a_dataset_whose_splits_share_no_sample(kind: str, tars: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = f"{kind}:{tars if kind == 'webdataset' else table}"
    words = ["--cond", "canny", "--source", source, "--resolution", "64", "--workers", "1", "--out", str(out)]
    assert build.main(words) == 0
    dataset = BuiltDataset.open(out)
    keys = [row["key"] for split in ("train", "val", "test") for row in dataset.rows(split, ["key"])]
    assert len(keys) == len(set(keys)) == 24
    assert len(list(dataset.rows("train", ["key"]))) == 12


def test_two_files_of_one_name_in_two_folders_keep_their_keys_apart(tars: Path) -> None:
    for name in ("a", "b"):
        (tars / name).mkdir()
        (tars / name / "x.tar").write_bytes((tars / "00001.tar").read_bytes())
    found = samples(Webdataset(str(tars / "*" / "x.tar")))
    assert len(found) == 20
    assert found[0].key == "a/x/0000"


def test_a_sample_without_an_image_is_a_row_that_fails(pictures: list[bytes], tmp_path: Path) -> None:
    members = [(f"{i}.jpg", data) for i, data in enumerate(pictures[:6])]
    write_tar(tmp_path / "t.tar", [("lonely.txt", b"no picture"), *members])
    found = samples(Webdataset(str(tmp_path)))
    assert (found[0].key, found[0].image, found[0].caption) == ("t/lonely", b"", "no picture")


def test_names_that_lead_out_of_the_archive_and_links_touch_nothing(pictures: list[bytes], tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [(f"../../{i}.jpg", data) for i, data in enumerate(pictures[:4])])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert [sample.image for sample in samples(Webdataset(str(path)))] == pictures[:4]


def test_another_content_is_another_identity(tars: Path, table: Path, pictures: list[bytes]) -> None:
    before = [Webdataset(str(tars)).identity(), Parquet(str(table)).identity()]
    assert before == [Webdataset(str(tars)).identity(), Parquet(str(table / "*")).identity()]
    assert before[0]["num_samples"] == before[1]["num_samples"] == 24
    write_tar(tars / "00002.tar", [("a.jpg", pictures[0])])
    (table / "1.parquet").unlink()
    after = [Webdataset(str(tars)).identity(), Parquet(str(table)).identity()]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_tar_that_is_cut_off_or_compressed_is_named(tars: Path, tmp_path: Path) -> None:
    whole = (tars / "00000.tar").read_bytes()
    for name, data in (("cut.tar", whole[: len(whole) // 2]), ("noise.tar", b"\x1f\x8b" + whole[2:])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name} is no whole, uncompressed tar"):
            samples(Webdataset(str(tmp_path / name)))


def test_a_tar_cut_between_members_or_with_a_damaged_header_is_not_read_as_a_shorter_one(
    tars: Path, tmp_path: Path
) -> None:
    """The library ends at either without a word."""
    whole = (tars / "00000.tar").read_bytes()
    with tarfile.open(tars / "00000.tar") as archive:
        starts = [member.offset for member in archive]
    for start in starts[1:]:
        for data in (whole[:start], whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :]):
            (tmp_path / "t.tar").write_bytes(data)
            with pytest.raises(UserError, match=r"t\.tar is no whole, uncompressed tar"):
                samples(Webdataset(str(tmp_path / "t.tar")))
            _index.cache_clear()


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_header_of_a_tar_is_read_or_refused(data: st.DataObject) -> None:
    """Sizes, kinds and names changed with the checksum made to fit, negative and endless sizes among them."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder) / "t.tar", [("a.jpg", b"x" * 600), ("b.jpg", b"y"), ("c.txt", b"z")])
        tar = bytearray(path.read_bytes())
        header = 512 * data.draw(st.integers(0, 5))
        fields = [range(124, 136), range(156, 157), range(100), range(257, 263), range(345, 500)]
        field = data.draw(st.sampled_from(fields))
        sizes = [b"\xff" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"\xff" * 10 + b"\xfe\x00", b"9" * 12]
        texts = st.sampled_from(sizes)
        text = data.draw(texts | st.binary(min_size=1, max_size=12))[: len(field)]
        tar[header + field.start : header + field.start + len(text)] = text
        if data.draw(st.booleans()):
            tar[header + 156] = data.draw(st.sampled_from(b"ZLKxgS5"))
        tar[header + 148 : header + 156] = b" " * 8
        tar[header + 148 : header + 156] = b"%06o\0 " % sum(tar[header : header + 512])
        path.write_bytes(tar)
        with contextlib.suppress(UserError):
            assert samples(Webdataset(str(path)))
        _index.cache_clear()


def test_a_member_that_comes_twice_is_named(pictures: list[bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", [("a.jpg", pictures[0]), ("a.jpg", pictures[1])])
    with pytest.raises(UserError, match=r"holds a\.jpg twice"):
        samples(Webdataset(str(tmp_path)))


@pytest.mark.parametrize(("name", "data"), [("a.txt", b"\xff"), ("a.json", b"{"), ("a.json", b"[1]")])
def test_a_caption_that_cannot_be_read_fails_its_row_alone(
    name: str, data: bytes, pictures: list[bytes], tmp_path: Path
) -> None:
    folder, out = tmp_path / "tars", tmp_path / "out"
    folder.mkdir()
    write_tar(
        folder / "t.tar",
        [(name, data), *((f"{x}.jpg", picture) for x, picture in zip("abcdefgh", pictures[:8], strict=True))],
    )
    words = ["--cond", "canny", "--source", f"webdataset:{folder}", "--resolution", "64", "--workers", "1"]
    assert build.main([*words, "--out", str(out), "--max-failed", "1"]) == 0
    (reason,) = BuiltDataset.open(out).manifest.failed.values()
    assert "the caption cannot be read" in reason


def test_a_damaged_parquet_file_or_a_wrong_column_is_named(table: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes((table / "0.parquet").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.parquet is no whole Parquet file"):
        samples(Parquet(str(tmp_path / "cut.parquet")))
    with pytest.raises(UserError, match='no column "imge"; did you mean "image"'):
        samples(Parquet(str(table), image="imge"))
    with pytest.raises(UserError, match='the column "text" holds no encoded images'):
        samples(Parquet(str(table), image="text"))


@pytest.mark.parametrize("source", [Webdataset("nowhere/*.tar"), Parquet("nowhere")])
def test_a_pattern_without_files_is_refused(source: Source) -> None:
    with pytest.raises(UserError, match=r"names no .* file"):
        list(source.parts())


def test_what_is_held_out_is_as_large_as_asked_for_and_in_parts() -> None:
    sizes = {name: len(places) for name, places in consecutive(13_000, 1200).items() if not name.startswith("train")}
    assert sizes == {f"{split}-{i:06d}": size for split in ("test", "val") for i, size in enumerate((500, 500, 200))}
    assert [place for places in consecutive(13_000, 1200).values() for place in places] == list(range(13_000))


def test_places_over_files_are_all_of_them_once() -> None:
    ends, parts = [3, 3, 10, 24], consecutive(24).values()
    found = [(file, place) for part in parts for file, inside in in_files(part, ends) for place in inside]
    assert found == [(0, i) for i in range(3)] + [(2, i) for i in range(7)] + [(3, i) for i in range(14)]
    with pytest.raises(UserError, match="2 samples are too few"):
        consecutive(2)


def test_one_large_row_group_is_read_once_and_a_bit_at_a_time(
    pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pandas and others put all rows of a file into one group, and each part is a stretch of it."""
    table = pa.table({"image": [pictures[i % 24] for i in range(400)], "text": [f"caption {i}" for i in range(400)]})
    pq.write_table(table, tmp_path / "all.parquet", row_group_size=1000)
    assert pq.ParquetFile(tmp_path / "all.parquet").num_row_groups == 1
    monkeypatch.setattr(splitting, "PART", 50)
    begun, whole = [], pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, size: int, **words: Any) -> Any:
        begun.append(size)
        return whole(self, size, **words)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    found = samples(Parquet(str(tmp_path / "all.parquet")))
    assert [sample.caption for sample in found] == [f"caption {i}" for i in range(400)]
    assert [sample.image for sample in found] == [pictures[i % 24] for i in range(400)]
    assert len(begun) == 1
    assert begun[0] < 100
    source = Parquet(str(tmp_path / "all.parquet"))
    backwards = [sample.caption for part in reversed(list(source.parts())) for sample in source.read(part, 64)]
    assert sorted(map(str, backwards)) == sorted(f"caption {i}" for i in range(400))


def test_text_that_is_none_fails_its_row_alone(pictures: list[bytes], tmp_path: Path) -> None:
    odd = pa.StringArray.from_buffers(24, *pa.array([b"a caption", b"\xff\xfe", b"another"] * 8).buffers()[1:])
    pq.write_table(pa.table({"image": pictures, "text": odd}), tmp_path / "odd.parquet")
    found = samples(Parquet(str(tmp_path / "odd.parquet")))
    assert [sample.fault is None for sample in found] == [True, False, True] * 8
