"""The folder source: which images, which captions, which split."""

import json
import shutil
from pathlib import Path

import pytest

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Sample
from benchmark.contracts.splitting import divide
from benchmark.sources.folder import Folder


def samples(folder: Path) -> dict[str, Sample]:
    """Every sample of a folder by key; a key that comes twice is an error."""
    source = Folder(str(folder))
    found = [sample for part in source.parts() for sample in source.read(part, 64)]
    assert len({sample.key for sample in found}) == len(found)
    return {sample.key: sample for sample in found}


def captions(folder: Path) -> dict[str, str | None]:
    return {key: sample.caption for key, sample in samples(folder).items()}


@pytest.fixture
def three(photos: Path, tmp_path: Path) -> Path:
    """Three images, one of them two folders down."""
    (tmp_path / "three/a/b").mkdir(parents=True)
    for name, place in (("wide-00.jpg", "one.jpg"), ("wide-01.jpg", "two.JPG"), ("more/tall-00.png", "a/b/three.png")):
        shutil.copy(photos / name, tmp_path / "three" / place)
    return tmp_path / "three"


def test_every_image_is_in_exactly_one_split_with_its_own_bytes(photos: Path) -> None:
    source = Folder(str(photos))
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    assert len(files) == 24
    found = samples(photos)
    assert sorted(found) == files
    assert all(found[name].image == (photos / name).read_bytes() for name in files)
    assert [(part.split, part.num_samples) for part in source.parts()] == [("test", 6), ("val", 6), ("train", 12)]
    assert all(part.num_samples == len(list(source.read(part, 64))) for part in source.parts())


def test_without_any_text_there_are_no_captions(three: Path) -> None:
    assert captions(three) == {"one.jpg": None, "two.JPG": None, "a/b/three.png": None}


def test_captions_come_from_txt_and_json_files_beside_the_image(three: Path) -> None:
    (three / "one.txt").write_text("  a red fox, «très» rouge\n", encoding="utf-8")
    (three / "a/b/three.json").write_text(json.dumps({"prompt": "last", "caption": "a cat", "score": 1}))
    assert captions(three) == {"one.jpg": "a red fox, «très» rouge", "two.JPG": None, "a/b/three.png": "a cat"}


def test_captions_come_from_metadata_in_any_folder(three: Path) -> None:
    rows = [{"file_name": "one.jpg", "text": "first"}, {"file_name": "two.JPG", "caption": "second", "extra": [1]}]
    (three / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (three / "a/metadata.jsonl").write_text(json.dumps({"file_name": "b/three.png", "prompt": "third"}))
    assert captions(three) == {"one.jpg": "first", "two.JPG": "second", "a/b/three.png": "third"}


def test_metadata_goes_before_txt_and_txt_before_json(three: Path) -> None:
    for stem in ("one", "two"):
        (three / f"{stem}.txt").write_text(f"{stem} in txt")
        (three / f"{stem}.json").write_text(json.dumps({"text": f"{stem} in json"}))
    rows = [
        {"file_name": "one.jpg", "text": "one in metadata", "caption": "no"},
        {"file_name": "two.JPG", "text": None},
    ]
    (three / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert captions(three) == {"one.jpg": "one in metadata", "two.JPG": "two in txt", "a/b/three.png": None}


def test_a_caption_may_hold_any_character_json_allows(three: Path) -> None:
    text = "a fox\u2028under \x85 a \u2029 tree"
    (three / "metadata.jsonl").write_text(
        json.dumps({"file_name": "one.jpg", "text": text}, ensure_ascii=False), "utf-8"
    )
    assert captions(three)["one.jpg"] == text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"file_name": "one.jpg", "text"', "line 2 is not valid JSON"),
        ('{"name": "one.jpg", "text": "x"}', 'line 2 has no "file_name"'),
        ('["one.jpg", "x"]', "line 2 holds no JSON object"),
    ],
)
def test_a_bad_metadata_line_is_named(three: Path, line: str, told: str) -> None:
    (three / "metadata.jsonl").write_text('{"file_name": "two.JPG", "text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError, match=told):
        Folder(str(three)).identity()


def test_a_table_that_is_not_utf_8_is_named(three: Path) -> None:
    (three / "metadata.jsonl").write_bytes('{"file_name": "one.jpg", "text": "café"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"metadata\.jsonl"):
        Folder(str(three)).identity()


@pytest.mark.parametrize("name", ["one.txt", "one.json"])
def test_a_caption_that_cannot_be_read_is_the_fault_of_its_row_alone(three: Path, name: str) -> None:
    before = Folder(str(three)).identity()
    (three / name).write_bytes('{"text": "café"}'.encode("latin-1"))
    assert Folder(str(three)).identity() != before
    source = Folder(str(three))
    faults = {s.key: s.fault for part in source.parts() for s in source.read(part, 64) if s.fault}
    assert list(faults) == ["one.jpg"]
    assert "the caption cannot be read" in str(faults["one.jpg"])


def test_images_that_belong_to_a_row_are_no_rows(three: Path) -> None:
    line = {"file_name": "one.jpg", "text": "a fox", "cond_seg_file_name": "a/map.png"}
    (three / "a/map.png").write_bytes((three / "a/b/three.png").read_bytes())
    assert len(captions(three)) == 4
    (three / "metadata.jsonl").write_text(json.dumps(line))
    assert captions(three) == {"one.jpg": "a fox", "two.JPG": None, "a/b/three.png": None}


def test_splits_are_the_same_from_every_reading_and_every_place(photos: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(photos, tmp_path / "elsewhere"))
    for part in Folder(str(photos)).parts():
        keys = [sample.key for sample in Folder(str(photos)).read(part, 64)]
        assert keys == [sample.key for sample in Folder(str(copy)).read(part, 128)]


def test_identity_changes_with_a_caption_and_with_an_image(three: Path) -> None:
    identities = [Folder(str(three)).identity()]
    (three / "one.txt").write_text("a fox")
    identities.append(Folder(str(three)).identity())
    (three / "two.JPG").write_bytes((three / "one.jpg").read_bytes())
    identities.append(Folder(str(three)).identity())
    shutil.copy(three / "one.jpg", three / "a/four.jpeg")
    identities.append(Folder(str(three)).identity())
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 4


def test_identity_changes_with_content_of_the_same_length(three: Path) -> None:
    before = Folder(str(three)).identity()
    data = bytearray((three / "one.jpg").read_bytes())
    data[len(data) // 2] ^= 1
    (three / "one.jpg").write_bytes(data)
    assert Folder(str(three)).identity() != before


def test_two_images_are_too_few(three: Path) -> None:
    (three / "one.jpg").unlink()
    with pytest.raises(UserError, match="at least 3"):
        list(Folder(str(three)).parts())


@pytest.mark.parametrize(("count", "held_out"), [(3, 1), (11, 2), (32, 8), (100, 10), (1000, 100), (9000, 256)])
def test_a_tenth_is_held_out_within_bounds_and_parts_hold_500(count: int, held_out: int) -> None:
    keys = [f"{i}.png" for i in range(count)]
    parts = divide(keys)
    sizes = {s: sum(len(rows) for name, rows in parts.items() if name.startswith(s)) for s in ("test", "val", "train")}
    assert sizes == {"test": held_out, "val": held_out, "train": count - 2 * held_out}
    assert sorted(key for rows in parts.values() for key in rows) == sorted(keys)
    assert all(len(rows) <= 500 for rows in parts.values())
    assert divide(keys[::-1]) == parts


@pytest.mark.parametrize(("count", "held_out", "share"), [(13_000, 1200, 1200), (9000, 1200, 900), (30, 2, 2)])
def test_more_or_less_is_held_out_when_asked_for(count: int, held_out: int, share: int) -> None:
    parts = divide([f"{i}.png" for i in range(count)], held_out)
    for split in ("test", "val"):
        assert sum(len(rows) for name, rows in parts.items() if name.startswith(split)) == share
    assert all(len(rows) <= 500 for rows in parts.values())


def test_less_than_one_held_out_is_refused(three: Path) -> None:
    with pytest.raises(UserError, match="at least 1, not 0"):
        list(Folder(str(three), held_out=0).parts())
