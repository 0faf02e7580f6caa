"""A thousand damaged and hostile rows: each ends in the ledger; no crash, no hang, no stray file, bounded memory."""

import io
import json
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from datasets import Image as HubImage
from PIL import Image
from pyarrow import parquet

from benchmark import build
from benchmark.engine.datasets import BuiltDataset

SIDE, SEED = 32, 0
OK, DROPPED, FAILED = "ok", "dropped", "failed"
MEGABYTES = 300

Hostile = tuple[bytes | None, Any, set[str]]  # image, caption, and how its row may end


def picture(rng: random.Random, size: tuple[int, int] | None = None) -> Image.Image:
    """Noise; half of it needs no resize, so that its bytes may be kept."""
    shape = size or rng.choice([(48, 40), (SIDE, SIDE)])
    array = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (*shape, 3), np.uint8)
    return Image.fromarray(array)


def encoded(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header promises any size, with the rows given."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def truncated(rng: random.Random) -> Hostile:
    data = encoded(picture(rng), rng.choice(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]))
    return data[: rng.randrange(len(data) - 20)], "cut", {FAILED, OK}  # some formats give what there is


def flipped(rng: random.Random) -> Hostile:
    data = bytearray(encoded(picture(rng), rng.choice(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])))
    for _ in range(rng.randrange(1, 40)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data), "bits", {FAILED, OK, DROPPED}


def zero_bytes(rng: random.Random) -> Hostile:
    return bytes(rng.choice([0, 1, 100, 5000])), "zeros", {FAILED}


def noise(rng: random.Random) -> Hostile:
    head = rng.choice([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"MM\x00*", b"BM", b"II*\x00"])
    return head + rng.randbytes(rng.randrange(2000)), "noise", {FAILED}


def wrong_extension(rng: random.Random) -> Hostile:
    return encoded(picture(rng), rng.choice(["PNG", "WEBP", "GIF", "BMP"])), "another format", {OK}


def bomb(rng: random.Random) -> Hostile:
    rows = rng.choice([b"", bytes(1000), bytes(3_000_000)])
    return png(rng.choice([30_000, 60_000, 2**31 - 1]), rng.choice([30_000, 65_000]), rows), "bomb", {FAILED}


def needle(rng: random.Random) -> Hostile:
    """Scaled to the resolution before it is cropped, it would take gigabytes."""
    return png(60_000, 1, bytes(1 + 3 * 60_000)), "needle", {FAILED}


def cmyk(rng: random.Random) -> Hostile:
    return encoded(picture(rng).convert("CMYK")), "print", {OK}


def sixteen_bits(rng: random.Random) -> Hostile:
    levels = np.frombuffer(rng.randbytes(40 * 40 * 2), np.uint16).reshape(40, 40)
    return encoded(Image.fromarray(levels), "PNG"), "deep", {OK}


def no_range(rng: random.Random) -> Hostile:
    return encoded(Image.fromarray(np.full((40, 40), rng.random(), np.float32)), "TIFF"), "floats", {FAILED}


def alpha(rng: random.Random) -> Hostile:
    image = picture(rng)
    image.putalpha(rng.randrange(256))
    return encoded(image.convert(rng.choice(["RGBA", "LA"])), "PNG"), "glass", {OK}


def rotated(rng: random.Random) -> Hostile:
    exif = Image.Exif()
    exif[0x0112] = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77])
    return encoded(picture(rng), exif=exif), "turned", {OK}


def damaged_exif(rng: random.Random) -> Hostile:
    return encoded(picture(rng), exif=b"Exif\x00\x00" + rng.randbytes(60)), "exif", {OK, FAILED}


def script(rng: random.Random) -> Hostile:
    texts = [
        "<script>alert(1)</script>",
        "'; DROP TABLE rows; --",
        "$(rm -rf /)",
        "{{7*7}}",
        "![x](javascript:x)",
        "\0",
    ]
    return encoded(picture(rng)), rng.choice(texts), {OK}


def enormous_caption(rng: random.Random) -> Hostile:
    return encoded(picture(rng)), "word " * rng.choice([5_000, 400_000]), {FAILED}


def odd_text(rng: random.Random) -> Hostile:
    return (
        encoded(picture(rng)),
        rng.choice(["\u202egnp.exe", "e" + "\u0301" * 500, "\U0001f98a" * 99, "\ufeff", ""]),
        {OK},
    )


def null(rng: random.Random) -> Hostile:
    return None, None, {FAILED}


def no_caption(rng: random.Random) -> Hostile:
    return encoded(picture(rng)), None, {OK}


def tiny(rng: random.Random) -> Hostile:
    return encoded(picture(rng, rng.choice([(1, 1), (31, 99), (3, 3)])), "PNG"), "tiny", {DROPPED}


def good(rng: random.Random) -> Hostile:
    return encoded(picture(rng)), "good", {OK}


KINDS: list[Callable[[random.Random], Hostile]] = [
    *(truncated, flipped, zero_bytes, noise, wrong_extension, bomb, needle, cmyk, sixteen_bits, no_range, alpha),
    *(rotated, damaged_exif, script, enormous_caption, odd_text, null, no_caption, tiny, good),
]


def items(seed: int, count: int) -> list[Hostile]:
    """Return rows of every kind, mixed."""
    rng = random.Random(seed)
    rows = [KINDS[i % len(KINDS)](rng) for i in range(count)]
    rng.shuffle(rows)
    return rows


NAMES = [
    "../../up-{}",
    "/etc/abs-{}",
    "a/../../b-{}",
    "dot..{}",
    "sp ace-{}",
    "quote'\"-{}",
    "new\nline-{}",
    "é-{}",
    "{}",
]


def as_folder(rows: list[Hostile], folder: Path) -> dict[str, set[str]]:
    """Write rows as files with captions beside them; a null image is an empty file, a null caption no file."""
    ends = {}
    for i, (image, caption, may) in enumerate(rows):
        name = f"{NAMES[i % len(NAMES)].format(i).replace('/', '_')}.{('jpg', 'png', 'JPEG', 'gif', 'webp')[i % 5]}"
        (folder / name).write_bytes(image or b"")
        if caption is not None:
            (folder / name).with_suffix(".txt").write_text(caption, "utf-8")
        ends[name] = may
    broken = [b"caf\xe9", b"\xff\xfe\x00"]
    for i, text in enumerate(broken):
        (folder / f"text{i}.png").write_bytes(encoded(picture(random.Random(i)), "PNG"))
        (folder / f"text{i}.txt").write_bytes(text)
        ends[f"text{i}.png"] = {FAILED}
    for i, text in enumerate([b'{"text": "\\ud800"}', b"{", b"[]", b"\xff", b'{"text": null}', b"[" * 100_000]):
        (folder / f"json{i}.png").write_bytes(encoded(picture(random.Random(i)), "PNG"))
        (folder / f"json{i}.json").write_bytes(text)
        ends[f"json{i}.png"] = {OK} if i == 4 else {FAILED}
    raw = folder / "name-\udcff.jpg"  # bytes that are no UTF-8
    raw.write_bytes(encoded(picture(random.Random(1))))
    return ends | {"name-\\udcff.jpg": {OK}}


def as_tar(rows: list[Hostile], folder: Path) -> dict[str, set[str]]:
    """Write rows as members of a tar whose names lead out of it, among links and devices that are no rows."""
    ends = {}
    names = [name for name in NAMES if ".{}" not in name] + ["bytes-\udcff-{}"]
    with tarfile.open(folder / "rows.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for i, (image, caption, may) in enumerate(rows):
            name = names[i % len(names)].format(i)
            members = {"jpg": image} if image is not None else {"cls": b"7"}
            members |= {"txt": caption.encode()} if caption is not None else {}
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            ends["rows/" + name.replace("\udcff", "\\udcff")] = may
        for kind, name in ((tarfile.SYMTYPE, "link.jpg"), (tarfile.LNKTYPE, "hard.jpg"), (tarfile.CHRTYPE, "dev.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return ends


def as_parquet(rows: list[Hostile], folder: Path) -> dict[str, set[str]]:
    cells = [{"bytes": image, "path": ("../../etc/passwd", None)[i % 2]} for i, (image, _, _) in enumerate(rows)]
    structs = [None if cell["bytes"] is None and i % 4 == 0 else cell for i, cell in enumerate(cells)]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(structs, image), "text": pa.array([row[1] for row in rows], pa.string())})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=50)
    return {f"rows/{i:08d}": may for i, (_, _, may) in enumerate(rows)}


def as_hub(rows: list[Hostile], folder: Path) -> dict[str, set[str]]:
    features = Features({"image": Value("binary"), "text": Value("string")})
    data = Dataset.from_dict({"image": [row[0] for row in rows], "text": [row[1] for row in rows]}, features=features)
    data.save_to_disk(folder / "saved")
    return {f"train-{i:08d}": may for i, (_, _, may) in enumerate(rows)}


WRITERS: dict[str, Callable[[list[Hostile], Path], dict[str, set[str]]]] = {
    "folder": as_folder,
    "webdataset": as_tar,
    "parquet": as_parquet,
    "hub": as_hub,
}

SCRIPT = """
import json, resource, sys
from benchmark.build import main
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
warm, *builds = json.loads(sys.argv[1])
assert main(warm) == 0
before = peak()
codes = [main(argv) for argv in builds]
print(json.dumps({"codes": codes, "megabytes": peak() - before}))
"""


def command(name: str, path: Path, out: Path) -> list[str]:
    words = ["--cond", "canny", "--source", f"{name}:{path}", "--out", str(out), "--resolution", str(SIDE)]
    return [*words, "--workers", "1", "--max-failed", "1000"]


def ledger(dataset: BuiltDataset) -> dict[str, str]:
    """Return how every row ended; each is there once."""
    ends: dict[str, str] = {}
    for commit in dataset.manifest.shards:
        keys = parquet.read_table(dataset.folder / commit["file"], columns=["key"])["key"].to_pylist()
        rows = [*((key, OK) for key in keys), *((key, DROPPED) for key in commit.get("dropped", {}))]
        rows += [(key, FAILED) for key in commit["failed"]]
        assert len(rows) == commit["num_in"]
        assert not {key for key, _ in rows} & set(ends)
        ends |= dict(rows)
        assert all(0 < len(why) < 500 and "\n" not in why for why in commit["failed"].values())
    return ends


def test_each_of_a_thousand_hostile_rows_ends_in_the_ledger(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for i in range(8):
        (plain / f"{i}.png").write_bytes(encoded(picture(random.Random(i)), "PNG"))
    expected, builds = {}, [command("folder", plain, tmp_path / "warm")]
    for i, (name, write) in enumerate(WRITERS.items()):
        folder = tmp_path / name
        folder.mkdir()
        expected[name] = write(items(SEED + i, 250), folder)
        builds.append(command(name, folder / "saved" if name == "hub" else folder, tmp_path / "out" / name))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    words = [sys.executable, "-c", SCRIPT, json.dumps(builds)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["codes"] == [0] * len(WRITERS), done.stderr
    assert told["megabytes"] < MEGABYTES
    assert sum(map(len, expected.values())) > 1000
    for name, rows in expected.items():
        ends = ledger(BuiltDataset.open(tmp_path / "out" / name))
        assert set(ends) == set(rows)
        assert {key: end for key, end in ends.items() if end not in rows[key]} == {}
        assert set(ends.values()) == {OK, DROPPED, FAILED}
        assert build.main(["--verify", str(tmp_path / "out" / name), "--deep"]) == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "out") or path.is_relative_to(tmp_path / "warm") for path in written)


def test_hostile_captions_are_kept_as_data_and_shown_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    text = "<script>alert(1)</script>'; DROP TABLE rows; --"
    for i in range(9):
        (folder / f"{i}.jpg").write_bytes(encoded(picture(random.Random(i))))
        (folder / f"{i}.txt").write_text(text)
    assert build.main(command("folder", folder, tmp_path / "out")) == 0
    dataset = BuiltDataset.open(tmp_path / "out")
    assert {row["caption"] for row in dataset.rows("train", ["caption"])} == {text}
    assert not any("script" in (tmp_path / "out" / name).read_text() for name in ("README.md", "manifest.json"))


def test_a_damaged_row_group_fails_its_rows_and_no_other(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    as_parquet([good(random.Random(i)) for i in range(200)], source)
    path = source / "rows.parquet"
    group = parquet.ParquetFile(path).metadata.row_group(2)
    data = bytearray(path.read_bytes())
    place = group.column(0).data_page_offset
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    assert build.main(command("parquet", source, tmp_path / "out")) == 0
    ends = ledger(BuiltDataset.open(tmp_path / "out"))
    assert [key for key, end in ends.items() if end == FAILED] == [f"rows/{i:08d}" for i in range(100, 150)]


def test_a_table_cannot_make_the_hub_source_read_a_file_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(picture(random.Random(0))))
    rows = [{"bytes": encoded(picture(random.Random(i))), "path": None} for i in range(12)]
    rows[10] = {"bytes": None, "path": str(secret)}  # type: ignore[dict-item]
    (tmp_path / "repository" / "data").mkdir(parents=True)
    data = Dataset.from_dict({"image": rows}, features=Features({"image": HubImage(decode=False)}))
    parquet.write_table(data.data.table, tmp_path / "repository" / "data" / "train-00000-of-00001.parquet")
    assert build.main(command("hub", tmp_path / "repository", tmp_path / "out")) == 0
    failed = BuiltDataset.open(tmp_path / "out").manifest.failed
    assert list(failed.values()) == ["the image lies outside the dataset"]
