"""Files: nothing half-written is read, the first writer wins, and differences are named."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import (
    canonical_json,
    create_once,
    difference,
    pretty_json,
    read_json,
    replace_file,
    sha256,
    sha256_file,
    write_through,
)


def test_equal_values_have_equal_canonical_bytes() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == canonical_json({"a": "é", "b": [1, 2.5]})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


@pytest.mark.parametrize("write", [canonical_json, pretty_json])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_cannot_hold(write: object, value: float) -> None:
    assert callable(write)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write({"x": value})


def test_pretty_json_ends_with_a_newline_and_reads_back(tmp_path: Path) -> None:
    data = pretty_json({"b": {"c": None}, "a": "é"})
    replace_file(tmp_path / "x.json", data)
    assert data.endswith(b"}\n")
    assert read_json(tmp_path / "x.json") == {"a": "é", "b": {"c": None}}


@pytest.mark.parametrize(
    ("content", "words"), [(b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[1]", "no JSON object")]
)
def test_read_json_says_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_json(tmp_path / "x.json")


def test_read_json_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")


def test_replace_file_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "x"
    replace_file(path, b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_through(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_whole_while_the_new_one_is_written(tmp_path: Path) -> None:
    path, seen = tmp_path / "x", []
    replace_file(path, b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        seen.append(path.read_bytes())
        temporary.write_bytes(b"new")

    write_through(path, write)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_create_once_keeps_the_first_content(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x"
    assert create_once(path, b"first")
    assert not create_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_one_of_many_writers_creates_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    contents = [str(i).encode() * 10_000 for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda data: create_once(path, data), contents))
    assert created.count(True) == 1
    assert path.read_bytes() == contents[created.index(True)]
    assert list(tmp_path.iterdir()) == [path]


def test_hashes_of_bytes_and_file_agree_with_the_published_value(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256(b"abc") == sha256_file(tmp_path / "x") == known


def test_difference_names_every_changed_key_and_no_other() -> None:
    old = {"size": 64, "source": {"name": "scenes", "seed": 0}, "gone": 1}
    new = {"size": 64, "source": {"name": "scenes", "seed": 2}, "here": [1]}
    assert difference(old, new) == "gone: 1 -> absent; here: absent -> [1]; source.seed: 0 -> 2"


def test_equal_mappings_have_no_difference() -> None:
    assert difference({"a": {"b": 1}}, json.loads('{"a": {"b": 1}}')) == ""


@pytest.mark.parametrize(("old", "new"), [({"a": None}, {}), ({}, {"a": None}), ({"a": {}}, {}), ({"a": {}}, {"a": 1})])
def test_unequal_mappings_always_have_a_difference(old: dict[str, object], new: dict[str, object]) -> None:
    assert difference(old, new)


def test_suggestions_name_the_closest_and_all_that_is_allowed() -> None:
    assert did_you_mean("cany", ["seg", "canny"]) == 'did you mean "canny"? allowed: canny, seg'
    assert did_you_mean("xyz", ["seg", "canny"]) == "allowed: canny, seg"
    assert did_you_mean("x", []) == "allowed: none"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_is_created_once_where_there_are_no_hard_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(os, "link", refused)
    assert create_once(tmp_path / "x", b"first")
    assert not create_once(tmp_path / "x", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"first"
