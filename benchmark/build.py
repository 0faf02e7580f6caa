"""Build a paired dataset (image, caption, condition maps): `python -m benchmark.build --cond seg`."""

import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import registry
from benchmark.base.console import progress, say
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file
from benchmark.base.images import BadImage, Transform, decode_rgb, encode_jpeg, encode_png, is_plain_jpeg
from benchmark.cli import command_line, non_negative, option, parse_size, positive, share, typed
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import Annotator, Condition, Images, Map, Part, Sample, Source
from benchmark.engine.columns import check_columns, column_maps, wanted_columns
from benchmark.engine.datasets import BuiltDataset, Manifest, card
from benchmark.engine.executors import run_local
from benchmark.engine.pictures import grid
from benchmark.engine.plan import Plan
from benchmark.engine.recipes import preset, read_recipe, recipe_names
from benchmark.engine.shards import Commit, Row, check_file, is_whole, read_commit, write_shard

_ANNOTATE_BATCH = 50
_PREVIEW = 8


@dataclass(frozen=True)
class Build:
    """Build a paired dataset; the same command again resumes, and with a larger --size it grows."""

    recipe: str | None = option(
        "name of a recipe in datasets/; it sets the options that are not given", None, positional=True
    )
    cond: tuple[str, ...] = option("condition, as in seg or canny,low=100,high=200; may be given again", ())
    source: str = option("scenes, folder:PATH, hub:NAME_OR_PATH, parquet:FILES or webdataset:FILES", "scenes")
    size: int = option("training pairs, up to the next whole shard: 500, 10k, 1m, tiny, small, large", 1000, parse_size)
    resolution: int = option("pixels a side", 64, positive)
    annotator: tuple[str, ...] = option("what makes the maps, in the order of --cond, instead of the default", ())
    captioner: str | None = option(
        "image-to-text model, MODEL or MODEL@REVISION, that writes the captions that are missing", None
    )
    out: Path | None = option(
        "dataset folder (default: datasets/<recipe>-<resolution>, or <source>-<conditions>-<resolution>)", None, Path
    )
    workers: int = option("processes", os.cpu_count() or 1, positive)
    max_failed: int = option("finish although so many images could not be used", 0, non_negative)
    verify: Path | None = option("check this dataset folder instead of building", None, Path)
    recompute: float = option(
        "with --verify: build this share of the shards again and compare, as 0.01 or 1%", 0.0, share
    )
    dry_run: bool = option("say what would be built, and build nothing", False)


def make_plan(form: Build) -> Plan:
    """Return the plan a form describes.

    Raises:
        UserError: A plugin that does not exist, or a condition without a way to make its maps.
    """
    if not form.cond:
        allowed = ", ".join(registry.names(Condition))
        raise UserError(f"--cond is missing; allowed: {allowed}; or name a recipe: {', '.join(recipe_names())}")
    if len({spec.partition(",")[0] for spec in form.cond}) < len(form.cond):
        raise UserError(f"--cond {' --cond '.join(form.cond)} names a condition twice; a dataset holds each once")
    if len(form.annotator) > len(form.cond):
        raise UserError(f"{len(form.annotator)} annotators for {len(form.cond)} conditions; give at most one each")
    conditions = [registry.make(Condition, spec) for spec in form.cond]
    source = registry.make(Source, form.source)
    made: dict[str, Annotator | None] = {}
    for i, condition in enumerate(conditions):
        spec = form.annotator[i] if i < len(form.annotator) else None
        name = registry.describe(condition)["name"]
        made[name] = _annotator(condition, name, spec)
    check_columns(source, form.source, made.values())
    return Plan(
        source=registry.describe(source),
        source_identity=source.identity(),
        conditions=[registry.describe(condition) for condition in conditions],
        annotators={name: registry.describe(annotator) if annotator else None for name, annotator in made.items()},
        annotator_identities={name: annotator.identity() if annotator else {} for name, annotator in made.items()},
        resolution=form.resolution,
        versions=Plan.current_versions(),
        captioner=_captioner(form.captioner) if form.captioner else None,
    )


def _captioner(text: str) -> dict[str, Any]:
    """Return the plan's entry of a captioner, a hub model by the commit its revision stands for now."""
    from benchmark.engine.captioning import Captioner

    captioner = Captioner.of(text)
    return {"model": captioner.model, **captioner.identity()}


def _annotator(condition: Condition, name: str, spec: str | None) -> Annotator | None:
    """Return the annotator asked for, else the condition's own; None where maps must come with the source."""
    if spec is None and condition.annotator is None:
        return None
    annotator = registry.make(Annotator, spec or condition.referee)
    if not annotator.columns and annotator.condition != name:
        raise UserError(
            f"annotator {spec} makes {annotator.condition} maps, not {name}; give --annotator in --cond order"
        )
    registry.check_classes(condition, annotator)
    return annotator


def build_shard(plan: Plan, folder: Path, part: Part) -> Commit:
    """Read, transform, annotate and write one part; a finished one is left as it is."""
    if is_whole(folder, part.name):
        return read_commit(folder, part.name)
    conditions = {c["name"]: registry.remake(Condition, c) for c in plan.conditions}
    annotators = {name: registry.remake(Annotator, a) if a else None for name, a in plan.annotators.items()}
    columns = wanted_columns(annotators.values())
    read = registry.remake(Source, plan.source).read(part, plan.resolution, columns)
    copy = partial(column_maps, conditions=conditions, annotators=annotators)
    samples, failed = _usable(read, plan.resolution, copy)
    maps = {name: _maps(samples, name, conditions[name], annotators[name]) for name in conditions}
    for name, condition in conditions.items():
        failed |= _faults(samples, maps[name], name, condition, plan.resolution)
    dropped = {k: v for name, a in annotators.items() if a for k, v in _rejected(samples, maps[name], a).items()}
    dropped = {key: reason for key, reason in dropped.items() if key not in failed}
    written = _write_captions(samples, plan.captioner)
    rows = [
        Row(
            key=usable.sample.key,
            image=usable.data,
            caption=written.get(i, usable.sample.caption),
            maps={name: condition.encode(maps[name][i]) for name, condition in conditions.items()},
            width=usable.pixels.shape[1],
            height=usable.pixels.shape[0],
            tags=json.dumps({**usable.tags, **({"captioned": True} if i in written else {})}, sort_keys=True),
        )
        for i, usable in enumerate(samples)
        if usable.sample.key not in {*failed, *dropped}
    ]
    return write_shard(folder, part.name, plan.hash, list(conditions), rows, failed, dropped, len(written))


@dataclass(frozen=True)
class _Usable:
    """A sample whose image could be read, with the bytes to store and the pixels they decode to."""

    sample: Sample
    data: bytes
    pixels: Images
    transform: Transform
    copied: dict[str, Map]

    @property
    def tags(self) -> dict[str, Any]:
        """The sample's, with the transform that its image and its copied maps went through together."""
        return {**self.sample.tags, **({"transform": self.transform.record()} if self.copied else {})}


_Copy = Callable[[Sample, Transform], dict[str, Map]]


def _usable(samples: Iterator[Sample], resolution: int, copy: _Copy) -> tuple[list[_Usable], dict[str, str]]:
    usable, failed = [], {}
    for sample in samples:
        try:
            if sample.fault is not None:
                raise BadImage(sample.fault)
            usable.append(_prepare(sample, resolution, copy))
        except BadImage as error:
            failed[sample.key] = str(error)
    return usable, failed


def _prepare(sample: Sample, resolution: int, copy: _Copy) -> _Usable:
    """Resize and crop the image; keep the source's own JPEG where nothing changes, else JPEG; renders stay exact."""
    source = sample.image
    pixels = decode_rgb(source) if isinstance(source, bytes) else source
    transform = Transform(pixels.shape[0], pixels.shape[1], resolution)
    small, copied = transform.apply(pixels), copy(sample, transform)
    if not isinstance(source, bytes):
        return _Usable(sample, encode_png(small), small, transform, copied)
    data = source if transform.is_identity and is_plain_jpeg(source) else encode_jpeg(small)
    return _Usable(sample, data, decode_rgb(data), transform, copied)


def _write_captions(samples: list[_Usable], captioner: dict[str, Any] | None) -> dict[int, str]:
    """Return a caption for each sample that has none or a blank one, by its place, where there is a captioner."""
    absent = [i for i, usable in enumerate(samples) if not (usable.sample.caption or "").strip()]
    if captioner is None or not absent:
        return {}
    from benchmark.engine.captioning import Captioner

    model = Captioner(captioner["model"], captioner["commit"])
    texts = model.caption(np.stack([samples[i].pixels for i in absent]))
    return {i: text for i, text in zip(absent, texts, strict=True) if text}


def _maps(samples: list[_Usable], name: str, condition: Condition, annotator: Annotator | None) -> list[Map]:
    if annotator is None:
        absent = [s.sample.key for s in samples if name not in s.sample.maps]
        if absent:
            allowed = ", ".join(registry.names(Annotator))
            raise UserError(f"the source brings no {name} maps; give --annotator NAME, allowed: {allowed}")
        return [condition.warp(s.sample.maps[name], s.transform) for s in samples]
    if annotator.columns:
        return [s.copied[name] for s in samples]
    batches = [samples[i : i + _ANNOTATE_BATCH] for i in range(0, len(samples), _ANNOTATE_BATCH)]
    return [
        map_
        for batch in batches
        for map_ in annotator.annotate_samples(np.stack([s.pixels for s in batch]), [s.sample.key for s in batch])
    ]


def _faults(samples: list[_Usable], maps: list[Map], name: str, condition: Condition, side: int) -> dict[str, str]:
    """Return why samples fail whose maps are not of the condition's form.

    Raises:
        UserError: All maps together look inverted, or exchanged in their channels.
    """
    found = {s.sample.key: condition.check(map_, side) for s, map_ in zip(samples, maps, strict=True)}
    faults = {key: f"its {name} map {fault}" for key, fault in found.items() if fault}
    whole = [map_ for s, map_ in zip(samples, maps, strict=True) if s.sample.key not in faults]
    if whole and (turned := condition.turned(whole)):
        raise UserError(f"the {name} maps of {len(whole)} samples from {samples[0].sample.key} on {turned}")
    return faults


def _rejected(samples: list[_Usable], maps: list[Map], annotator: Annotator) -> dict[str, str]:
    """Return why samples are left out on purpose."""
    reasons = {s.sample.key: annotator.reject(map_) for s, map_ in zip(samples, maps, strict=True)}
    return {key: reason for key, reason in reasons.items() if reason}


def _select(source: Source, size: int, commits: dict[str, Commit]) -> list[Part]:
    """Return the held-out parts and the shortest run of training parts that reaches a size.

    A committed part counts with the rows it gave, another with the rows it plans; an empty one is the source's end.
    """
    parts, reached = [], 0
    for part in source.parts():
        commit = commits.get(part.name)
        if part.split == "train" and (reached >= size or (commit and commit.num_in == 0)):
            break
        reached += (commit.num_ok if commit else part.num_samples) if part.split == "train" else 0
        parts.append(part)
    return parts


def _commit_all(plan: Plan, folder: Path, form: Build) -> list[Commit]:
    """Build what is missing until the size is reached or the source ends; return the dataset's commits in order."""
    source, commits = registry.remake(Source, plan.source), dict[str, Commit]()
    with progress(None, f"build {folder.name}", "pairs") as bar:
        while missing := [p for p in _select(source, form.size, commits) if p.name not in commits]:
            bar.total = (bar.total or 0) + sum(part.num_samples for part in missing)
            workers = min(form.workers, len(missing))
            for commit in run_local(partial(build_shard, plan, folder), missing, workers):
                commits[commit.shard] = commit
                bar.update(commit.num_ok)
        bar.total = bar.n
    return [commits[part.name] for part in _select(source, form.size, commits)]


def build(form: Build) -> BuiltDataset:
    """Build the dataset a form describes, or finish or grow the one that is there.

    Raises:
        UserError: The folder holds another plan, the source gives nothing, or more images failed than allowed.
    """
    plan = make_plan(form)
    folder = form.out or default_folder(plan, form.recipe)
    inside = Path(plan.source.get("path", folder / "elsewhere")).resolve()
    if folder.resolve().is_relative_to(inside):
        raise UserError(f"{folder} lies inside the source {inside}; give an --out elsewhere")
    plan.write(folder)
    manifest = Manifest.of(plan, _commit_all(plan, folder, form))
    _check(manifest, folder, form)
    if _is_current(folder, manifest):
        say(f"{folder} is already built")
    else:
        _finish(plan, manifest, folder, form)
    return BuiltDataset.open(folder)


def default_folder(plan: Plan, recipe: str | None = None) -> Path:
    """Return ``datasets/<recipe>-<resolution>``, or ``datasets/<source>-<conditions>-<resolution>``.

    A source with a path is named by its last plain part.
    """
    if recipe is not None:
        return Path("datasets") / f"{Path(recipe).name.removesuffix('.toml')}-{plan.resolution}"
    source, conditions = plan.source, "-".join(c["name"] for c in plan.conditions)
    parts = [part for part in Path(source.get("path", "")).parts if not set(part) & set("*?[]")]
    inside = f"-{Path(parts[-1]).name}" if parts else ""
    return Path("datasets") / f"{source['name']}{inside}-{conditions}-{plan.resolution}"


def _check(manifest: Manifest, folder: Path, form: Build) -> None:
    if len(manifest.failed) > form.max_failed:
        key, reason = next(iter(manifest.failed.items()))
        raise UserError(
            f"{len(manifest.failed)} images could not be used, the first is {key}: {reason}; the others are kept "
            f"in {folder}: give --max-failed {len(manifest.failed)} to finish without them, or mend them and give "
            f"another --out"
        )
    empty = [split for split, count in manifest.num_rows.items() if not count]
    if empty:
        raise UserError(f"the source gave no usable sample for {', '.join(empty)}; every split needs at least one")


def _is_current(folder: Path, manifest: Manifest) -> bool:
    return (folder / "manifest.json").exists() and BuiltDataset.open(folder).manifest == manifest


def _finish(plan: Plan, manifest: Manifest, folder: Path, form: Build) -> None:
    """Write preview and card, then the manifest that makes the dataset whole."""
    command = command_line(replace(form, workers=Build.workers), typed(Build, preset({"recipe": form.recipe})))
    credit = read_recipe(form.recipe).credit if form.recipe else ""
    replace_file(folder / "preview.png", encode_png(_preview(plan, manifest, folder)))
    replace_file(folder / "README.md", card(plan, manifest, folder.resolve().name, command, credit).encode())
    manifest.write(folder)
    counts = ", ".join(f"{count} {split}" for split, count in manifest.num_rows.items())
    say(f"built {folder}: {counts}; pictures in {folder / 'preview.png'}")


def _preview(plan: Plan, manifest: Manifest, folder: Path) -> Images:
    """Return the first training images above their conditioning images."""
    conditions = {c["name"]: registry.remake(Condition, c) for c in plan.conditions}
    dataset = BuiltDataset(folder, plan, manifest)
    columns = ["image", *(f"cond_{name}" for name in conditions)]
    rows = list(islice(dataset.rows("train", columns), _PREVIEW))
    pictures = [("image", [decode_rgb(row["image"]["bytes"]) for row in rows])]
    for name, condition in conditions.items():
        maps = [condition.decode(row[f"cond_{name}"]["bytes"]) for row in rows]
        pictures.append((name, [condition.render(map_, plan.resolution) for map_ in maps]))
    return grid(pictures, max(plan.resolution, 96))


def verify(folder: Path, recompute: float) -> list[str]:
    """Return what is wrong with a dataset: files that are not those committed, sums that do not add up, other bytes.

    Args:
        folder: A finished dataset.
        recompute: Share of the shards, from 0 to 1, that are built again and compared byte by byte.
    """
    dataset = BuiltDataset.open(folder)
    commits = [Commit(**shard) for shard in dataset.manifest.shards]
    faults = [fault for commit in commits if (fault := check_file(folder, commit))]
    if Manifest.of(dataset.plan, commits) != dataset.manifest:
        faults.append("the manifest does not add up to its shards")
    chosen = random.Random(0).sample(commits, math.ceil(recompute * len(commits)))
    with tempfile.TemporaryDirectory() as other:
        again = [build_shard(dataset.plan, Path(other), Part(commit.shard, commit.num_in)) for commit in chosen]
    return faults + [f"{a.shard} built again is different" for a, b in zip(again, chosen, strict=True) if a != b]


def _describe(form: Build) -> str:
    """Return the plan as JSON, with the folder and how much there is to do."""
    plan = make_plan(form)
    folder = form.out or default_folder(plan, form.recipe)
    parts = _select(registry.remake(Source, plan.source), form.size, {})
    done = sum(is_whole(folder, part.name) for part in parts)
    cost = {"pairs": sum(part.num_samples for part in parts), "shards": len(parts), "shards_done": done}
    return json.dumps({"folder": str(folder), **cost, "plan": plan.record()}, indent=2)


def _run(form: Build) -> int:
    if form.verify is not None:
        faults = verify(form.verify, form.recompute)
        say("\n".join(faults) if faults else f"{form.verify} is whole")
        return 1 if faults else 0
    if form.dry_run:
        say(_describe(form))
        return 0
    build(form)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    example = "python -m benchmark.build --cond canny --source folder:photos --out datasets/mine"
    return cli_main(Build, _run, argv, example, preset)


if __name__ == "__main__":
    raise SystemExit(main())
