"""The command line: a form in, the same form out; mistakes are one line and exit code 2."""

import argparse
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from benchmark import cli
from benchmark.base.errors import UserError
from benchmark.base.seeds import SEED_NAMES
from benchmark.build import Build
from benchmark.cli import command_line, fill, non_negative, option, parse_size, positive, rate, share, weight
from benchmark.evaluate import Evaluate
from benchmark.generate import Generate
from benchmark.train import Train, named_seeds

_FORMS: list[type[Any]] = [Build, Train, Generate, Evaluate]


@dataclass(frozen=True)
class Toy:
    """Do nothing, in many ways."""

    what: str = option("what to do")
    share: float = option("a share", 0.5, float)
    steps: int = option("a number", 7, int)
    size: int = option("a size", 1000, parse_size)
    seed: int = option("a seed", 0, int)
    place: Path | None = option("a path", None, Path)
    cond: tuple[str, ...] = option("may be given again", ())
    dry_run: bool = option("a flag", False)


@dataclass(frozen=True)
class Named:
    """Do something to NAME."""

    name: str | None = option("which", None, positional=True)
    part: tuple[int, ...] = option("may be given again", (1, 2), int)


@dataclass(frozen=True)
class Percent:
    """Do a part."""

    share: str = option("as in 1% of the shards", "1%")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500", 500),
        ("10k", 10_000),
        ("10K", 10_000),
        ("1m", 1_000_000),
        ("tiny", 1_000),
        ("small", 10_000),
        ("large", 1_048_576),
    ],
)
def test_sizes_are_numbers_units_or_names(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "0", "0k", "-1", "1.5k", "10 k", "1g", "huge", "1kk", "1e3"])
def test_what_is_no_size_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no size; write 500, 10k, 1m, tiny, small, large"):
        parse_size(text)


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (positive, {"1": 1, "12": 12}, ["0", "-1", "1.5", "", "x"]),
        (non_negative, {"0": 0, "3": 3}, ["-1", "1.0", "nan"]),
        (rate, {"1e-5": 1e-5, "2": 2.0}, ["0", "-1", "nan", "inf", "x"]),
        (weight, {"0": 0.0, "0.5": 0.5}, ["-0.1", "nan", "inf", ""]),
        (share, {"0": 0.0, "1": 1.0, "0.01": 0.01, "1%": 0.01, "100%": 1.0}, ["1.01", "101%", "-1%", "nan", "%"]),
    ],
)
def test_numbers_are_kept_in_their_range(parse: Callable[[str], float], good: dict[str, float], bad: list[str]) -> None:
    assert {text: parse(text) for text in good} == pytest.approx(good)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)


def test_defaults_are_those_of_the_form() -> None:
    assert fill(Toy, ["--what", "x"]) == Toy("x")
    assert fill(Build, []) == Build()


def test_a_repeated_option_that_is_not_given_keeps_its_default() -> None:
    assert fill(Named, []) == Named(None, (1, 2))
    assert fill(Named, ["--part", "5"]) == Named(None, (5,))


def test_values_are_parsed_as_their_options_say() -> None:
    words = "--what x --share 0.25 --steps 3 --size 2k --seed 9 --place a/b --cond seg --cond canny,low=1 --dry-run"
    assert fill(Toy, words.split()) == Toy("x", 0.25, 3, 2000, 9, Path("a/b"), ("seg", "canny,low=1"), True)


def test_one_seed_sets_all_five_and_each_can_be_set_alone() -> None:
    assert set(named_seeds(Train(dataset=Path("d"), seed=3)).values()) == {3}
    words = ["--dataset", "d", "--seed", "3"]
    alone = {name: named_seeds(fill(Train, [*words, f"--{name}-seed", "0"])) for name in SEED_NAMES}
    assert all(seeds == dict.fromkeys(SEED_NAMES, 3) | {name: 0} for name, seeds in alone.items())


def test_a_positional_argument_is_the_name() -> None:
    assert fill(Named, ["ade20k"]).name == "ade20k"


@pytest.mark.parametrize(
    "form",
    [
        Toy("x"),
        Toy("with 'quotes' and $HOME; rm -rf *", place=Path("a folder/b"), cond=("folder:a b,c", "seg"), dry_run=True),
        Toy("x", share=0.1, steps=-3, size=12_345),
        Toy("x", share=0.0),
        Toy("x", steps=0),
        Toy("x", seed=3),
        Named("ade20k", (4, 5)),
        Named(),
        Build(cond=("seg", "canny,low=1"), size=7, out=Path("x"), workers=3, recompute=0.5, dry_run=True),
        Train(dataset=Path("d"), steps=5, learning_rate=1e-5, num_samples=10_000, replicate=2, seed=3, out=Path("r")),
        Train(dataset=Path("d"), weight_decay=0.0),
        Train(dataset=Path("d"), empty_prompt_rate=0.0),
        Generate(dataset=Path("d"), run=(Path("r"), Path("s")), limit=4, guidance_scale=1.0, device="cpu"),
        Generate(dataset=Path("d"), conditioning_scale=0.0),
        Evaluate(images=Path("i"), metric=("fd", "clip_score"), referee="canny,low=1"),
    ],
)
def test_the_recorded_command_line_fills_the_same_form(form: Any) -> None:
    words = shlex.split(command_line(form))
    assert words[:3] == ["python", "-m", f"benchmark.{type(form).__name__.lower()}"]
    assert fill(type(form), words[3:]) == form


def test_defaults_are_left_out_of_the_command_line() -> None:
    assert command_line(Toy("x")) == "python -m benchmark.toy --what x"
    assert command_line(Toy("a b", cond=("p", "q"))) == "python -m benchmark.toy --what 'a b' --cond p --cond q"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--what", "x", "--sare", "1"], 'unknown option --sare; did you mean "--share"? allowed: --cond, '),
        (["--what", "x", "--stepps=1"], 'did you mean "--steps"?'),
        (["--what", "x", "more"], "unknown option more"),
        ([], "the following arguments are required: --what"),
        (["--what"], "--what: expected one argument"),
        (["--what", "x", "--steps", "many"], "--steps: invalid int value: 'many'"),
        (["--what", "x", "--size", "huge"], '"huge" is no size; write 500, 10k, 1m'),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(Toy, lambda form: 0, argv, "") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("toy: ")
    assert words in err
    assert err.count("\n") == 1
    assert err.endswith("\n")


def test_an_error_while_working_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def run(form: Toy) -> int:
        raise UserError("the folder\n  is empty")

    assert cli.main(Toy, run, ["--what", "x"], "") == 2
    assert capsys.readouterr().err == "toy: the folder is empty\n"


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def run(form: Toy) -> int:
        raise KeyboardInterrupt

    assert cli.main(Toy, run, ["--what", "x"], "") == 130
    assert capsys.readouterr().err == "toy: interrupted; run the same command again to go on\n"


def test_our_own_mistakes_are_not_hidden() -> None:
    def run(form: Toy) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.main(Toy, run, ["--what", "x"], "")


def test_the_exit_code_is_that_of_the_command() -> None:
    assert cli.main(Toy, lambda form: form.steps, ["--what", "x", "--steps", "1"], "") == 1


def test_help_tells_every_option_its_default_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(Toy, lambda form: 0, ["--help"], "python -m benchmark.toy --what x")
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert "Do nothing, in many ways." in out
    assert out.count("(default: ") == 4
    assert "example: python -m benchmark.toy --what x" in out
    assert all(f"--{field.name.replace('_', '-')}" in out for field in fields(Toy))


def test_help_shows_a_percent_sign(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(Percent, lambda form: 0, ["--help"], "")
    assert "1% of the shards" in capsys.readouterr().out


@pytest.mark.parametrize("form", _FORMS)
def test_every_option_of_a_command_has_a_text(form: type[Any]) -> None:
    assert all(len(field.metadata["help"]) > 5 for field in fields(form))
