"""A trained run judged on other data, of classes that it knows and, for an open set, of others."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trickbag import plugins
from trickbag.data.audit import audit
from trickbag.data.findings import some
from trickbag.data.images import Correction, Images
from trickbag.data.reading import read
from trickbag.engine.assemble import regions
from trickbag.engine.open_set import UNKNOWN, score_open
from trickbag.engine.pixels import Files, Rows, ahead
from trickbag.engine.scores import Scores, finite, interval, score
from trickbag.engine.sets import Sets, measured, told
from trickbag.ground import files
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell, silent
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import brief, show
from trickbag.ground.typed import spellings
from trickbag.runs import seen
from trickbag.runs.classifier import BATCH, Classifier
from trickbag.runs.folder import PREDICTIONS, predictions
from trickbag.trick import Tricks


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """How a trained run does on a data set, and on what it has not seen of it.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.evaluate("run", "photos")
        >>> found.scores.per_class.count, found.unseen.n
        ([12, 12], 4)

    """

    scores: Scores
    """Of all images."""
    classes: tuple[str, ...]
    """Of the run, in the order of the lists in ``scores``."""
    trained_on: int
    """Images that the run was trained on, by their content, or one that it began with, learned from or judges with."""
    chosen_on: int
    """Further images, of the run's validation: they may have chosen its epoch."""
    unseen: Scores | None
    """Of the other images; None where all are others, or where too few are."""
    correction: Correction | None = None
    """What was corrected of the data set's labels."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """What one's own metrics say of all images of known classes; None where one fails or gives no finite number."""
    unseen_metrics: dict[str, float | None] = field(default_factory=dict)
    """The same of the other images, where there are ``unseen``."""
    sets: Sets | None = None
    """How often the sets of a trick such as conformal hold the right class, of all images of known classes."""
    unseen_sets: Sets | None = None
    """The same of the other images, where there are ``unseen``."""

    def _sheet(self) -> Sheet:
        s = self.scores
        low, high = interval(round(s.top1 * s.n), s.n)
        facts = {"top-1": f"{100 * s.top1:.1f} % ({100 * low:.1f} to {100 * high:.1f}, {s.n:,} images)"}
        facts |= {"macro recall": f"{100 * s.macro_recall:.1f} %", "NLL": f"{s.nll:.3f}"}
        facts |= {name: f"{value:.4g}" for name, value in self.metrics.items() if value is not None}
        facts |= {"sets": told(self.sets.whole)} if self.sets else {}
        facts |= {"trained on": f"{self.trained_on:,} of them"} if self.trained_on else {}
        per = s.per_class
        rows = sorted(zip(per.recall, self.classes, per.count, per.precision, strict=True))
        shown = [(name, str(count), f"{100 * r:.1f} %", f"{100 * p:.1f} %") for r, name, count, p in rows if count]
        return Sheet("evaluation", facts, ("class", "images", "recall", "precision"), shown)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values, with a class's name beside each of its numbers."""
        found = self.scores.named(self.classes) | {"trained_on": self.trained_on, "chosen_on": self.chosen_on}
        found |= {"corrections": self.correction._asdict() if self.correction else None}
        unseen = self.unseen.named(self.classes) | self._also(self.unseen_metrics, self.unseen_sets) if self.unseen else None
        return found | self._also(self.metrics, self.sets) | {"unseen": unseen}

    def _also(self, metrics: dict[str, float | None], sets: Sets | None) -> dict[str, Any]:
        return ({"metrics": metrics} if metrics else {}) | ({"sets": sets.named(self.classes)} if sets else {})


def evaluate(
    run: str | Path,
    data: str | Path,
    with_: Tricks = (),
    tell: Tell = silent,
    open_set: bool = False,
    energy: bool = False,
    depth: int = 0,
    renamed: Mapping[str, str] | str | Path = MappingProxyType({}),
    corrections: str | Path = "",
) -> Evaluation:
    """Metrics of a trained run on all images of a data set, with more test-time tricks if wanted.

    Images that the run was trained on are counted by their content, and the others scored by themselves too.

    With ``open_set`` images of classes that the run does not know are there to be rejected, by the largest probability or by
    the ``energy``, and the scores are an ``OpenScores``; the run's own validation images choose the threshold.
    ``renamed`` says which class of the run a class of the data set is, a dict or a CSV file of two columns; ``corrections``
    are of the data set's labels.
    Raises UsageError where the data set has a class that the run does not know; with ``open_set``, where it has no image of
    such a class or none of another, where the run keeps no validation predictions, and where ``with_`` would change them.
    """
    if energy and not open_set:
        raise UsageError("--energy is a way to reject images of unknown classes. Give --open-set too.")
    plugins.check_apart(run)
    given = plugins.active()
    with plugins.using(kept=run), plugins.using(given):
        return _evaluated(Path(run), data, spellings(with_), tell, open_set, energy, depth, renamed, corrections)


def _evaluated(
    run: Path,
    data: str | Path,
    extra: Sequence[str],
    tell: Tell,
    open_set: bool,
    energy: bool,
    depth: int,
    renamed: Mapping[str, str] | str | Path,
    corrections: str | Path,
) -> Evaluation:
    found = Classifier.load(run, extra)
    validation = _validation(run, extra, energy, len(found.classes)) if open_set else None
    images = readable(data, found.card.channels, depth, tell, corrections)
    images = replace(images, classes=_renamed(images.classes, renamed))
    labels = labels_of(data, images, found.classes, open_set, tell)
    files = Files(images, found.card.channels, found.card.kept, found.fit)
    rows = Rows(images, files, np.arange(len(images)), regions(images, found.tricks, judged=True))
    found = found.adapted(len(images), lambda order: ahead(rows.__getitem__, order, 2, BATCH))
    parts: list[Tensor] = []
    for outputs in found.outputs(ahead(rows.__getitem__, range(len(images)), 2, BATCH)):
        parts.append(outputs.logits.cpu())
        tell(Doing("evaluating", sum(map(len, parts)), len(images)))
    logits = finite(torch.cat(parts), images.paths)
    if not os.path.isfile(run / seen.IMAGES):
        tell(Note(f"{run} keeps no account of the images that it was trained on: these may be among them"))
    before = seen.together([run, *seen.asked(found.tricks)]).splits(images)

    def scored(rows: NDArray[np.bool_]) -> Scores | None:
        own, true = logits[torch.from_numpy(rows)], labels[torch.from_numpy(rows)]
        if validation is None:
            return score(own, true) if rows.any() else None
        both = (true == UNKNOWN).any() and (true != UNKNOWN).any()
        return score_open(own, true, validation, "energy" if energy else "probability") if both else None

    def said(rows: NDArray[np.bool_]) -> tuple[dict[str, float | None], Sets | None]:
        known = torch.from_numpy(rows) & (labels != UNKNOWN)
        return plugins.measured(labels[known], logits[known]), measured(found.tricks, logits[known], labels[known])

    whole = scored(np.ones(len(images), dtype=bool))
    assert whole is not None
    fresh = (before != "train") & (before != "val")
    (metrics, sets), unseen = said(np.ones(len(images), dtype=bool)), None if fresh.all() else said(fresh)
    return Evaluation(
        whole,
        found.classes,
        int((before == "train").sum()),
        int((before == "val").sum()),
        None if fresh.all() else scored(fresh),
        images.correction,
        metrics,
        unseen[0] if unseen else {},
        sets,
        unseen[1] if unseen else None,
    )


def _validation(run: Path, extra: Sequence[str], energy: bool, classes: int) -> Tensor:
    """The logits [V, K] of a run's validation images, by which images are rejected."""
    if extra:
        raise UsageError(
            f"--open-set rejects by what the run predicted on its validation images, without {extra[0]}. Train with "
            f"--with {extra[0]}, or evaluate without it."
        )
    file = run / PREDICTIONS
    if not file.is_file():
        raise UsageError(f"{run} holds no predictions.npz, whose validation images choose the threshold. Train the run anew.")
    logits = torch.from_numpy(predictions(file, "val", classes).logits)
    if energy and logits.logsumexp(1).abs().max() < 1e-3:
        raise UsageError(
            f"{run} predicts logarithms of probabilities, as tricks that average views do, and then all images have the same "
            "energy. Leave --energy out."
        )
    return logits


def readable(data: str | Path, channels: int, depth: int, tell: Tell, corrections: str | Path = "") -> Images:
    """The images of a data set that can be read, with the hashes of their contents. Raises UsageError where there is none."""
    images = read(data, tell, depth, corrections)
    checked = audit(images, channels, progress=lambda done, total: tell(Doing("checking images", done, total)))
    if images.correction:
        tell(Note(f"corrections of {images.correction}"))
    for finding in checked.findings:
        if finding.kind in ("left out", "box"):
            tell(Note(finding.message))
    if not len(checked.images):
        raise UsageError(f"{data} holds no image that can be read. trickbag check says why.")
    return checked.images


def _renamed(classes: Sequence[str], renamed: Mapping[str, str] | str | Path) -> tuple[str, ...]:
    """The classes of a data set by the names that a run has for them."""
    if not isinstance(renamed, Mapping):
        try:
            rows = list(csv.reader(io.StringIO(files.text(Path(renamed)), newline="")))
        except (OSError, ValueError, csv.Error) as error:
            raise UsageError(f"map {brief(str(renamed))} cannot be read ({error}). Give a CSV file.") from None
        if wrong := next((number for number, row in enumerate(rows, 1) if row and len(row) != 2), 0):
            raise UsageError(f"map {brief(str(renamed))}, line {wrong}: write two columns, the data's class and the run's.")
        renamed = {row[0].strip(): row[1].strip() for row in rows if row}
    if unknown := sorted(renamed.keys() - set(classes)):
        raise UsageError(f"map: the data set has no class {show(unknown[0])}. It has: {some(classes, 10)}.")
    return tuple(renamed.get(name, name) for name in classes)


OPEN = "--open-set counts its images as unknown."


def labels_of(
    data: str | Path, images: Images, classes: Sequence[str], open_set: bool, tell: Tell, otherwise: str = OPEN
) -> Tensor:
    """The labels [N] of images by the classes of a run; -1 for those of other classes, which only an open set has.

    ``otherwise`` says what can be done where there are some in another set. Raises
    UsageError where there are such, and for an open set where there are none, or none but such.
    """
    place = {name: label for label, name in enumerate(classes)}
    others = [name for name in images.classes if name not in place]
    labels = torch.tensor([place.get(name, UNKNOWN) for name in images.classes])[torch.from_numpy(images.labels)]
    known = f"It knows: {some(classes, 10)}."
    if not open_set and others:
        raise UsageError(f"{data} has the class {others[0]!r}, which the run does not know. {known} {otherwise}")
    if open_set and (labels != UNKNOWN).all():
        raise UsageError(
            f"{data} has no image of a class that the run does not know. {known} Add some, or leave --open-set out."
        )
    if open_set and (labels == UNKNOWN).all():
        raise UsageError(f"{data} has no image of a class that the run knows. {known} Add some.")
    if open_set:
        tell(Note(f"unknown to the run: {some(others)}"))
    return labels
