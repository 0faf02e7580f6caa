"""A finished dataset folder: its manifest, its rows, its card."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import pretty_json, read_json, replace_file
from benchmark.contracts.plugins import SPLITS
from benchmark.engine.plan import Plan
from benchmark.engine.shards import Commit, check_file, fingerprint, read_rows

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The totals of a finished dataset; written last, so that its presence means the dataset is whole."""

    plan_hash: str
    fingerprint: str
    num_rows: dict[str, int]
    shards: list[dict[str, Any]]
    failed: dict[str, str]
    manifest_version: int = MANIFEST_VERSION

    @classmethod
    def of(cls, plan: Plan, commits: Sequence[Commit]) -> "Manifest":
        """Return the manifest of a plan's committed shards, in order."""
        counts = {split: sum(c.num_ok for c in commits if c.split == split) for split in SPLITS}
        failed = {key: reason for c in commits for key, reason in c.failed.items()}
        return cls(plan.hash, fingerprint(plan.hash, commits), counts, [c.record() for c in commits], failed)

    def write(self, folder: Path) -> None:
        """Put the manifest into the dataset folder."""
        replace_file(folder / "manifest.json", pretty_json(asdict(self)))


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
        try:
            return cls(folder, plan, Manifest(**read_json(folder / "manifest.json")))
        except TypeError as error:
            raise UserError(f"{folder}/manifest.json has the wrong fields ({error}); build again") from None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

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

    def rows(self, split: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a split in order, as dictionaries of the columns asked for.

        Raises:
            UserError: A shard is not the file that was committed.
        """
        for commit in self.commits(split):
            fault = check_file(self.folder, commit)
            if fault:
                raise UserError(f"{self.folder}: {fault}; delete it and its record in commits/, and build again")
            if commit.file is not None:
                yield from read_rows(self.folder / commit.file, columns)


def card(plan: Plan, manifest: Manifest, name: str, command: str, credit: str = "") -> str:
    """Return the dataset card: the header that tells `datasets` which files are data, then text for people.

    Args:
        plan: What was built.
        manifest: How it turned out.
        name: Of the folder.
        command: That builds the same.
        credit: Whom to credit for the source, in Markdown.
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
    dropped = "".join(f" Left out on purpose: {n} ({reason})." for reason, n in sorted(reasons.items()))
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

Made by `{command}` from

```json
{json.dumps({"source": plan.source, "identity": plan.source_identity, "annotators": plan.annotators}, indent=2)}
```

Open with `datasets.load_dataset("{name}")` from the folder above.
{credit and chr(10) + credit}"""
