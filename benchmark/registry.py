"""Find plugins by file name and make them from `name[:arg][,field=value]`: listing names imports nothing."""

import dataclasses
import importlib
import math
import pkgutil
import re
import types
import typing
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from benchmark.base.errors import UserError, did_you_mean
from benchmark.contracts.plugins import Annotator, Condition, Encoder, Method, Metric, Source

P = TypeVar("P", Source, Condition, Annotator, Encoder, Method, Metric)

FAMILIES: dict[type[Any], str] = {
    Source: "sources",
    Condition: "conditions",
    Annotator: "annotators",
    Encoder: "encoders",
    Method: "methods",
    Metric: "metrics",
}


def names(family: type[Any]) -> list[str]:
    """Return the names of a family's plugins: the files of its folder and other packages' entry points."""
    folder = Path(__file__).parent / FAMILIES[family]
    own = [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]
    return sorted({*own, *_foreign(family)})


def make(family: type[P], spec: str) -> P:
    """Return the plugin a specification describes, as in ``canny,low=100`` or ``folder:photos``.

    Raises:
        UserError: No such plugin or field, or a value that does not fit its field.
    """
    head, values = _split(spec)
    name, _, argument = head.partition(":")
    plugin = _load(family, name)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, plugin))}
    if argument:
        first = next(iter(fields), None)
        if first is None:
            raise UserError(f'{name} takes no argument, but "{argument}" was given')
        if first in values:
            raise UserError(f"{name}: {first} is given twice, as argument and as field")
        values = {first: argument, **values}
    for field in values:
        if field not in fields:
            raise UserError(f'{name} has no field "{field}"; {did_you_mean(field, fields)}')
    hints = get_type_hints(plugin)
    typed = {field: _convert(name, field, hints[field], text) for field, text in values.items()}
    absent = [f.name for f in fields.values() if f.name not in typed and _is_required(f)]
    if absent:
        raise UserError(f"{name} needs {absent[0]}: write {name}:{absent[0].upper()} or {name},{absent[0]}=...")
    return plugin(**typed)


def check_fits(condition: Condition, annotator: Annotator) -> None:
    """Refuse an annotator whose class ids cannot be those of a condition, or whose settings are not its own.

    Raises:
        UserError: It tells another number of classes apart, or a field that both have differs, as canny's thresholds.
    """
    mine, its = (describe(plugin) for plugin in (condition, annotator))
    differ = [name for name in mine.keys() & its.keys() - {"name"} if mine[name] != its[name]]
    if differ and annotator.condition == mine["name"]:
        named = ", ".join(sorted(differ))
        raise UserError(f"{full_spec(annotator)} and {full_spec(condition)} differ in {named}; give both the same")
    wanted, given = condition.num_classes, annotator.num_classes
    if given is not None and given != wanted:
        raise UserError(f"{spec(annotator)} tells {given} classes apart, but {spec(condition)} holds {wanted}")


def make_referee(asked: str | None, condition: Condition, source: str) -> Annotator:
    """Return the annotator that reads a condition back from images: the one asked for, else the condition's own.

    Args:
        asked: As written on the command line, or None.
        condition: What is read back.
        source: Name of the source of the data.

    Raises:
        UserError: It makes other maps or tells other classes apart, or the condition's own cannot read such images.
    """
    name = _name(type(condition))
    referee = make(Annotator, asked or condition.referee)
    if referee.condition != name:
        raise UserError(f"the referee {asked} makes {referee.condition} maps, but the condition is {name}")
    check_fits(condition, referee)
    if asked is None and referee.world not in (None, source):
        raise UserError(
            f"{spec(referee)} reads {name} off images of {referee.world} alone, not of {source}; give --referee, such "
            "as what annotated the data, or in training --probe-every 0"
        )
    return referee


def full_spec(plugin: Any) -> str:
    """Return a plugin as it is written on the command line, every field included."""
    name, *fields = describe(plugin).items()
    return ",".join([name[1], *(f"{field}={value}" for field, value in fields)])


def describe(plugin: Any) -> dict[str, Any]:
    """Return a plugin's name and every field's value: enough to make it again."""
    return {"name": _name(type(plugin)), **dataclasses.asdict(plugin)}


def spec(plugin: Any) -> str:
    """Return the shortest text that makes a plugin: its name, and the fields that differ from their defaults."""
    changed = [f for f in dataclasses.fields(plugin) if _is_required(f) or getattr(plugin, f.name) != f.default]
    return ",".join([_name(type(plugin)), *(f"{f.name}={_text(getattr(plugin, f.name))}" for f in changed)])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def remake(family: type[P], description: dict[str, Any]) -> P:
    """Return the plugin that `describe` described.

    Raises:
        UserError: No such plugin or field, or a value that is not of its field's type: the description is of elsewhere.
    """
    name = str(description.get("name"))
    plugin = _load(family, name)
    values = {key: value for key, value in description.items() if key != "name"}
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, plugin))}
    hints = get_type_hints(plugin)
    for field, value in values.items():
        if field not in fields:
            raise UserError(f'{name} has no field "{field}"; {did_you_mean(field, fields)}')
        if not _fits(value, hints[field]):
            raise UserError(f"{name}: {field}={value!r:.80} is of another type; make the description anew")
    absent = [f.name for f in fields.values() if f.name not in values and _is_required(f)]
    if absent:
        raise UserError(f"{name} needs {absent[0]}; make the description anew")
    return plugin(**values)


def _split(spec: str) -> tuple[str, dict[str, str]]:
    """Split at commas that begin a field, so that a path may hold commas."""
    head, *rest = re.split(r",(?=[a-z_][a-z0-9_]*=)", spec)
    values: dict[str, str] = {}
    for part in rest:
        field, _, text = part.partition("=")
        if field in values:
            raise UserError(f"{spec}: {field} is given twice")
        values[field] = text
    return head, values


def _load(family: type[P], name: str) -> type[P]:
    foreign = _foreign(family)
    if name in foreign:
        return typing.cast("type[P]", foreign[name].load())
    if name not in names(family):
        kind = FAMILIES[family].removesuffix("s")
        raise UserError(f'no {kind} "{name}"; {did_you_mean(name, names(family))}')
    module = importlib.import_module(_module(family, name))
    return typing.cast("type[P]", getattr(module, name.title().replace("_", "")))


def _module(family: type[Any], name: str) -> str:
    return f"benchmark.{FAMILIES[family]}.{name}"


def _name(plugin: type[Any]) -> str:
    """Return the name a plugin is known by: its entry point's in another package, else its file's."""
    where = f"{plugin.__module__}:{plugin.__qualname__}"
    foreign = (p for family in FAMILIES if issubclass(plugin, family) for p in _foreign(family).values())
    return next((point.name for point in foreign if point.value == where), plugin.__module__.rpartition(".")[2])


def _foreign(family: type[Any]) -> dict[str, EntryPoint]:
    return _entry_points(f"benchmark.{FAMILIES[family]}")


@cache  # a scan of all installed packages, which every plugin of every shard would pay for
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


_TOO_LARGE = 2**63
_CONVERTERS: dict[type[Any], Callable[[str], Any]] = {int: int, float: float, str: str}


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    kinds = _kinds(hint)
    return isinstance(value, kinds + (int,) * (float in kinds))


def _convert(name: str, field: str, hint: Any, text: str) -> Any:
    """Return a field's value from its text: int, float, str, bool, or any of them or None."""
    kind = next(k for k in _kinds(hint) if k is not type(None))
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f'{name}: {field}="{text}" is no truth value; allowed: true, false')
        return text == "true"
    try:
        value = _CONVERTERS[kind](text)
    except ValueError:
        value = math.inf
    if kind is not str and not abs(value) < _TOO_LARGE:  # nor NaN: a plan could not hold it
        raise UserError(f'{name}: {field}="{text}" is no {kind.__name__}') from None
    return value
