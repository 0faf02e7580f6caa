"""Build a paired dataset (image, caption, condition maps): `python -m benchmark.build --cond seg`."""

import json
import math
import platform
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from benchmark import registry
from benchmark.assembly import build_shard, retry_shard
from benchmark.base.console import progress, say, track
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import difference, replace_file
from benchmark.base.images import decode_rgb, encode_png
from benchmark.base.provenance import versions_of
from benchmark.cli import command_line, non_negative, option, parse_size, positive, share, typed
from benchmark.cli import main as cli_main
from benchmark.contracts.plugins import Annotator, Condition, Images, Part, Source
from benchmark.engine import hygiene
from benchmark.engine.columns import check_columns, source_identity
from benchmark.engine.datasets import BuiltDataset, Manifest, Origin, card, read_origin, write_origin
from benchmark.engine.executors import run_local, run_ray
from benchmark.engine.exporters import export
from benchmark.engine.pictures import grid
from benchmark.engine.plan import Plan
from benchmark.engine.recipes import preset, read_recipe, recipe_names
from benchmark.engine.shards import Commit, check_file, is_whole, read_commit, read_retries
from benchmark.engine.verification import deep_faults

_PREVIEW = 8
_ENGINES = ("local", "ray")


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
    workers: int | None = option(
        "processes (default: as many as cores may be used; where models run on a GPU one, with ray one for each GPU)",
        None,
        positive,
    )
    engine: str = option("local, or ray: the Ray cluster at RAY_ADDRESS, else one started on this machine", "local")
    rank: int = option("which share of the shards this process makes, when several share a folder", 0, non_negative)
    world: int = option("how many processes share the folder, each with its --rank", 1, positive)
    max_failed: int = option("finish although so many images could not be used", 0, non_negative)
    drop: tuple[str, ...] = option(
        "leave out what does not pass these checks, with their limits or the usual ones, as in greyscale,blur=50; "
        f"checks: {', '.join(hygiene.CHECKS)}; usual: {hygiene.usual(hygiene.DROP)}; for scenes: none",
        (),
    )
    report: tuple[str, ...] = option(f"count only what does not pass; usual: {hygiene.usual(hygiene.REPORT)}", ())
    no_hygiene: bool = option("check nothing but that each image can be read", False)
    retry_failed: Path | None = option("try the failed rows of this dataset folder again", None, Path)
    verify: Path | None = option("check this dataset folder instead of building", None, Path)
    deep: bool = option("with --verify: decode every image and map, and check keys, sizes and hashes", False)
    recompute: float = option(
        "with --verify: build this share of the shards again and compare, as 0.01 or 1%", 0.0, share
    )
    export: str | None = option("write a dataset to --out, as in webdataset:DIR or imagefolder:DIR", None)
    dry_run: bool = option("say what would be built, and build nothing", False)


def make_plan(form: Build) -> Plan:
    """Return the plan a form describes.

    Raises:
        UserError: A plugin that does not exist, or a condition without a way to make its maps.
    """
    return _opened(form)[0]


def _opened(form: Build) -> tuple[Plan, Source]:
    """Return the plan a form describes, and its source, which has looked through what there is."""
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
        if made[name] is None and source.is_drawn and registry.describe(condition).get("palette", "scenes") != "scenes":
            raise UserError(
                f"maps of {form.source} are in its own palette, not {registry.spec(condition)}; leave that out"
            )
    check_columns(source, form.source, made.values())
    identities = {name: annotator.identity() if annotator else {} for name, annotator in made.items()}
    captioner = _captioner(form.captioner) if form.captioner else None
    plan = Plan(
        source=registry.describe(source),
        source_identity=source_identity(source, made.values()),
        conditions=[registry.describe(condition) for condition in conditions],
        annotators={name: registry.describe(annotator) if annotator else None for name, annotator in made.items()},
        annotator_identities=identities,
        resolution=form.resolution,
        versions=Plan.versions_now(identities.values(), captioner),
        captioner=captioner,
        hygiene=_hygiene(form, source),
    )
    return plan, source


def _captioner(text: str) -> dict[str, Any]:
    """Return the plan's entry of a captioner, a hub model by the commit its revision stands for now."""
    from benchmark.engine.captioning import Captioner

    captioner = Captioner.of(text)
    return {"model": captioner.model, **captioner.identity()}


def _hygiene(form: Build, source: Source) -> hygiene.Settings | None:
    if form.no_hygiene and (form.drop or form.report):
        raise UserError("--no-hygiene and --drop or --report exclude each other; give one")
    unwanted = form.no_hygiene or (source.is_drawn and not form.drop and not form.report)
    return None if unwanted else hygiene.settings(form.drop, form.report)


def _annotator(condition: Condition, name: str, spec: str | None) -> Annotator | None:
    """Return the annotator asked for, else the condition's own; None where maps must come with the source."""
    if spec is None and condition.annotator is None:
        return None
    annotator = registry.make(Annotator, spec or condition.referee)
    if not annotator.columns and annotator.condition != name:
        raise UserError(
            f"annotator {spec} makes {annotator.condition} maps, not {name}; give --annotator in --cond order"
        )
    registry.check_fits(condition, annotator)
    return annotator


Tries = dict[str, list[Commit]]  # a part's name to its commit and those of its later tries


def _select(source: Source, size: int, tries: Tries) -> list[Part]:
    """Return the held-out parts and the shortest run of training parts that reaches a size.

    A committed part counts with the rows it gave at its first try, lest a later one change which parts are taken;
    another with the rows it plans. An empty one is the source's end.
    """
    parts, reached = [], 0
    for part in source.parts():
        commits = tries.get(part.name)
        if part.split == "train" and (reached >= size or (commits and commits[0].num_in == 0)):
            break
        given = commits[0].num_ok if commits else part.num_samples
        reached += given if part.split == "train" else 0
        parts.append(part)
    return parts


def _made(plan: Plan, folder: Path, form: Build, parts: list[Part]) -> Iterator[Commit]:
    """Yield the commits of parts: of those that are there, then of those that an engine makes."""
    missing = []
    for part in parts:
        if is_whole(folder, part.name):
            yield read_commit(folder, part.name)
        else:
            missing.append(part)
    build_one = partial(_build_shared, plan, folder)
    if form.engine == "ray":
        yield from run_ray(build_one, missing, form.workers, warm=plan.loads_models)
    else:
        yield from run_local(build_one, missing, form.workers or (1 if _is_on_gpu(plan) else None))


def _is_on_gpu(plan: Plan) -> bool:
    """Whether models would run on this machine's GPU, where those of many processes may not find room."""
    if not plan.loads_models:
        return False
    from benchmark.engine.pretrained import choose_device

    return choose_device(None) == "cuda"


def _build_shared(plan: Plan, folder: Path, part: Part) -> Commit:
    """Build a part, perhaps on another machine."""
    if not (folder / "plan.json").exists():
        raise UserError(f"{platform.node()} does not see {folder}; give an --out that all nodes share")
    return build_shard(plan, folder, part)


def _commit_share(plan: Plan, source: Source, folder: Path, form: Build) -> int:
    """Build every `world`-th part, from the `rank`-th on; return how many of the others are missing."""
    parts = _select(source, form.size, {})
    mine = parts[form.rank :: form.world]
    for _ in track(_made(plan, folder, form, mine), len(mine), f"build {folder.name}", "shards"):
        pass
    return sum(not is_whole(folder, part.name) for part in parts)


def _commit_all(plan: Plan, source: Source, folder: Path, form: Build, size: int, tries: Tries) -> list[Commit]:
    """Build what is missing until the size is reached or the source ends; return the dataset's commits in order."""
    with progress(None, f"build {folder.name}", "pairs") as bar:
        while missing := [p for p in _select(source, size, tries) if p.name not in tries]:
            bar.total = (bar.total or 0) + sum(part.num_samples for part in missing)
            for commit in _made(plan, folder, form, missing):
                tries[commit.shard] = [commit, *read_retries(folder, commit.shard)]
                bar.update(commit.num_ok)
        bar.total = bar.n
    return [commit for part in _select(source, size, tries) for commit in tries[part.name]]


def _build_parts(plan: Plan, source: Source, folder: Path, form: Build) -> Manifest:
    """Build until the size is reached by rows that are not excluded, or the source ends."""
    tries: Tries = {}
    excluded = 0
    while True:
        commits = _commit_all(plan, source, folder, form, form.size + excluded, tries)
        manifest = Manifest.of(plan, commits, folder, source.is_shuffled)
        more = sum(c.num_ok for c in commits if c.split == "train") - manifest.num_rows["train"]
        if more == excluded:
            return manifest
        excluded = more


def build(form: Build) -> BuiltDataset | None:
    """Build the dataset a form describes, or finish or grow the one that is there.

    Of several processes on one folder each makes its share; the last to end finishes, the others return None.

    Raises:
        UserError: The folder holds another plan, the source gives nothing, or more images failed than allowed.
    """
    if form.engine not in _ENGINES:
        raise UserError(f'no engine "{form.engine}"; {did_you_mean(form.engine, _ENGINES)}')
    if form.rank >= form.world:
        raise UserError(f"--rank {form.rank} is not below --world {form.world}; ranks count from 0")
    plan, source = _opened(form)
    folder = form.out or default_folder(plan, form.recipe)
    inside = Path(plan.source.get("path", folder / "elsewhere")).resolve()
    if folder.resolve().is_relative_to(inside):
        raise UserError(f"{folder} lies inside the source {inside}; give an --out elsewhere")
    plan.write(folder)
    if form.world > 1 and (missing := _commit_share(plan, source, folder, form)):
        say(f"rank {form.rank} of {form.world} has built its share; {missing} shards of others are missing in {folder}")
        return None
    manifest = _build_parts(plan, source, folder, form)
    _refuse_fewer(manifest, folder, form.size)
    return _conclude(plan, manifest, folder, form)


def _refuse_fewer(manifest: Manifest, folder: Path, size: int) -> None:
    """Refuse to make a finished dataset smaller: runs and records name pairs that it would no longer hold.

    Raises:
        UserError: It holds shards that a build of this size leaves out.
    """
    if not (folder / "manifest.json").exists():
        return
    present = BuiltDataset.open(folder).manifest
    if {shard["shard"] for shard in present.shards} - {shard["shard"] for shard in manifest.shards}:
        held = present.num_rows["train"]
        raise UserError(
            f"{folder} holds {held} training pairs, and --size {size} would leave some out; give --size {held} or "
            "more, or another --out (training reads fewer by --num-samples)"
        )


def _conclude(plan: Plan, manifest: Manifest, folder: Path, form: Build) -> BuiltDataset:
    current = _is_current(folder, manifest)
    if form.retry_failed is None and not current:  # before the check: a retry, which may follow it, knows neither
        write_origin(folder, _origin(form))
    _check(manifest, folder, form)
    if current:
        say(f"{folder} is already built")
    else:
        _finish(plan, manifest, folder, form)
    return BuiltDataset.open(folder)


def _origin(form: Build) -> Origin:
    """Return what builds the same anywhere, and whom to credit for the source."""
    anywhere = replace(form, workers=None, engine="local", rank=0, world=1, out=None)
    command = command_line(anywhere, typed(Build, preset({"recipe": form.recipe})))
    return Origin(command, read_recipe(form.recipe).credit if form.recipe else "")


def retry_failed(form: Build, folder: Path) -> BuiltDataset:
    """Try the rows of a dataset folder again that failed, from the source as it is now, and finish the dataset.

    Raises:
        UserError: No dataset, a build that was broken off, other versions, or more images failed than allowed.
    """
    plan = Plan.read(folder)
    if plan.versions != (now := versions_of(plan.versions)):
        changes = difference(plan.versions, now)
        raise UserError(f"{folder} was built with other versions ({changes}); install those, or build again")
    source = registry.remake(Source, plan.source)
    annotators = [registry.remake(Annotator, a) if a else None for a in plan.annotators.values()]
    identity = source_identity(source, annotators)
    changed = None if identity == plan.source_identity else identity
    parts = list(takewhile(lambda part: is_whole(folder, part.name), source.parts()))
    if not {path.stem.partition("-r")[0] for path in (folder / "commits").glob("*.json")} == {p.name for p in parts}:
        raise UserError(f"the build of {folder} is not finished; run the same build command again")
    tries = {part.name: [read_commit(folder, part.name), *read_retries(folder, part.name)] for part in parts}
    todo = [part for part in parts if tries[part.name][-1].failed]
    for part in track(todo, len(todo), f"retry {folder.name}", "shards"):
        tries[part.name].append(retry_shard(plan, folder, changed, part, tries[part.name][-1]))
    commits = [commit for part in parts for commit in tries[part.name] if tries[part.name][0].num_in]
    return _conclude(plan, Manifest.of(plan, commits, folder, source.is_shuffled), folder, form)


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
            f"in {folder}: give --max-failed {len(manifest.failed)} to finish without them, or mend them and run "
            f"--retry-failed {folder}"
        )
    empty = [split for split, count in manifest.num_rows.items() if not count]
    if empty:
        raise UserError(f"the source gave no usable sample for {', '.join(empty)}; every split needs at least one")


def _is_current(folder: Path, manifest: Manifest) -> bool:
    return (folder / "manifest.json").exists() and BuiltDataset.open(folder).manifest == manifest


def _finish(plan: Plan, manifest: Manifest, folder: Path, form: Build) -> None:
    """Write preview and card, then the manifest that makes the dataset whole."""
    replace_file(folder / "preview.png", encode_png(_preview(plan, manifest, folder)))
    text = card(plan, manifest, folder.resolve().name, read_origin(folder))
    replace_file(folder / "README.md", text.encode())
    manifest.write(folder)
    counts = ", ".join(f"{count} {split}" for split, count in manifest.num_rows.items())
    say(f"built {folder}: {counts}; pictures in {folder / 'preview.png'}")
    if manifest.num_rows["train"] < form.size != Build.size:
        say(f"{form.size} training pairs were asked for and the source gave no more; the card says what was left out")


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


def verify(folder: Path, recompute: float, deep: bool = False) -> list[str]:
    """Return what is wrong with a dataset: files that are not those committed, sums that do not add up, other bytes.

    Args:
        folder: A finished dataset.
        recompute: Share of the shards, from 0 to 1, that are built again and compared byte by byte.
        deep: Whether every row is decoded and checked.
    """
    dataset = BuiltDataset.open(folder)
    commits = [Commit(**shard) for shard in dataset.manifest.shards]
    faults = [fault for commit in commits if (fault := check_file(folder, commit))]
    if not faults and Manifest.of(dataset.plan, commits, folder, dataset.manifest.is_shuffled) != dataset.manifest:
        faults.append("the manifest does not add up to its shards")
    if deep and not faults:
        faults += deep_faults(dataset, {c["name"]: registry.remake(Condition, c) for c in dataset.plan.conditions})
    chosen = random.Random(0).sample(range(len(commits)), math.ceil(recompute * len(commits)))
    parts = _parts(dataset.plan, commits) if chosen else {}
    with tempfile.TemporaryDirectory() as other:
        again = [_build_again(dataset.plan, parts[commits[i].part], Path(other), commits, i) for i in chosen]
    return faults + [
        f"{a.shard} built again is different" for a, i in zip(again, chosen, strict=True) if a != commits[i]
    ]


def _parts(plan: Plan, commits: list[Commit]) -> dict[str, Part]:
    """Return the parts that commits are of, by name.

    Raises:
        UserError: The source, as it is now, does not have one of them.
    """
    names = {commit.part for commit in commits}
    found = {part.name: part for part in islice(registry.remake(Source, plan.source).parts(), len(names))}
    if absent := sorted(names - set(found)):
        raise UserError(f"the source no longer has the part {absent[0]}; give it back its files, or build again")
    return found


def _build_again(plan: Plan, part: Part, folder: Path, commits: list[Commit], i: int) -> Commit:
    """Build the shard of one commit in another folder; rows that a later try read were lost when it was built."""
    commit = commits[i]
    later = any(other.part == commit.part for other in commits[i + 1 : i + 2])
    failed = commit.failed if later else {}
    if commit.shard == part.name:
        return build_shard(plan, folder, part, failed)
    return retry_shard(plan, folder, commit.source_identity, part, commits[i - 1], failed)


def _describe(form: Build) -> str:
    """Return the plan as JSON, with the folder and how much there is to do."""
    plan, source = _opened(form)
    folder = form.out or default_folder(plan, form.recipe)
    parts = _select(source, form.size, {})
    done = sum(is_whole(folder, part.name) for part in parts)
    cost = {"pairs": sum(part.num_samples for part in parts), "shards": len(parts), "shards_done": done}
    return json.dumps({"folder": str(folder), **cost, "plan": plan.record()}, indent=2)


def _run(form: Build) -> int:
    if form.verify is not None:
        faults = verify(form.verify, form.recompute, form.deep)
        say("\n".join(faults) if faults else f"{form.verify} is whole")
        return 1 if faults else 0
    if form.retry_failed is not None:
        retry_failed(form, form.retry_failed)
        return 0
    if form.export is not None:
        export(form.export, form.out)
        return 0
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
