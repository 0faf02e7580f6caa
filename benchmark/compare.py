"""Say how far two records of the same samples lie apart: `python -m benchmark.compare RECORD_A RECORD_B`."""

from dataclasses import dataclass
from pathlib import Path

from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import difference
from benchmark.cli import main as cli_main
from benchmark.cli import option
from benchmark.contracts.records import Record, Score
from benchmark.numbers.pairing import LEVEL, POWER, Difference, paired


@dataclass(frozen=True)
class Compare:
    """Compare two records of the same conditions, captions and seeds, sample by sample; the error is over samples."""

    a: Path = option("a record made by benchmark.evaluate, a .json file", parse=Path, positional=True)
    b: Path = option("the record it is compared with", parse=Path, positional=True)


@dataclass(frozen=True)
class Compared:
    """One score of two records: A's, B's, and how far they lie apart."""

    a: Score
    b: Score
    difference: Difference

    @property
    def unranked(self) -> str | None:
        """Why the score of either must not be ranked, or None."""
        return self.a.unranked or self.b.unranked


def compare(form: Compare) -> list[Compared]:
    """Return every score that both records hold, A less B.

    Raises:
        UserError: Records that may not be compared, with what differs; or one whose samples were not kept.
    """
    from benchmark.engine.records import read_record, read_samples

    a, b = read_record(form.a), read_record(form.b)
    _check_comparable(form, a, b)
    pulls = read_samples(form.a, a), read_samples(form.b, b)
    if alone := sorted(a.measured.keys() ^ b.measured.keys()):
        say(f"left out, since one record lacks them: {', '.join(alone)}")
    both = [(score, b.measured[name]) for name, score in a.measured.items() if name in b.measured]
    return [
        Compared(one, other, paired(one.estimate - other.estimate, pulls[0][one.name], pulls[1][one.name]))
        for one, other in both
    ]


def _check_comparable(form: Compare, a: Record, b: Record) -> None:
    if a.comparability_key == b.comparability_key:
        return
    parts = [record.environment["comparability"] for record in (a, b)]
    raise UserError(f"{form.a} and {form.b} may not be compared, they differ in {difference(*parts)}")


def describe(found: list[Compared]) -> list[str]:
    """Return a line for each score; those that may be ranked are one family, held to 5 % together (Holm, 1979)."""
    from benchmark.engine.claims import holm

    adjusted = holm([None if each.unranked else each.difference.p for each in found])
    return [_line(each, p) for each, p in zip(found, adjusted, strict=True)]


def _line(each: Compared, p: float | None) -> str:
    found, digits = each.difference, max(each.a.digits, each.b.digits) + 1
    value, low, high = (f"{number:+.{digits}f}" for number in (found.value, found.low, found.high))
    told = f"{each.a.name:<28} {value} [{low}, {high}]  detectable {found.detectable:.{digits}f}  n = {found.n}"
    if p is None:
        return f"{told}  not ranked: {each.unranked}"
    better = "A" if (found.value > 0) == each.a.higher_is_better else "B"
    return f"{told}  p = {p:.2g}: {f'{better} is better' if p < LEVEL else 'not told apart'}"


def _run(form: Compare) -> int:
    found = compare(form)
    ranked = sum(each.unranked is None for each in found)
    say(f"A: {form.a}")
    say(f"B: {form.b}")
    say(
        f"A - B [95 % interval], the least difference that would be found with a probability of {POWER:.0%}, and p "
        f"raised for {ranked} scores (Holm); errors are over samples, not over training seeds"
    )
    for line in describe(found):
        say(line)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    example = "python -m benchmark.compare results/mine/seg/controlnet/1.json results/mine/seg/controlnet/2.json"
    return cli_main(Compare, _run, argv, example)


if __name__ == "__main__":
    raise SystemExit(main())
