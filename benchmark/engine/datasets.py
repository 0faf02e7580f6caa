"""A finished dataset folder: its manifest, its rows, its card."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import pretty_json, replace_file, without_empty
from benchmark.base.forms import checked, read_form
from benchmark.contracts.plugins import SPLITS
from benchmark.engine.hygiene import CHECKS, Likeness, counts, find_likeness
from benchmark.engine.plan import Plan
from benchmark.engine.shards import Commit, Place, check_file, fingerprint, located_rows, read_tables

MANIFEST_VERSION = 1
_ORIGIN = "command.json"
_HYGIENE = {"excluded", "reported", "counts"}


@dataclass(frozen=True)
class Manifest:
    """The totals of a finished dataset; written last, so that its presence means the dataset is whole.

    Attributes:
        num_rows: By split, of the rows that readers give: without those excluded.
        failed: Key to reason, of rows that could not be used in their last try.
        hygiene: Where the plan asks for it: the rows excluded and reported across rows, and the counts of all checks.
        is_shuffled: Whether the order of the training rows says nothing about them.
    """

    plan_hash: str
    fingerprint: str
    num_rows: dict[str, int]
    shards: list[dict[str, Any]]
    failed: dict[str, str]
    manifest_version: int = MANIFEST_VERSION
    hygiene: dict[str, dict[str, dict[str, Any]]] | None = None
    is_shuffled: bool = False

    def __post_init__(self) -> None:
        """Refuse a manifest without the counts and lists that readers rely on."""
        if self.manifest_version != MANIFEST_VERSION:
            raise UserError(f"a manifest of version {self.manifest_version}, not {MANIFEST_VERSION}; build again")
        if {*self.num_rows} != {*SPLITS}:
            raise UserError(f"a manifest without the rows of {', '.join(SPLITS)}; delete it and build again")
        if self.hygiene is not None and {*self.hygiene} != _HYGIENE:
            raise UserError(f"a manifest whose hygiene lacks {', '.join(sorted(_HYGIENE))}; delete it and build again")

    @classmethod
    def of(cls, plan: Plan, commits: Sequence[Commit], folder: Path, is_shuffled: bool) -> "Manifest":
        """Return the manifest of a plan's committed shards, in the order of their source, that lie in a folder."""
        likeness = find_likeness(folder, plan.hygiene, commits)
        failed = {commit.part: commit.failed for commit in commits}  # a later try takes the place of an earlier one
        return cls(
            plan_hash=plan.hash,
            fingerprint=fingerprint(plan.hash, commits, likeness.excluded),
            num_rows=_num_rows(commits, likeness),
            shards=[commit.record() for commit in commits],
            failed={key: reason for rows in failed.values() for key, reason in rows.items()},
            hygiene=None if plan.hygiene is None else {**asdict(likeness), "counts": counts(commits, likeness)},
            is_shuffled=is_shuffled,
        )

    @property
    def excluded(self) -> dict[str, Any]:
        """Rows that are in shards but must not be read, for what they are like."""
        return self.hygiene["excluded"] if self.hygiene else {}

    def adds_up(self, commits: Sequence[Commit]) -> bool:
        """Whether fingerprint and counts are those of its plan's hash, its commits and what is excluded."""
        counted = _num_rows(commits, Likeness(self.excluded))
        if any(commit.plan_hash != self.plan_hash for commit in commits):
            return False
        return (fingerprint(self.plan_hash, commits, self.excluded), counted) == (self.fingerprint, self.num_rows)

    def write(self, folder: Path) -> None:
        """Put the manifest into the dataset folder."""
        replace_file(folder / "manifest.json", pretty_json(without_empty(asdict(self), "hygiene", "is_shuffled")))


def _num_rows(commits: Sequence[Commit], likeness: Likeness) -> dict[str, int]:
    excluded = Counter(entry.get("split") for entry in likeness.excluded.values())
    return {split: sum(c.num_ok for c in commits if c.split == split) - excluded[split] for split in SPLITS}


@dataclass(frozen=True)
class BuiltDataset:
    """A dataset folder that is whole."""

    folder: Path
    plan: Plan
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "BuiltDataset":
        """Return the dataset in a folder.

        Raises:
            UserError: No dataset, or one whose build did not finish.
        """
        plan = Plan.read(folder)
        if not (folder / "manifest.json").exists():
            raise UserError(f"the build of {folder} is not finished; run the same build command again")
        path, remedy = folder / "manifest.json", "delete it and build again"
        manifest = read_form(Manifest, path, remedy)
        commits = [checked(Commit, shard, f"{path}, shard {i}", remedy) for i, shard in enumerate(manifest.shards)]
        if manifest.plan_hash != plan.hash or not manifest.adds_up(commits):
            raise UserError(f"{path} does not add up to its plan and shards: one of them is damaged; {remedy}")
        return cls(folder, plan, manifest)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def command(self) -> str | None:
        """What builds the same, wherever and in however many processes; None of a dataset that does not say."""
        origin = read_origin(self.folder)
        return origin.command if origin else None

    def condition(self, name: str) -> dict[str, Any]:
        """Return the description of one of the dataset's conditions.

        Raises:
            UserError: The dataset was built without it.
        """
        known = {condition["name"]: condition for condition in self.plan.conditions}
        if name not in known:
            raise UserError(f'{self.folder} has no condition "{name}"; {did_you_mean(name, known)}')
        return known[name]

    def files(self, split: str) -> list[Path]:
        """Return the shard files of a split, in order."""
        return [self.folder / commit.file for commit in self.commits(split) if commit.file is not None]

    def commits(self, split: str) -> list[Commit]:
        """Return the commits of a split's shards, in order."""
        commits = (Commit(**shard) for shard in self.manifest.shards)
        return [commit for commit in commits if commit.split == split]

    def fingerprint(self, split: str) -> str:
        """Return the hash of the plan and a split's own rows: a test split keeps it when training rows are added."""
        excluded = {key: entry for key, entry in self.manifest.excluded.items() if entry.get("split") == split}
        return fingerprint(self.manifest.plan_hash, self.commits(split), excluded)

    def rows(self, split: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a split in order, as dictionaries of the columns asked for; never one that is excluded.

        Raises:
            UserError: A shard is not the file that was committed.
        """
        return (row for _, row in self.located(split, columns))

    def located(self, split: str, columns: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield the rows as `rows` does, and where each lies."""
        excluded, wanted = self.manifest.excluded, list(columns)
        for commit in self.commits(split):
            fault = check_file(self.folder, commit)
            if fault:
                raise self._damaged(fault)
            if commit.file is None:
                continue
            needed = list(dict.fromkeys([*wanted, "key"])) if excluded else wanted
            for place, row in located_rows(self.folder / commit.file, needed):
                if not excluded:
                    yield place, row
                elif row["key"] not in excluded:
                    yield place, {name: row[name] for name in wanted}

    def keys(self, split: str) -> list[str]:
        """Return the keys of the rows that `rows` gives, without a look at the rest of the files.

        Raises:
            UserError: A file is missing or does not hold as many rows as were committed, or its keys are damaged.
        """
        return [key for key in self._all_keys(split) if key not in self.manifest.excluded]

    def _all_keys(self, split: str) -> Iterator[str]:
        for commit in self.commits(split):
            if commit.file is None:
                continue
            found = [key for t in read_tables(self.folder / commit.file, ["key"]) for key in t["key"].to_pylist()]
            if len(found) != commit.num_ok:
                raise self._damaged(f"{commit.file} is not the file that was committed")
            yield from found

    def _damaged(self, fault: str) -> UserError:
        return UserError(f"{self.folder}: {fault}; delete it and its record in commits/, and build again")

    def places(self, split: str) -> NDArray[np.int64]:
        """Return where the rows that `rows` gives lie among all rows of the split's files."""
        if not self.manifest.excluded:
            return np.arange(self.manifest.num_rows[split])
        keys, excluded = self._all_keys(split), self.manifest.excluded
        return np.array([i for i, key in enumerate(keys) if key not in excluded], dtype=np.int64)


@dataclass(frozen=True)
class Origin:
    """Where a dataset is from.

    Attributes:
        command: That builds the same.
        credit: Whom to credit for the source, in Markdown.
    """

    command: str
    credit: str = ""


def write_origin(folder: Path, origin: Origin) -> None:
    """Put where a dataset is from beside it."""
    replace_file(folder / _ORIGIN, pretty_json(without_empty(asdict(origin), "credit")))


def read_origin(folder: Path) -> Origin | None:
    """Return where a dataset is from; None of one that does not say."""
    path = folder / _ORIGIN
    return read_form(Origin, path, "delete it") if path.exists() else None


def card(plan: Plan, manifest: Manifest, name: str, origin: Origin | None) -> str:
    """Return the dataset card: the header that tells `datasets` which files are data, then text for people.

    Args:
        plan: What was built.
        manifest: How it turned out.
        name: Of the folder.
        origin: Where it is from, if that is known.
    """
    shards = [s for s in manifest.shards if s["file"]]
    files = [
        {"split": split, "path": [s["file"] for s in shards if s["shard"].startswith(f"{split}-")]}
        for split in SPLITS
        if manifest.num_rows[split]
    ]
    header = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    conditions = ", ".join(condition["name"] for condition in plan.conditions)
    reasons = Counter(reason for s in manifest.shards for reason in s.get("dropped", {}).values())
    others = sorted((reason, n) for reason, n in reasons.items() if reason not in CHECKS)  # its table tells of checks
    dropped = "".join(f" Left out on purpose: {n} ({reason})." for reason, n in others)
    written = sum(shard.get("captioned", 0) for shard in manifest.shards)
    captions = f" Captions written by {plan.captioner['model']}: {written}." if plan.captioner else ""
    counts = "\n".join(f"| {split} | {manifest.num_rows[split]} |" for split in SPLITS)
    return f"""---
{header}---

# {name}

Pairs of image, caption and condition map ({conditions}) at {plan.resolution} x {plan.resolution} pixels.

![image above condition](preview.png)

| split | pairs |
|---|---|
{counts}

Rows that failed: {len(manifest.failed)}.{dropped}{captions} Fingerprint: `{manifest.fingerprint}`.
{_hygiene_text(manifest)}
{f"Made by `{origin.command}` from" if origin else "Made from"}

```json
{json.dumps({"source": plan.source, "identity": plan.source_identity, "annotators": plan.annotators}, indent=2)}
```

Open with `datasets.load_dataset("{name}")` from the folder above.
{chr(10) + origin.credit if origin and origin.credit else ""}"""


def _hygiene_text(manifest: Manifest) -> str:
    """Return what the card says of the checks: the counts, and how other readers leave out what is excluded."""
    if manifest.hygiene is None:
        return ""
    lines = [
        f"| {check} | {' | '.join(str(kind.get(check, 0)) for kind in manifest.hygiene['counts'].values())} |"
        for check in sorted({check for kind in manifest.hygiene["counts"].values() for check in kind})
    ]
    table = "\n".join(["", "| check | dropped | excluded | reported |", "|---|---|---|---|", *lines]) if lines else ""
    if manifest.excluded:
        table += """

Excluded rows are in the files, but belong in no training or score: the benchmark never reads them. Elsewhere, leave
out the keys of `manifest.json` under `hygiene`, `excluded`.
"""
    return f"{table}\n"
