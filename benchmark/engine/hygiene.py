"""Which pictures do not belong in a dataset: checks on each row as it is built, and across rows when all are.

A check either drops what does not pass, or only counts it ("report"); each choice, with its limit, is part of the plan.
Across rows nothing is rewritten: what must not be read is a list in the manifest that every reader honours.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.engine.shards import Commit, Quality, read_tables
from benchmark.numbers.duplicates import MAX_DISTANCE, first_kept, first_near, first_same
from benchmark.numbers.quality import Header, colourfulness, grey_of, perceptual_hash, read_header, sharpness

HYGIENE_VERSION = 2
DROP, REPORT = "drop", "report"
UNREADABLE = "unreadable"
_PRECEDENCE = ("test", "val", "train")  # of rows alike in two splits, the one in the earlier split stays
ACROSS_ROWS = ("leakage", "exact_duplicate", "near_duplicate")
Settings = dict[str, Any]


class Check(NamedTuple):
    """What happens by default to a row that does not pass, and the limit it is held against, if there is one."""

    action: str
    limit: float | None = None
    highest: float = 1e6


# Dropped by default: what would bias a result, or was made up by enlarging. What is a matter of taste is counted.
CHECKS = {
    UNREADABLE: Check(REPORT),
    "too_small": Check(DROP, 0),  # pixels of the shorter side; 0: the dataset's resolution
    "wrong_mode": Check(REPORT),  # was converted: CMYK, 16 bits, transparency, palette
    "greyscale": Check(REPORT, 8),  # levels by which channels differ
    "blur": Check(REPORT, 100),  # variance of the Laplacian
    "heavy_jpeg": Check(REPORT, 50),  # libjpeg's quality
    "missing_caption": Check(REPORT),
    "exact_duplicate": Check(DROP),
    "near_duplicate": Check(REPORT, 4, MAX_DISTANCE),  # bits of 64, within a split
    "leakage": Check(DROP, 4, MAX_DISTANCE),  # bits of 64, between splits
}


def usual(action: str) -> str:
    """Return the checks that drop or report unless told otherwise, as they would be written."""
    chosen = {name: check.limit for name, check in CHECKS.items() if check.action == action}
    return ",".join(name if limit is None else f"{name}={limit:g}" for name, limit in chosen.items())


def settings(drop: Sequence[str] = (), report: Sequence[str] = ()) -> Settings:
    """Return what a plan keeps of the checks: the defaults, changed by lists such as ``blur=50,greyscale``.

    Raises:
        UserError: A check that does not exist, is named twice, or has no such limit.
    """
    checks = {name: [check.action, check.limit] for name, check in CHECKS.items()}
    given = [(DROP, item) for text in drop for item in text.split(",")]
    given += [(REPORT, item) for text in report for item in text.split(",")]
    names = [item.partition("=")[0] for _, item in given]
    for (action, item), name in zip(given, names, strict=True):
        if name not in CHECKS:
            raise UserError(f'no check "{name}"; {did_you_mean(name, CHECKS)}')
        if names.count(name) > 1:
            raise UserError(f"the check {name} is named twice; give it once, to --drop or to --report")
        checks[name] = [action, _limit(name, item) if "=" in item else CHECKS[name].limit]
    return {"hygiene_version": HYGIENE_VERSION, "checks": checks}


def _limit(name: str, item: str) -> float:
    default, text = CHECKS[name], item.partition("=")[2]
    if default.limit is None:
        raise UserError(f"the check {name} has no limit; write {name}")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= default.highest or (default.highest == MAX_DISTANCE and value % 1):
        kind = "whole number" if default.highest == MAX_DISTANCE else "number"
        raise UserError(f'{name}="{text}" is no limit; give a {kind} from 0 to {default.highest:g}')
    return int(value) if value.is_integer() else value


def drops(plan: Settings | None, check: str) -> bool:
    """Return whether a plan drops what does not pass a check."""
    return plan is not None and plan["checks"][check][0] == DROP


def measure(
    plan: Settings, source: bytes | NDArray[np.uint8], stored: NDArray[np.uint8], caption: str | None
) -> Quality:
    """Return the quality of a row.

    Args:
        plan: The checks.
        source: The picture as the source gave it, encoded or uint8 (H, W, 3).
        stored: The picture as it is kept, uint8 (R, R, 3) RGB.
        caption: Its text.
    """
    header = read_header(source) if isinstance(source, bytes) else Header("RGB", min(source.shape[:2]), None)
    grey = grey_of(stored)
    limits = {name: limit for name, (_, limit) in plan["checks"].items()}
    sharp, colour = sharpness(grey), colourfulness(stored)
    hits = {
        "too_small": header.shorter_side < (limits["too_small"] or len(stored)),
        "wrong_mode": header.mode not in ("RGB", "L"),
        "greyscale": colour <= limits["greyscale"],
        "blur": sharp < limits["blur"],
        "heavy_jpeg": header.jpeg_quality is not None and header.jpeg_quality < limits["heavy_jpeg"],
        "missing_caption": not (caption or "").strip(),
    }
    flags = ",".join(name for name, hit in hits.items() if hit)
    return Quality(perceptual_hash(grey), sharp, colour, header.jpeg_quality, flags)


def flagged(quality: Quality, check: str) -> Quality:
    """Return a quality with one check more that the row did not pass."""
    return replace(quality, flags=",".join(filter(None, (quality.flags, check))))


def reason_to_drop(plan: Settings | None, quality: Quality) -> str | None:
    """Return the first check that a row did not pass and that drops, or None."""
    return next((flag for flag in quality.flags.split(",") if flag and drops(plan, flag)), None)


@dataclass(frozen=True)
class Likeness:
    """What was found across rows: key to the check, the split, and the key of the row it is like.

    Attributes:
        excluded: Rows that no reader gives.
        reported: Rows that are only named.
    """

    excluded: dict[str, dict[str, str]] = field(default_factory=dict)
    reported: dict[str, dict[str, str]] = field(default_factory=dict)


def find_likeness(folder: Path, plan: Settings | None, commits: Sequence[Commit]) -> Likeness:
    """Return which rows of a dataset are like an earlier one, of test, then val, then train, shard by shard.

    What is said of a row depends on rows before it only: a dataset that grows changes no verdict. It reads hashes, not
    pictures.
    """
    found = Likeness()
    if plan is None or not any(commit.file for commit in commits):
        return found
    rows = _Rows.read(folder, sorted(commits, key=lambda commit: _PRECEDENCE.index(commit.split)))
    left = np.ones(len(rows.hashes), dtype=bool)
    for check in ACROSS_ROWS:  # the graver first
        likes = _likes(check, rows, left, int(plan["checks"][check][1] or 0))
        hits = np.flatnonzero(left & (likes < np.arange(len(likes))))
        place = found.excluded if drops(plan, check) else found.reported
        for row in hits.tolist():
            entry = {"check": check, "split": _PRECEDENCE[rows.ranks[row]], "like": rows.keys[int(likes[row])].as_py()}
            place.setdefault(rows.keys[row].as_py(), entry)
        left[hits] = not drops(plan, check)
    return found


class _Rows(NamedTuple):
    """Of every row, in order: key, digest of the picture's bytes, perceptual hash, and the rank of its split."""

    keys: pa.ChunkedArray
    digests: NDArray[np.bytes_]  # 32 bytes each
    hashes: NDArray[np.uint64]
    ranks: NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path, commits: Sequence[Commit]) -> "_Rows":
        """Read the rows of shards; about 100 bytes of memory each."""
        shards = [commit for commit in commits if commit.file is not None]
        keys, digests, hashes = [], [], []
        for commit in shards:
            for piece in read_tables(folder / str(commit.file), ["key", "sha256", "phash"]):
                keys += piece["key"].chunks
                digests.append(np.frombuffer(bytes.fromhex("".join(piece["sha256"].to_pylist())), dtype="S32"))
                hashes.append(piece["phash"].to_numpy())
        ranks = np.repeat([_PRECEDENCE.index(c.split) for c in shards], [c.num_ok for c in shards])
        return cls(pa.chunked_array(keys, pa.string()), np.concatenate(digests), np.concatenate(hashes), ranks)


def _likes(check: str, rows: _Rows, left: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """Return the place of the row each row is like, in a check's sense, or its own; of rows not left, their own."""
    own = np.arange(len(left))
    if check == "leakage":
        near = first_near(rows.hashes, limit)
        return np.where(rows.ranks[near] < rows.ranks, near, own)
    likes = own.copy()
    for rank in range(len(_PRECEDENCE)):
        places = np.flatnonzero((rows.ranks == rank) & left)
        equal = check == "exact_duplicate"
        first = first_same(rows.digests[places]) if equal else first_kept(rows.hashes[places], limit)
        likes[places] = places[first]
    return likes


def counts(commits: Sequence[Commit], likeness: Likeness) -> dict[str, dict[str, int]]:
    """Return how many rows each check dropped, excluded and reported."""
    reported = Counter(entry["check"] for entry in likeness.reported.values())
    for commit in commits:
        reported.update(commit.reported)
    return {
        "dropped": dict(Counter(reason for c in commits for reason in c.dropped.values() if reason in CHECKS)),
        "excluded": dict(Counter(entry["check"] for entry in likeness.excluded.values())),
        "reported": dict(reported),
    }
