"""What the site has a page for besides each run: every dataset and every study with records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmark.base.files import canonical_json, sha256
from benchmark.contracts.records import Failure, Invalidated, Record
from benchmark.engine.board import Section, sections
from benchmark.engine.claims import Verdict
from benchmark.engine.studies import StudyFile
from benchmark.engine.trainings import identity_of, training_of


@dataclass(frozen=True)
class StudyPage:
    """A study with records.

    Attributes:
        file: What it says.
        sections: Its own runs alone, by comparability key.
        verdicts: On the claims it can decide, from all runs of the board.
    """

    file: StudyFile
    sections: list[Section]
    verdicts: list[Verdict]

    @property
    def page(self) -> str:
        """The file of its page."""
        return f"study-{self.file.name}.html"

    @property
    def ended(self) -> int:
        """How many of its trainings ended, those that diverged included; several that steer together are one each."""
        cells = [cell for section in self.sections for cell in section.cells]
        kept = [row.record for cell in cells for row in cell.rows] + [lost for cell in cells for lost in cell.diverged]
        trainings = [(training_of(one), one.method) for one in kept]
        parts = [(part, method) for whole, method in trainings for part in whole.get("parts", [whole])]
        return len({identity_of(part, method) for part, method in parts if part})

    @cached_property
    def ids(self) -> set[str]:
        """Its records, those set aside included."""
        rows = (row for section in self.sections for row in (*section.rows, *(aside.row for aside in section.aside)))
        return {row.record.evaluation_id for row in rows}


@dataclass(frozen=True)
class DatasetPage:
    """A dataset with records.

    Attributes:
        name: Not its own alone: one of another source built in another place may share it.
        plan_hash: Of all that decides its rows but their number.
        sections: All that was judged on it.
        studies: Those whose records these are.
    """

    name: str
    plan_hash: str
    sections: list[Section]
    studies: list[StudyPage]

    @property
    def page(self) -> str:
        """The file of its page; names come with records and are no file names."""
        return f"dataset-{sha256(canonical_json([self.name, self.plan_hash]))[:16]}.html"

    @property
    def command(self) -> str | None:
        """What builds it, as the first of its records that says so has it."""
        records = (row.record for section in self.sections for row in section.rows)
        return next((command for record in records if (command := record.environment.get("building"))), None)

    @property
    def conditions(self) -> list[str]:
        """What it was judged by."""
        return sorted({section.first.record.condition for section in self.sections})


def study_pages(
    files: Sequence[StudyFile],
    records: Mapping[Path, Record],
    failures: Sequence[Failure],
    invalidated: Mapping[str, Invalidated],
    verdicts: Sequence[Verdict],
) -> list[StudyPage]:
    """Return a page for each study that has records; a run that several studies share is on the page of each."""
    found = []
    for file in files:
        mine = {path: record for path, record in records.items() if file.holds(record)}
        if mine:
            board = sections(mine, list(filter(file.holds, failures)), invalidated)
            decides = [verdict for verdict in verdicts if file.name in (verdict.claim.study or "").split(", ")]
            found.append(StudyPage(file, board, decides))
    return found


def dataset_pages(board: Sequence[Section], studies: Sequence[StudyPage]) -> list[DatasetPage]:
    """Return a page for each dataset, in the order of the board."""
    groups: dict[tuple[str, str], list[Section]] = {}
    for section in board:
        groups.setdefault(_dataset(section), []).append(section)
    return [
        DatasetPage(*key, mine, [s for s in studies if any(_dataset(section) == key for section in s.sections)])
        for key, mine in groups.items()
    ]


def _dataset(section: Section) -> tuple[str, str]:
    dataset = section.first.record.dataset
    return str(dataset["name"]), str(dataset["plan_hash"])
