"""Which runs and images are compared with which: paired by seed and image, and what had to be left out."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trickbag.comparison.results import Results, Run, in_order
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, counted, show
from trickbag.statistics.calibration import cross_calibrated, normalised
from trickbag.statistics.effects import Sample
from trickbag.statistics.variance import Floats, Ints

NETWORKS = "compare the trained networks themselves with --networks"
SAME = 1e-12
"""Nats below which a difference in log-probability is what rounding leaves of 0."""


class Turn(NamedTuple):
    """The runs of all methods with one seed, on the images that they have in common."""

    seed: str
    runs: tuple[Run | None, ...]
    """[A] None for a run that is missing or failed."""
    images: Ints
    """[n]"""

    @property
    def correct(self) -> Floats:
        """[A, n] 0 or 1; NaN for a run that is missing or failed."""
        rows = [self._own(run, run.correct) if run else np.full(len(self.images), np.nan) for run in self.runs]
        return np.array(rows, dtype=float)

    def log_p(self, results: Results, cooled: bool) -> Floats:
        """[A, n] log-probability of the label, ``cooled``: at the best temperature for other images; NaN as in ``correct``."""
        assert results.labels is not None
        labels, groups = results.labels[self.images], results.groups[self.images]
        found = np.full((len(self.runs), len(self.images)), np.nan)
        for row, run in enumerate(self.runs):
            if run is not None and run.logits is not None:
                logits = self._own(run, run.logits)
                log_p = cross_calibrated(logits, labels, groups) if cooled else normalised(logits)
                found[row] = log_p[np.arange(len(labels)), labels]
        return found

    def _own(self, run: Run, values: NDArray[Any]) -> Floats:
        return values[np.searchsorted(run.images, self.images)].astype(float)


def alone(results: Results) -> tuple[Run, ...]:
    """Each run as a method of its own, so that networks are compared; those that failed are left out."""
    many = {run.method for run in results.runs if sum(other.method == run.method for other in results.runs) > 1}
    return tuple(
        run._replace(method=f"{run.method} seed {run.seed}" if run.method in many else run.method, seed="")
        for run in results.runs
        if not run.failed
    )


def turns(runs: Sequence[Run], methods: Sequence[str], names: Sequence[str]) -> tuple[list[Turn], list[str]]:
    """The runs by seed, and sentences on what was left out or is not as it should be.

    ``methods`` [A], the reference first; ``names`` [I] of the images. Raises UsageError where methods have no image in common.
    """
    by_seed = {(run.method, run.seed): run for run in runs if not run.failed}
    found, told, left_out = [], 0, 0
    for seed in in_order([run.seed for run in runs]):
        row = tuple(by_seed.get((method, seed)) for method in methods)
        there = [run for run in row if run is not None]
        if not there:
            continue
        images = reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), [run.images for run in there])
        if not len(images):
            raise UsageError(_other_images(there, seed, names))
        told += sum(len(run.images) for run in there)
        left_out += sum(len(run.images) - len(images) for run in there)
        found.append(Turn(seed, row, images))
    which = "that not all methods were judged on with the same seed" if len(found) > 1 else "that not all were judged on"
    notes = [f"Left out: {left_out:,} of {counted(told, 'answer')}, for images {which}."] if left_out else []
    return found, notes


def _other_images(runs: Sequence[Run], seed: str, names: Sequence[str]) -> str:
    first, other = runs[0], next((run for run in runs[1:] if not np.isin(run.images, runs[0].images).any()), runs[1])
    return (
        f"{brief(first.method)} and {brief(other.method)} were judged on other images"
        + (f" with seed {seed}" if seed else "")
        + f", as {brief(names[first.images[0]])} and {brief(names[other.images[0]])}: no image is common to all methods. "
        "Compare runs that were judged on the same images, under the same names."
    )


def paired(runs: Sequence[Run], methods: Sequence[str]) -> tuple[list[Run], list[str]]:
    """The runs with seeds that pair them with the reference's, and what is to be said of that.

    Raises UsageError where a method, or a pair, has a single seed.
    """
    seeds = {method: in_order([run.seed for run in runs if run.method == method]) for method in methods}
    sound = {method: {run.seed for run in runs if run.method == method and not run.failed} for method in methods}
    for method in methods:
        _refuse_one(method, sound[method], seeds[method])
    reference, notes, renamed = methods[0], [], dict[tuple[str, str], str]()
    for method in methods[1:]:
        if not set(seeds[method]) & set(seeds[reference]):
            renamed |= {(method, own): theirs for own, theirs in zip(seeds[method], seeds[reference], strict=False)}
            renamed |= {(method, own): f"{method} {own}" for own in seeds[method][len(seeds[reference]) :]}
            notes.append(
                f"{show(method)} and {show(reference)} have no seed in common, so their seeds are paired in order. That is "
                "right where equal seeds would share nothing either. Where they would share a split, give both the same seeds."
            )
            sound[method] = {renamed[method, seed] for seed in sound[method]}
        if len(both := sound[method] & sound[reference]) < 2:
            raise UsageError(
                f"{brief(method)} and {brief(reference)} share {counted(len(both), 'seed')} with a result, which says nothing "
                f"of other seeds. Give runs of both with at least 3 equal seeds, or {NETWORKS}."
            )
    return [run._replace(seed=renamed.get((run.method, run.seed), run.seed)) for run in runs], notes


def _refuse_one(method: str, sound: set[str], seeds: Sequence[str]) -> None:
    if not sound:
        raise UsageError(f"{brief(method)}: every run failed. Leave the method out.")
    if len(sound) == 1:
        failed = f"; {counted(len(seeds) - 1, 'other')} failed" if len(seeds) > 1 else ""
        raise UsageError(
            f"{brief(method)} has a result with one seed ({next(iter(sound))}{failed}), which says nothing of other seeds. "
            f"Give at least 3 seeds of each method, or {NETWORKS}."
        )


def correctness(results: Results, found: Sequence[Turn]) -> list[Sample]:
    """What each seed's runs got right."""
    return [Sample(turn.correct, results.groups[turn.images]) for turn in found]


def losses(results: Results, found: Sequence[Turn]) -> list[Sample] | None:
    """The log-probability of the label at the best temperature; None where a run has no probabilities."""
    if not _known(results, found):
        return None
    return [Sample(turn.log_p(results, cooled=True), results.groups[turn.images]) for turn in found]


def alike(results: Results, found: Sequence[Turn]) -> list[bool] | None:
    """Of which methods but the first the networks are the reference's; None where no probabilities tell."""
    if not _known(results, found):
        return None
    return [all(_same(results, turn, place) for turn in found) for place in range(1, len(found[0].runs))]


def _same(results: Results, turn: Turn, place: int) -> bool:
    """Whether a run and the reference's say the same of all images, or one is missing."""
    ours, theirs = turn.runs[place], turn.runs[0]
    if ours is None or theirs is None:
        return True
    pair = turn._replace(runs=(theirs, ours))
    right = pair.correct
    if (right[0] != right[1]).any():
        return False
    log_p = pair.log_p(results, cooled=False)
    return bool(np.abs(log_p[1] - log_p[0]).max() < SAME)


def _known(results: Results, found: Sequence[Turn]) -> bool:
    return results.labels is not None and all(run.logits is not None for turn in found for run in turn.runs if run)
