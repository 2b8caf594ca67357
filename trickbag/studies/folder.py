"""What lies in a study's folder: the models of its JSON files, and its runs read back, none unverified."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from trickbag.ground import records, store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.records import Count, Record, Seconds, Share, Signed
from trickbag.recipe import Recipe
from trickbag.runs.folder import AGAIN, LOG, PREDICTIONS, RESULT, LogLine, Scored, predictions
from trickbag.scenes.table import Task
from trickbag.studies.arms import Arm, Question
from trickbag.studies.folds import JUDGES, Judging
from trickbag.studies.options import Options
from trickbag.tricks import parse

STUDY, LEDGER = "study.json", "ledger.jsonl"
CONTINUE = "Give the same trickbag study command again: it moves the file aside and keeps the finished runs."
Weight = Annotated[float, Field(ge=-1e6, le=1e6)]
Pair = Annotated[tuple[str, Weight], Field(strict=False)]
"""An arm and its weight; JSON has lists alone."""
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class ArmRecord(Record):
    """An arm in ``study.json``."""

    name: str
    role: str
    edits: str
    recipe: dict[str, Any]
    seed_offset: Count

    @field_validator("recipe")
    @classmethod
    def _can_be_built(cls, fields: dict[str, Any]) -> dict[str, Any]:
        _usable(lambda: Recipe.build(fields))
        return fields

    def arm(self) -> Arm:
        """The arm."""
        return Arm(self.name, self.role, self.edits, Recipe.build(self.recipe), self.seed_offset)


class QuestionRecord(Record):
    """A question in ``study.json``."""

    name: str
    kind: str
    says: str
    weights: Annotated[list[Pair], Field(min_length=1)]
    declared: bool
    aliases: list[str]

    @field_validator("weights")
    @classmethod
    def _sum_to_nothing(cls, weights: list[tuple[str, float]]) -> list[tuple[str, float]]:
        values = [weight for _, weight in weights]
        if not any(values) or abs(sum(values)) > 1e-9 * sum(map(abs, values)) or len(dict(weights)) < len(weights):
            raise ValueError("weights sum to 0, not all are 0, and an arm has one")
        return weights

    def question(self) -> Question:
        """The question."""
        return Question(self.name, self.kind, self.says, tuple(self.weights), self.declared, tuple(self.aliases))


class JudgingRecord(Record):
    """Who judges the runs; see ``trickbag.studies.folds.Judging``."""

    on: Literal["val", "test"]
    folds: Count
    proving: Count
    seed: Count
    val_share: Share

    @model_validator(mode="after")
    def _some_fold_judges(self) -> Self:
        if self.folds and not self.proving < self.folds - 1:
            raise ValueError("two folds at least judge")
        return self

    def judging(self) -> Judging:
        """As a value."""
        return Judging(self.on, self.folds, self.proving, self.seed, self.val_share)


class Counts(Record):
    """How many images, and groups of them where some share one, there are to judge."""

    pool: Count
    """That seeds judge, in turn or all at a time."""
    groups: Count
    """Of the pool."""
    each: Count
    """That the first seed judges."""
    test: Count
    proof: Count
    """That the proof reads: the test, and the folds that were kept for it."""


class CheckFinding(Record):
    """What ``trickbag check`` found."""

    severity: Literal["error", "warning", "note"]
    message: str
    suggestion: str


class FailureRecord(Record):
    """A run that the last execution could not finish."""

    arm: str
    seed: Count
    kind: Literal["error", "memory", "worker"]
    cause: str


class PriorRecord(Record):
    """What was expected of a trick; see ``trickbag.statistics.belief.Prior``."""

    mean: Weight
    variance: Annotated[float, Field(ge=0, le=1e6)]
    mean_variance: Annotated[float, Field(ge=0, le=1e6)]
    source: str


class DownstreamRecord(Record):
    """Detectors or segmenters on the bodies of the study's classifiers."""

    task: Task
    name: str
    """Of the data set."""
    request: Key
    """A hash of recipe, data and their division."""
    split: Literal["val", "test"]
    """That judges."""
    groups: Annotated[list[Count], Field(min_length=1)]
    """A number for each image that judges, the same for exact copies."""
    keys: dict[Key, Key]
    """Run -> training: one for all runs of a seed with the same body."""


class StudyRecord(Signed):
    """The content of ``study.json``: what was decided before the runs, and the data set's facts that the report needs."""

    request: str
    name: str
    options: Options
    fingerprint: str
    design: str
    weakness: str
    not_run: list[str]
    aliases: list[list[str]]
    tricks: list[str]
    vary: dict[str, list[Any]]
    arms: Annotated[list[ArmRecord], Field(min_length=1)]
    questions: list[QuestionRecord]
    seeds: Annotated[list[Count], Field(min_length=1)]
    looks: dict[Annotated[str, Field(pattern=r"^[1-9]\d{0,3}$")], Annotated[float, Field(gt=0, lt=1)]]
    stopped: dict[str, Count]
    keys: dict[str, Key]
    proving: bool
    """Whether the best candidate is put to the proof."""
    proof_seeds: list[Count]
    nominees: list[ArmRecord]
    """Recipes that were put to the proof, in this order."""
    priors: dict[str, PriorRecord]
    """What was expected of tricks before this study."""
    classes: Annotated[list[str], Field(min_length=1)]
    class_counts: list[Count]
    trained: list[Count]
    judging: JudgingRecord
    images: Count
    """Of the listing."""
    counts: Counts
    groups: list[Count]
    """A number for each image of the listing, the same for images of one group; nothing where every image stands for itself."""
    check: list[CheckFinding]
    plan: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    """The hash of what was decided at first."""
    decided: dict[str, str]
    departures: list[str]
    environment: dict[str, str]
    failures: list[FailureRecord]
    command: str
    data: str
    downstream: list[DownstreamRecord] = []

    @field_validator("tricks")
    @classmethod
    def _can_be_parsed(cls, tricks: list[str]) -> list[str]:
        _usable(lambda: [parse(text) for text in tricks])
        return tricks

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        classes = len(self.classes)
        alike = {
            "arms: names": len({arm.name for arm in self.arms}) == len(self.arms),
            "seeds": len(set(self.seeds)) == len(self.seeds),
            "class_counts": len(self.class_counts) == classes,
            "trained": len(self.trained) == classes,
            "counts": 0 < self.counts.each <= self.counts.pool <= self.images and self.counts.groups <= self.counts.pool,
            "groups": len(self.groups) in (0, self.images),
            "looks": not self.looks or max(map(int, self.looks)) == len(self.seeds),
        }  # fmt: skip
        if wrong := [name for name, right in alike.items() if not right]:
            raise ValueError(f"{wrong[0]} does not fit the rest")
        return self

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The record in a study's folder. Raises TrickbagError where it is damaged."""
        return records.read(folder / STUDY, cls, CONTINUE)


class RunOfStudy(Record):
    """The content of ``runs/KEY/result.json``: of a run that ended well, or of one that diverged."""

    key: str
    seed: Count
    diverged: str | None = None
    counts_with: Share | None = None
    rows: list[Count] | None = None
    """Of a run that diverged: which images would have judged it."""
    scores: Scored | None = None
    seconds: Seconds | None = None
    training_seconds: Seconds | None = None
    images_per_second: Seconds | None = None
    epochs: Count | None = None
    kept_epoch: Count | None = None
    recipe_key: str | None = None
    training: str | None = None
    steps: Count | None = None
    first_step: Count | None = None
    memory_bytes: Count | None = None
    model_bytes: Count | None = None
    latency: Seconds | None = None
    alone: bool | None = None
    weights: str | None = None
    environment: dict[str, str | int | None] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = {name for name, value in self if value is not None}
        lost = {"diverged", "counts_with", "rows"}
        needed = lost if given & lost else set(type(self).model_fields) - lost
        if lacking := sorted(needed - given):
            raise ValueError(f"{lacking[0]} is missing")
        if self.rows is not None and not self.rows:
            raise ValueError("no image judges it")
        return self


class LedgerLine(Record):
    """A line of ``ledger.jsonl``."""

    event: Literal["began", "ended", "failed", "stopped", "lost"]
    job: str
    arms: list[str]
    seed: Count
    time: Seconds
    host: str
    carrier: str
    reached: str
    kind: str = ""
    cause: str = ""


def stored(folder: Path) -> dict[str, Any]:
    """``result.json`` of a run in a study's folder, whose every file is as it was written and fits the others.

    Raises TrickbagError where one is damaged, or the folder is another run's.
    """
    try:
        known = (folder / PREDICTIONS).exists()
        if reason := store.verify(folder, RESULT, "recipe.toml", *((PREDICTIONS, LOG) if known else ())):
            raise TrickbagError(f"{folder} is damaged: {reason}.")
        record = records.read(folder / RESULT, RunOfStudy, AGAIN)
        if record.key != folder.name:
            raise TrickbagError(f"{folder} is damaged: it holds the run {record.key}.")
        if record.scores:
            found, judged = predictions(folder / PREDICTIONS, JUDGES, len(record.scores.per_class.count)), record.scores.n
            if len(found.labels) != judged:
                raise TrickbagError(f"{folder / PREDICTIONS} is damaged: it has {len(found.labels)} images, not {judged}.")
            store.lines(folder / LOG, LogLine)
    except OSError as error:
        raise TrickbagError(f"{folder} cannot be read: {error.strerror or error}.") from None
    return record.plain()


def _usable(build: Any) -> None:
    """Turn what recipes and tricks say of a mistake into what a model says of it."""
    try:
        build()
    except UsageError as error:
        raise ValueError(str(error)) from None
