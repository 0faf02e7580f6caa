"""What every command shares: a dataclass is its form, each field an option; errors are one line and exit code 2."""

import argparse
import dataclasses
import errno
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from benchmark.base.console import plain
from benchmark.base.errors import UserError, did_you_mean

F = TypeVar("F")
SIZES = {"tiny": 1_000, "small": 10_000, "large": 1_048_576}
_GO_ON = "then run the same command again to go on"
# What to do about refusals of the machine; any other error of the system is a mistake of ours.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"make room, {_GO_ON}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), f"give a place you may write to, or free it, {_GO_ON}"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP), "give another path"),
    errno.EIO: f"the disk does not answer; mend it, {_GO_ON}",
}
_LARGEST = 10**9
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def option(
    text: str, default: Any = dataclasses.MISSING, parse: Callable[[str], Any] = str, *, positional: bool = False
) -> Any:
    """Return a dataclass field that is an option: tuple defaults repeat, False is a flag, no default is required."""
    metadata = {"help": text, "parse": parse, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def parse_size(text: str) -> int:
    """Return a number of samples from ``500``, ``10k``, ``1m``, ``tiny``, ``small`` or ``large``."""
    match = re.fullmatch(r"([0-9]{1,18})([km]?)", text.lower())
    size = int(match[1]) * _UNITS[match[2]] if match else SIZES.get(text, 0)
    if not 1 <= size <= _LARGEST:
        raise argparse.ArgumentTypeError(f'"{text}" is no size; write 500, 10k, 1m, {", ".join(SIZES)}')
    return size


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    return _whole(text, 1)


def non_negative(text: str) -> int:
    """Return a whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number of at least {least} and at most 18 digits')
    return int(text)


def rate(text: str) -> float:
    """Return a finite number above 0."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not above 0')
    return value


def weight(text: str) -> float:
    """Return a finite number of at least 0."""
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f'"{text}" is below 0')
    return value


def share(text: str) -> float:
    """Return a share from 0 to 1, written as ``0.01`` or ``1%``."""
    value = _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no share; write 0 to 1, or 0% to 100%')
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'"{text}" is no number')
    return value


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


# What options that were given preset for those that were not, as text: by name, a list where one may be given again.
Preset = Callable[[dict[str, Any]], Mapping[str, str | list[str]]]


def main(
    form: type[F], run: Callable[[F], int], argv: list[str] | None, example: str, preset: Preset | None = None
) -> int:
    """Fill the form from the command line, run the command, and turn a user's error into one line and exit code 2."""
    name = form.__name__.lower()
    try:
        return run(fill(form, sys.argv[1:] if argv is None else argv, example, preset))
    except UserError as error:
        print(plain(f"{name}: {' '.join(str(error).split())}"), file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f" at {error.filename}" if error.filename else ""
        print(plain(f"{name}: {error.strerror}{where}; {_REMEDIES[error.errno]}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def fill(form: type[F], argv: list[str], example: str = "", preset: Preset | None = None) -> F:
    """Return the form filled from arguments, else from what they preset, else from defaults.

    Raises:
        UserError: An unknown option, a missing or an impossible value.
    """
    prog = f"python -m benchmark.{form.__name__.lower()}"
    wide = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog=prog, description=form.__doc__, epilog=f"example: {example}", formatter_class=wide)
    for field in dataclasses.fields(form):  # type: ignore[arg-type]
        _add(parser, field)
    known = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(form)} | {"--help"}  # type: ignore[arg-type]
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UserError(f"unknown option {unknown[0]}; {did_you_mean(unknown[0], known)}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in vars(values).items()}
    given = {key: value for key, value in given.items() if value is not None}
    return form(**{**typed(form, preset(given) if preset else {}), **given})


def typed(form: type[Any], texts: Mapping[str, str | list[str]]) -> dict[str, Any]:
    """Return the values of options given as text, by name.

    Raises:
        UserError: An option the form lacks, or a value that is none of it.
    """
    options = {field.name: field for field in dataclasses.fields(form)}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in options:
            raise UserError(f'no option "{name}"; {did_you_mean(name, options)}')
        parse = options[name].metadata["parse"]
        try:
            values[name] = tuple(map(parse, text)) if isinstance(text, list) else parse(text)
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            raise UserError(f"the option {name}: {error}") from None
        if isinstance(text, list) != isinstance(options[name].default, tuple):
            raise UserError(f"the option {name} has to be {'one value' if isinstance(text, list) else 'a list'}")
    return values


def _add(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]") -> None:
    meta, default = field.metadata, field.default
    required = default is dataclasses.MISSING
    note = "" if required or _is_absent(default) else f" (default: {default})"
    text = (meta["help"] + note).replace("%", "%%")
    if meta["positional"]:
        parser.add_argument(field.name, nargs=None if required else "?", help=text, type=meta["parse"])
        return
    name = f"--{field.name.replace('_', '-')}"
    if default is False:
        parser.add_argument(name, action="store_true", default=None, help=text)
    elif isinstance(default, tuple):
        parser.add_argument(name, action="append", help=text, type=meta["parse"], metavar="X")
    else:
        parser.add_argument(name, required=required, help=text, type=meta["parse"], metavar="X")


def _is_absent(value: Any) -> bool:
    """Whether a value stands for an option that was not given; zero is a value."""
    return value is None or value is False or value == ()


def command_line(form: Any, presets: Mapping[str, Any] | None = None) -> str:
    """Return the shell command that fills a form like this one, where values that options preset need not be said."""
    words = ["python", "-m", f"benchmark.{type(form).__name__.lower()}"]
    for field in dataclasses.fields(form):
        value, name = getattr(form, field.name), f"--{field.name.replace('_', '-')}"
        if _is_absent(value) or value == (presets or {}).get(field.name, field.default):
            continue
        if field.metadata["positional"]:
            words.append(str(value))
        elif value is True:
            words.append(name)
        else:
            for item in value if isinstance(value, tuple) else (value,):
                words += [name, str(item)]
    return shlex.join(words)
