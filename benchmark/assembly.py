"""Make one shard of a dataset: read a part of the source, sift, annotate, check, caption, write."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.files import utf8
from benchmark.contracts.plugins import Annotator, Condition, Map, Part, Sample, Source
from benchmark.engine import hygiene
from benchmark.engine.columns import column_maps, wanted_columns
from benchmark.engine.intake import Usable, sift
from benchmark.engine.plan import Plan
from benchmark.engine.shards import Commit, Lost, Row, is_whole, read_commit, retry_name, write_shard

_ANNOTATE_BATCH = 50


@dataclass(frozen=True)
class _Tools:
    """The plugins of a plan."""

    plan: Plan

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        return {c["name"]: registry.remake(Condition, c) for c in self.plan.conditions}

    @cached_property
    def annotators(self) -> dict[str, Annotator | None]:
        return {name: registry.remake(Annotator, a) if a else None for name, a in self.plan.annotators.items()}

    def read(self, part: Part) -> Iterable[Sample]:
        """Return the part's samples with the columns that annotators copy."""
        source = registry.remake(Source, self.plan.source)
        return source.read(part, self.plan.resolution, wanted_columns(self.annotators.values()))

    def sift(self, samples: Iterable[Sample]) -> tuple[list[Usable], Lost]:
        """Part samples that are kept from those that failed or were dropped."""
        copy = partial(column_maps, conditions=self.conditions, annotators=self.annotators)
        return sift(iter(samples), self.plan, copy)


def build_shard(plan: Plan, folder: Path, part: Part, failed: Mapping[str, str] = MappingProxyType({})) -> Commit:
    """Read, transform, annotate and write one part; a finished one is left as it is.

    Args:
        plan: The dataset's.
        folder: The dataset's.
        part: Of the source.
        failed: Rows that count as failed without a look at them, and why.
    """
    if is_whole(folder, part.name):
        return read_commit(folder, part.name)
    tools = _Tools(plan)
    samples, lost = tools.sift(sample for sample in tools.read(part) if utf8(sample.key) not in failed)
    lost.failed.update(failed)
    with _one_thread(plan):
        return _write(tools, folder, part.name, samples, lost)


def retry_shard(
    plan: Plan,
    folder: Path,
    identity: dict[str, Any] | None,
    part: Part,
    before: Commit,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Commit:
    """Read the rows of a part again that failed in the try before, and write them as a shard of their own.

    Args:
        plan: The dataset's.
        folder: The dataset's.
        identity: Of the source, where it is no longer that of the plan.
        part: Of the source.
        before: The part's last try.
        failed: Rows that count as failed again without a look at them, and why.
    """
    generation = int(before.shard.removeprefix(part.name).removeprefix("-r") or 0) + 1
    tools = _Tools(plan)
    wanted = before.failed.keys() - failed.keys()
    samples, lost = tools.sift(sample for sample in tools.read(part) if utf8(sample.key) in wanted)
    lost.failed.update(failed)
    found = {usable.sample.key for usable in samples} | {*lost.failed, *lost.dropped}
    lost.failed.update({key: "no longer in the source" for key in before.failed if key not in found})
    with _one_thread(plan):
        return _write(tools, folder, retry_name(part.name, generation), samples, lost, identity)


@contextmanager
def _one_thread(plan: Plan) -> Iterator[None]:
    """Let models compute on one thread: on more, sums are rounded in another order, and their maps would be others."""
    if not plan.loads_models:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(
    tools: _Tools,
    folder: Path,
    name: str,
    samples: list[Usable],
    lost: Lost,
    identity: dict[str, Any] | None = None,
) -> Commit:
    """Annotate samples and write those whose maps and captions hold as a shard."""
    plan, conditions = tools.plan, tools.conditions
    maps = {cond: _maps(samples, cond, conditions[cond], tools.annotators[cond]) for cond in conditions}
    for cond, condition in conditions.items():
        lost.failed.update(_faults(samples, maps[cond], cond, condition, plan.resolution))
    for cond, annotator in tools.annotators.items():
        rejected = _rejected(samples, maps[cond], annotator) if annotator else {}
        lost.dropped.update({key: reason for key, reason in rejected.items() if key not in lost.failed})
    kept = [i for i, usable in enumerate(samples) if usable.sample.key not in {*lost.failed, *lost.dropped}]
    captioned = _captioned([samples[i] for i in kept], plan, lost)
    rows = [
        Row(
            key=usable.sample.key,
            image=usable.data,
            caption=usable.sample.caption,
            maps={cond: condition.encode(maps[cond][i]) for cond, condition in conditions.items()},
            width=usable.pixels.shape[1],
            height=usable.pixels.shape[0],
            tags=json.dumps(usable.tags, sort_keys=True),
            quality=usable.quality,
        )
        for i, usable in zip(kept, captioned, strict=True)
        if usable.sample.key not in lost.dropped
    ]
    written = sum(bool(usable.sample.tags.get("captioned")) for usable in captioned)
    return write_shard(folder, name, plan.hash, list(conditions), rows, lost, written, identity)


def _captioned(samples: list[Usable], plan: Plan, lost: Lost) -> list[Usable]:
    """Return samples with the captions a model wrote where they had none or a blank one.

    One for which it writes nothing fails the check `missing_caption`, like one without a model to write it.
    """
    absent = [i for i, usable in enumerate(samples) if not (usable.sample.caption or "").strip()]
    if plan.captioner is None or not absent:
        return samples
    from benchmark.engine.captioning import Captioner

    model = Captioner(plan.captioner["model"], plan.captioner["commit"])
    texts = dict(zip(absent, model.caption(np.stack([samples[i].pixels for i in absent])), strict=True))
    for i in absent:
        usable, text = samples[i], texts[i]
        if text:
            tags = {**usable.sample.tags, "captioned": True}
            samples[i] = replace(usable, sample=replace(usable.sample, caption=text, tags=tags))
        elif hygiene.drops(plan.hygiene, "missing_caption"):
            lost.dropped[usable.sample.key] = "missing_caption"
        elif usable.quality is not None:
            samples[i] = replace(usable, quality=hygiene.flagged(usable.quality, "missing_caption"))
    return samples


def _maps(samples: list[Usable], name: str, condition: Condition, annotator: Annotator | None) -> list[Map]:
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


def _faults(samples: list[Usable], maps: list[Map], name: str, condition: Condition, side: int) -> dict[str, str]:
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


def _rejected(samples: list[Usable], maps: list[Map], annotator: Annotator) -> dict[str, str]:
    """Return why samples are left out on purpose."""
    reasons = {s.sample.key: annotator.reject(map_) for s, map_ in zip(samples, maps, strict=True)}
    return {key: reason for key, reason in reasons.items() if reason}
