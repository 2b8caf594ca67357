"""What a study's folder holds: what was decided, and of every finished run what the statistics need."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trickbag import plugins
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.spec import spell
from trickbag.ground.text import show
from trickbag.recipe import Recipe
from trickbag.runs.folder import LOG, PREDICTIONS, UNREADABLE, LogLine, kept_table, predictions
from trickbag.statistics.belief import Prior
from trickbag.statistics.calibration import cross_calibrated, normalised
from trickbag.studies.arms import Arm, Question
from trickbag.studies.folder import STUDY, StudyRecord, stored
from trickbag.studies.folds import JUDGES, Judging, Role
from trickbag.studies.jobs import Cell
from trickbag.studies.worker import Place

BINS = 15
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """One run on the judged images, N of them."""

    rows: Ints
    """[N] which images, by their places in the listing of the data set."""
    correct: Floats
    """[N] 0 or 1; of a run that diverged, the accuracy that it counts with."""
    nll: Floats
    """[N] nats."""
    calibrated: Floats
    """[N] nats, at a temperature that other judged images of the run chose."""
    predicted: NDArray[np.int64]
    """[N] classes; empty for a run that diverged."""
    labels: Ints
    """[N]; empty for a run that diverged."""
    recalls: Floats
    """[K]; NaN for a class without images."""
    bins: Floats
    """[BINS, 3] sums of confidence, correctness and images by confidence."""
    bins_calibrated: Floats
    """The same at the temperatures of ``calibrated``."""
    own: dict[str, Floats] = field(default_factory=dict)
    """[N] by each of one's own metrics, as they are; nothing of a run that diverged, or where a metric fails."""


@dataclass(frozen=True)
class Study:
    """A study's folder, read back; a run that is damaged counts as one that was not made yet."""

    place: Place
    held: StudyRecord
    damaged: dict[str, str] = field(default_factory=dict, compare=False)
    """Why a run, by its key, was passed over so far."""
    found: dict[str, dict[str, Any] | None] = field(default_factory=dict, compare=False, repr=False)
    """What was read so far: each run once."""

    @classmethod
    def load(cls, folder: str | Path) -> "Study":
        """The study in a folder. Raises UsageError where there is none, TrickbagError where ``study.json`` is damaged."""
        if not os.path.isfile(Path(folder) / STUDY):
            raise UsageError(f"{folder} holds no study: there is no {STUDY}. Give the folder that trickbag study wrote.")
        return cls(Place(Path(folder)), StudyRecord.load(Path(folder)))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of ``study.json`` as plain values."""
        return self.held.plain()

    @cached_property
    def nominees(self) -> list[str]:
        """The keys of the recipes that were put to the proof, in turn."""
        return [record.arm().recipe.key for record in self.held.nominees]

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms, the reference first."""
        return tuple(arm.arm() for arm in self.held.arms)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What the arms answer."""
        return tuple(question.question() for question in self.held.questions)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, or the numbers of the folds."""
        return tuple(self.facts["seeds"])

    @property
    def judging(self) -> Judging:
        """Who judges the runs."""
        return self.held.judging.judging()

    def row(self, arm: Arm) -> list[Cell | None]:
        """An arm's runs, one per seed; None for those that were left out since a look had decided the arm."""
        last = self.facts["stopped"].get(arm.name, len(self.seeds))
        return [self.cell(arm, turn) if turn < last else None for turn in range(len(self.seeds))]

    def proofs(self, arm: Arm) -> list[Cell]:
        """An arm's runs with the proof's seeds."""
        return [self.cell(arm, turn, "proof") for turn in range(len(self.facts["proof_seeds"]))]

    @property
    def priors(self) -> dict[str, Prior]:
        """What was expected of tricks before this study."""
        return {name: Prior(**fields) for name, fields in self.facts["priors"].items()}

    @property
    def looks(self) -> dict[int, float]:
        """The planned looks: after how many seeds, and what each spends; none where no arm ends early."""
        return {int(seeds): spent for seeds, spent in self.facts["looks"].items()}

    def cell(self, arm: Arm, turn: int, role: Role = "study") -> Cell:
        """The run of an arm with the seed of a turn."""
        own = self.facts["seeds" if role == "study" else "proof_seeds"][turn] + arm.seed_offset
        # Keys are looked up: a report must not depend on files of weights that may have moved since.
        key = self.facts["keys"].get(entry(arm.recipe, self.judging.name(turn, role), own), "unknown")
        return Cell(arm.name, arm.recipe, own, key, turn, role)

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What ``result.json`` of a run says; None where it is not finished, or damaged."""
        if cell.key not in self.found:
            try:
                self.found[cell.key] = stored(self.place.run(cell.key)) if self.place.done(cell) else None
            except TrickbagError as error:
                self.found[cell.key], self.damaged[cell.key] = None, str(error)
        return self.found[cell.key]

    def log(self, cell: Cell) -> list[dict[str, Any]]:
        """The epochs of a run; none where it is not finished, or damaged."""
        return store.lines(self.place.run(cell.key) / LOG, LogLine) if self.result(cell) else []

    def judged(self, cell: Cell) -> Judged | None:
        """The run on the images that judge it; None where it is not finished, or damaged."""
        result, classes = self.result(cell), len(self.held.classes)
        if result is None:
            return None
        if "counts_with" in result:
            return diverged(result["counts_with"], np.array(result["rows"], dtype=np.int64), classes)
        try:
            found = predictions(self.place.run(cell.key) / PREDICTIONS, JUDGES, classes)
            if found.rows.max() >= self.held.images:
                raise TrickbagError(f"{cell.key} was judged on images that the study does not have.")
        except TrickbagError as error:
            self.found[cell.key], self.damaged[cell.key] = None, str(error)
            return None
        return judge(found.logits.astype(np.float64), found.labels, found.rows, self.groups[found.rows])

    @staticmethod
    def named(path: str, value: Any) -> str:
        """The name of the question about a field at a value, as a design gives it."""
        return f"{path}={value if isinstance(value, str) else spell(value)}"

    def name(self, row: int) -> str:
        """The path of an image, for people."""
        return show(self.paths[row]) if row < len(self.paths) else f"image {row + 1}"

    @cached_property
    def paths(self) -> list[str]:
        """Of all images, in the order of the listing; nothing where they are no longer known."""
        try:
            return [*kept_table(self.place.folder)]
        except UNREADABLE:
            return []

    @cached_property
    def groups(self) -> Ints:
        """A number for each image of the listing, the same for images of one group."""
        shared = self.facts["groups"]
        return np.array(shared) if shared else np.arange(self.held.images)


def entry(recipe: Recipe, judges: str, seed: int) -> str:
    """Under what ``study.json`` holds the key of a run; ``judges``: see ``Judging.name``."""
    return f"{recipe.key} {judges} {seed}"


def diverged(accuracy: float, rows: Ints, classes: int) -> Judged:
    """What a run that diverged counts with: its last valid accuracy, and the NLL of a guess."""
    empty, unknown = np.zeros((BINS, 3)), np.full(len(rows), np.log(classes))
    nobody = np.zeros(0, np.int64)
    return Judged(rows, np.full(len(rows), accuracy), unknown, unknown, nobody, nobody, np.full(classes, np.nan), empty, empty)


def judge(logits: Floats, labels: Ints, rows: Ints, groups: Ints) -> Judged:
    """Logits [N, K], labels, rows and groups [N] -> what the statistics need.

    >>> judge(np.array([[2.0, 0.0], [2.0, 0.0]]), np.array([0, 1]), np.arange(2), np.arange(2)).correct.tolist()
    [1.0, 0.0]
    """
    log_p = normalised(logits)
    predicted = log_p.argmax(1)
    correct = (predicted == labels).astype(np.float64)
    counts = np.bincount(labels, minlength=logits.shape[1])
    with np.errstate(invalid="ignore"):
        recalls = np.bincount(labels, correct, logits.shape[1]) / counts
    own = np.arange(len(labels)), labels
    cooled = cross_calibrated(logits, labels, groups)
    bins = binned(log_p, correct), binned(cooled, correct)
    said = {name: metric.of(labels, np.exp(log_p)) for name, metric in plugins.metrics().items() if metric.each}
    known = {name: values for name, values in said.items() if values is not None}
    return Judged(rows, correct, -log_p[own], -cooled[own], predicted, labels, recalls, *bins, known)


def binned(log_p: Floats, correct: Floats) -> Floats:
    """Log-probabilities [N, K] and correctness [N] -> [BINS, 3] sums of confidence, correctness and images."""
    confidence = np.exp(log_p.max(1))
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return np.stack([np.bincount(place, values, BINS) for values in (confidence, correct, np.ones_like(correct))], axis=1)


def ece(bins: Floats) -> float | None:
    """The calibration error of bins: the mean gap between confidence and accuracy (Naeini et al., AAAI 2015).

    >>> ece(np.array([[0.9, 1.0, 1.0], [1.8, 1.0, 2.0]])) == (0.1 + 0.8) / 3
    True
    """
    images = bins[:, 2].sum()
    return float(np.abs(bins[:, 0] - bins[:, 1]).sum() / images) if images else None


def idle(runs: Mapping[str, Sequence[Judged | None]]) -> bool:
    """Whether the seed changes no prediction of any arm, two runs of one arm at least judging the same images to tell."""
    rows = [[judged for judged in row if judged] for row in runs.values()]
    pairs = [(row[0], other) for row in rows for other in row[1:]]
    return bool(pairs) and all(np.array_equal(a.rows, b.rows) and np.array_equal(a.nll, b.nll) for a, b in pairs)


def table(study: Study, arms: Sequence[Arm]) -> dict[str, list[Judged | None]]:
    """Every arm's runs, one per seed; None where there is none, or where it was judged on other images than those beside it."""
    found = {arm.name: [study.judged(cell) if cell else None for cell in study.row(arm)] for arm in arms}
    for turn, column in enumerate(zip(*found.values(), strict=True)):
        first = next((judged.rows for judged in column if judged), np.zeros(0, np.int64))
        for arm, judged in zip(arms, column, strict=True):
            if judged and not np.array_equal(judged.rows, first):
                cell = study.cell(arm, turn)
                study.found[cell.key] = None
                study.damaged[cell.key] = f"{study.place.run(cell.key)} was judged on other images than {arms[0].name}."
                found[arm.name][turn] = None
    return found
