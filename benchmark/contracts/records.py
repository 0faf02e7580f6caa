"""The schemas of what is kept: a score, and the result record that carries everything needed to trust it."""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Open(BaseModel):
    """What must be there of a table that holds more."""

    model_config = ConfigDict(extra="allow", strict=True)


class Named(_Open):
    """Whatever has a name: a plugin's description, a dataset."""

    name: str


class _Planned(Named):
    plan_hash: str


class _Samples(_Planned):
    n: int


class _Prompted(_Open):
    prompts: str


class _Spelt(_Open):
    spec: str


class _Commanded(_Open):
    command: str


class _Recipe(_Open):
    steps: PositiveInt
    batch: PositiveInt
    seeds: dict[str, int]


class Training(_Open):
    """What a board reads of a training."""

    recipe: _Recipe
    num_samples: PositiveInt
    corrupt: list[str] = []


class _Built(Named):
    path: str
    fingerprint: str


class _TrainedOn(_Planned):
    path: str


class _Keys(_Open):
    n: PositiveInt
    sha256: str


class _Base(Named):
    weights_sha256: str


class Work(_Open):
    """What the record of a folder of work holds, whatever the work."""

    config: dict[str, Any]
    provenance: dict[str, Any]
    status: str


class Imaging(_Open):
    """What is read of how images were made."""

    dataset: _Built
    split: str
    samples: _Keys
    prompts: str
    sampling: dict[str, Any]
    base: _Base
    condition: Named | list[Named] | None
    control: Named | None


class Trained(Training):
    """What is read of how a run was trained, by those who draw with it."""

    dataset: _TrainedOn
    pairs_sha256: str
    condition: Named
    method: Named
    base: str


def _check_training(training: dict[str, Any]) -> None:
    for part in training.get("parts", [training]):
        Training.model_validate(part)


Id = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z_.-]*$")]  # it names files and is part of links


class Score(_Frozen):
    """One reported number.

    Attributes:
        name: As in ``fd-scenes`` or ``seg.miou``.
        value: The plug-in estimate on all n observations.
        estimate: What to report: bias-corrected where the statistic is biased, else the value.
        stderr: Standard error of the estimate over images (not over training seeds).
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        n: Generated images behind the number.
        unranked: Why the number must not be ranked, or None.
        influence: By how much each sample moves the estimate, times n, in the order of the keys; its standard deviation
            over sqrt(n) is `stderr`. Kept beside a record, not in it: empty in a score that was read from one.
    """

    name: str
    value: float
    estimate: float
    stderr: float
    low: float
    high: float
    n: int
    higher_is_better: bool
    definition: dict[str, Any]
    unranked: str | None = None
    influence: tuple[float, ...] = Field(default=(), exclude=True, repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        *,
        value: float,
        estimate: float,
        stderr: float,
        n: int,
        higher_is_better: bool,
        definition: dict[str, Any],
        unranked: str | None = None,
        influence: Sequence[float] = (),
    ) -> Self:
        """Return a score with the normal 95 % interval around its estimate."""
        return cls(
            name=name,
            value=value,
            estimate=estimate,
            stderr=stderr,
            low=estimate - 1.96 * stderr,
            high=estimate + 1.96 * stderr,
            n=n,
            higher_is_better=higher_is_better,
            definition=definition,
            unranked=unranked,
            influence=tuple(influence),
        )

    @property
    def digits(self) -> int:
        """Decimals to print it with: three, or two digits of its interval where that is narrower."""
        half = (self.high - self.low) / 2
        return 3 if half >= 1e-3 or half == 0 else math.ceil(-math.log10(half)) + 1

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval of score {self.name} ends before it begins")
        return self


class Anchored(_Frozen):
    """One condition score of a run beside the four scores that give it meaning.

    Attributes:
        run: The images under test.
        real: The real images, annotated again.
        vae: The real images after the autoencoder's round trip: what a latent model can reach.
        no_control: The base model alone, same prompts and noise.
        shuffled: The images under test, scored against other samples' maps.
        normalised: (run - no_control) / (vae - no_control); None where the ceiling does not lie above the floor.
        gain: By how much its own map fits an image better than another's, `run` against `shuffled`: 0 is a condition
            that is ignored. None in records made before it was.
    """

    run: Score
    real: Score
    vae: Score
    no_control: Score
    shuffled: Score
    normalised: Score | None
    gain: Score | None = None


class Counts(_Frozen):
    """Images asked for, made and failed: nothing is dropped in silence."""

    requested: int
    generated: int
    failed: int


class Failure(_Frozen):
    """A training that ended without weights to judge; it stays on the board as part of a failure rate.

    Attributes:
        prompts: The settings its images were to be drawn with; empty where nobody said, which stands for all.
    """

    schema_version: Literal[1] = 1
    failure_id: Id
    created: str
    dataset: dict[str, Any]
    condition: str
    method: str
    base: str
    training: dict[str, Any]
    prompts: tuple[str, ...] = ()
    reason: str
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _holds_what_is_read(self) -> Self:
        _Planned.model_validate(self.dataset)
        _check_training(self.training)
        return self


class Invalidated(_Frozen):
    """That a record or a failure counts no more, and why; it stays on the board, struck out.

    Attributes:
        id: The evaluation id of the record, or the id of the failure.
        by: Who says so.
        why: In one sentence.
    """

    id: str
    by: str
    why: str

    @property
    def text(self) -> str:
        """The reason with who gave it."""
        return f"{self.why} ({self.by})"


class Record(_Frozen):
    """One evaluation of one run: immutable, self-describing, enough to make the board from.

    Attributes:
        attached: The sha256 of the files beside it, by the ending of their names: pictures, samples, training curve.
    """

    schema_version: Literal[1] = 1
    evaluation_id: Id
    comparability_key: str
    created: str
    dataset: dict[str, Any]
    condition: str
    headline: str
    method: str
    base: str
    training: dict[str, Any] | None
    generation: dict[str, Any]
    referee: dict[str, Any]
    reconstruction: dict[str, Anchored]
    scores: tuple[Score, ...]
    floor_scores: tuple[Score, ...]
    counts: Counts
    environment: dict[str, Any]
    attached: dict[str, str] = {}

    @property
    def measured(self) -> dict[str, Score]:
        """The scores that what steered can change, by name; the other anchors are alike in comparable records."""
        found = [(each.run, each.normalised, each.gain) for each in self.reconstruction.values()]
        return {score.name: score for score in (*itertools.chain(*found), *self.scores) if score is not None}

    @model_validator(mode="after")
    def _holds_what_is_read(self) -> Self:
        if self.headline not in self.reconstruction:
            raise ValueError(f"no score of its headline {self.headline}")
        if [score.name for score in self.scores] != [score.name for score in self.floor_scores]:
            raise ValueError("scores and floor_scores are not of the same names")
        if len({score.name for score in self.scores}) < len(self.scores):
            raise ValueError("two scores of one name")
        _Samples.model_validate(self.dataset)
        _Prompted.model_validate(self.generation)
        _Spelt.model_validate(self.referee)
        _Commanded.model_validate(self.environment)
        _check_training(self.training) if self.training else None
        return self
