"""What a study's folder holds: what was decided, and of every finished run what the statistics need."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.spec import spell
from trickbag.recipe import Recipe
from trickbag.runs.folder import LOG, PREDICTIONS, LogLine, predictions
from trickbag.studies.arms import Arm, Question
from trickbag.studies.folder import STUDY, StudyRecord, stored
from trickbag.studies.jobs import Cell
from trickbag.studies.worker import Place

BINS = 15
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One run on the judged images, N of them."""

    correct: Floats
    """[N] 0 or 1; of a run that diverged, the accuracy that it counts with."""
    nll: Floats
    """[N] nats."""
    predicted: NDArray[np.int64]
    """[N] classes; empty for a run that diverged."""
    recalls: Floats
    """[K]; NaN for a class without images."""
    bins: Floats
    """[BINS, 3] sums of confidence, correctness and images by confidence."""
    bins_calibrated: Floats
    """The same at the temperature that suits these images best."""


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

    def row(self, arm: Arm) -> list[Cell | None]:
        """An arm's runs, one per seed; None for those that were left out since a look had decided the arm."""
        last = self.facts["stopped"].get(arm.name, len(self.seeds))
        return [self.cell(arm, seed) if number < last else None for number, seed in enumerate(self.seeds)]

    @property
    def looks(self) -> dict[int, float]:
        """The planned looks: after how many seeds, and what each spends; none where no arm ends early."""
        return {int(seeds): spent for seeds, spent in self.facts["looks"].items()}

    @property
    def split(self) -> str:
        """Where the arms are judged: val or test."""
        return str(self.facts["options"]["on"])

    def cell(self, arm: Arm, seed: int, split: str = "") -> Cell:
        """The run of an arm with a seed."""
        own = seed + arm.seed_offset
        # Keys are looked up: a report must not depend on files of weights that may have moved since.
        return Cell(arm.name, arm.recipe, own, self.facts["keys"].get(entry(arm.recipe, split or self.split, own), "unknown"))

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

    def judged(self, cell: Cell, split: str = "") -> Judged | None:
        """The run on the judged images; None where it is not finished, or damaged."""
        result, split, classes = self.result(cell), split or self.split, len(self.held.classes)
        if result is None:
            return None
        if "counts_with" in result:
            return diverged(result["counts_with"], self.images(split), classes)
        try:
            found = predictions(self.place.run(cell.key) / PREDICTIONS, split, classes)
            if len(found.labels) != self.images(split) and (split == "test" or not self.held.options.folds):
                raise TrickbagError(f"{cell.key} was judged on {len(found.labels)} images, the study on {self.images(split)}.")
        except TrickbagError as error:
            self.found[cell.key], self.damaged[cell.key] = None, str(error)
            return None
        return judge(found.logits.astype(np.float64), found.labels)

    @staticmethod
    def named(path: str, value: Any) -> str:
        """The name of the question about a field at a value, as a design gives it."""
        return f"{path}={value if isinstance(value, str) else spell(value)}"

    def images(self, split: str) -> int:
        """How many images a split has."""
        return int(self.facts["splits"][split])


def entry(recipe: Recipe, split: str, seed: int) -> str:
    """Under what ``study.json`` holds the key of a run."""
    return f"{recipe.key} {split} {seed}"


def diverged(accuracy: float, images: int, classes: int) -> Judged:
    """What a run that diverged counts with: its last valid accuracy, and the NLL of a guess."""
    empty = np.zeros((BINS, 3))
    labels = np.zeros(0, np.int64)
    return Judged(np.full(images, accuracy), np.full(images, np.log(classes)), labels, np.full(classes, np.nan), empty, empty)


def judge(logits: Floats, labels: NDArray[np.int64]) -> Judged:
    """Logits [N, K] and labels [N] -> what the statistics need.

    >>> judge(np.array([[2.0, 0.0], [2.0, 0.0]]), np.array([0, 1])).correct.tolist()
    [1.0, 0.0]
    """
    log_p = normalised(logits)
    predicted = log_p.argmax(1)
    correct = (predicted == labels).astype(np.float64)
    counts = np.bincount(labels, minlength=logits.shape[1])
    with np.errstate(invalid="ignore"):
        recalls = np.bincount(labels, correct, logits.shape[1]) / counts
    nll = -log_p[np.arange(len(labels)), labels]
    cooled = normalised(logits / temperature(logits, labels))
    return Judged(correct, nll, predicted, recalls, binned(log_p, correct), binned(cooled, correct))


def normalised(logits: Floats) -> Floats:
    """Logits [N, K] -> log-probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


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


def temperature(logits: Floats, labels: NDArray[np.int64], steps: int = 20) -> float:
    """The temperature, 1/32 to 32, that minimises the NLL of logits [N, K]: Newton's method on its convex inverse.

    >>> z = np.array([[2.0, 0.0]] * 3 + [[2.0, 0.0]])
    >>> bool(np.isclose(temperature(z, np.array([0, 0, 0, 1])), 2 / np.log(3), rtol=1e-6))
    True
    """
    beta, own = 1.0, logits[np.arange(len(labels)), labels]
    for _ in range(steps):
        p = np.exp(normalised(beta * logits))
        mean = (p * logits).sum(1)
        slope, bend = (mean - own).mean(), ((p * logits**2).sum(1) - mean**2).mean()
        step = slope / bend if bend > 1e-12 else 0.0
        old, beta = beta, float(np.clip(beta - np.clip(step, -beta / 2, beta), 1 / 32, 32))
        if abs(beta - old) < 1e-9 * beta:
            break
    return 1 / beta


def idle(runs: Mapping[str, Sequence[Judged | None]]) -> bool:
    """Whether the seed changes no prediction of any arm, two runs of one arm at least being there to tell."""
    rows = [[judged for judged in row if judged] for row in runs.values()]
    pairs = [(row[0], other) for row in rows for other in row[1:]]
    return bool(pairs) and all(
        np.array_equal(a.predicted, b.predicted) and np.array_equal(a.nll, b.nll) and np.array_equal(a.correct, b.correct)
        for a, b in pairs
    )


def table(study: Study, arms: Sequence[Arm], first: int | None = None) -> dict[str, list[Judged | None]]:
    """Every arm's runs, one per seed, of the ``first`` seeds or all; None where there is none."""
    return {arm.name: [study.judged(cell) if cell else None for cell in study.row(arm)[:first]] for arm in arms}
