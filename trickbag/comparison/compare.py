"""From runs' folders or tables to a comparison: one method as the reference, each of the others against it."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal

import numpy as np

from trickbag.comparison import tables, words
from trickbag.comparison.pictures import Differing, differing
from trickbag.comparison.results import Results, Scores, in_order
from trickbag.comparison.samples import Turn, alike, alone, correctness, losses, paired, turns
from trickbag.ground.arguments import Between, public
from trickbag.ground.errors import UsageError
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import brief
from trickbag.report.findings import Effect
from trickbag.statistics import one_way
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.intervals import Interval, clopper_pearson
from trickbag.statistics.variance import Floats
from trickbag.statistics.verdicts import SEEDS, SHARED, Draft, Estimate, judged

Kind = Literal["methods", "networks", "scores"]
ALPHA, DELTA = 0.05, 0.2
MOST = 200
"""Methods. More are an image's name or a seed in the wrong column."""
TOLD = ("name", "difference", *SHARED, "note", "loss_difference", "loss_interval", "loss_verdict")


@dataclass(frozen=True)
class Method:
    """A method, or a single network, over its seeds."""

    name: str
    seeds: tuple[str, ...]
    scores: tuple[float | None, ...]
    """One per seed: the share of its images that the run gets right, or the score of the table; None where it failed."""
    score: float | None
    """Their mean."""
    sd: float | None
    """Over seeds; None with fewer than two."""
    failed: int
    """Runs without a result."""
    failure_interval: Interval | None
    """Of the share of runs that fail, 95 %; None where none did."""


@dataclass(frozen=True)
class Versus:
    """A method against the reference."""

    effect: Effect
    """The method minus the reference."""
    differing: Differing | None
    """The images on which they differ; None for scores."""
    mcnemar: float | None
    """The exact p of McNemar's test, not adjusted, for networks on images without groups."""
    test: str
    """What the interval comes from, in words."""


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Each method against the reference.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.compare("run", "mixup-run")
        >>> [method.name for method in found.methods], found.images
        (['run', 'mixup-run'], 4)

    """

    kind: Kind
    """What is compared: methods over seeds and images, single networks over images, or scores over seeds."""
    methods: tuple[Method, ...]
    """The reference first."""
    pairs: tuple[Versus, ...]
    """One for each other method."""
    images: int
    """That are compared; 0 for scores."""
    groups: int
    """Independent groups of them; as many as images where there are none."""
    seeds: int
    """With which at least two methods have a result; 1 for networks."""
    delta: float
    """Half the width of the region of practical equivalence; 0 for scores."""
    source: str
    answer: tuple[str, ...]
    """A sentence for each pair, and what they speak of."""
    notes: tuple[str, ...]
    """What a reader must know: images or seeds that were left out, failed runs, columns that were not used."""
    folder: Path | None
    """Where the page looks for the images."""

    def _sheet(self) -> Sheet:
        from trickbag.comparison.words import HEAD, rows

        return Sheet(" ".join(self.answer), {"images": f"{self.images:,}", "seeds": str(self.seeds)}, HEAD, list(rows(self)))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values, but the images on which methods differ, which are counted."""
        plain = asdict(self)
        del plain["folder"]
        for pair in plain["pairs"]:
            pair["effect"] = {name: value for name, value in pair["effect"].items() if name in TOLD}
            found = pair["differing"]
            pair["differing"] = found and {name: found[place] for place, name in enumerate(("gained", "lost", "shared"))}
        return plain

    def html(self) -> str:
        """One page that needs nothing else."""
        from trickbag.comparison.page import page

        return page(self)


@public
def compare(
    *what: str | Path,
    reference: str = "",
    networks: bool = False,
    delta: Annotated[float, Between(0, 100)] | None = None,
    images: str | Path | None = None,
) -> Comparison:
    """Which method is better on new photos, and by how much.

    ``what`` are folders of finished runs, or CSV or Parquet tables with the columns ``method,seed,image,correct``, or
    ``method,seed,image,label`` and a probability ``p_CLASS`` for each class, or ``method,seed,score``; ``group`` names
    images that belong together. Every method is compared with ``reference``, the first one by default. ``networks`` compares
    single trained networks, which says nothing of other seeds; two runs' folders of one seed each are compared so anyway.
    ``delta``, in percentage points, is half the width of the region of practical equivalence, 0.2 by default. ``images`` is the
    folder where the images lie, for the page's thumbnails; that of the first table by default.

    The statistics are those of studies: ``trickbag.statistics.effects.effects``, or ``one_way`` for networks and scores. Raises
    UsageError where nothing can be said: a single seed, other images, labels that disagree, NaN, rows that stand there twice.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.compare("run", "mixup-run")
        >>> found.kind, len(found.pairs)
        ('networks', 1)

    """
    found = _read([Path(one) for one in what], networks)
    if isinstance(found, Scores):
        given = {"--networks": networks, "--delta": delta is not None, "--images": images is not None}
        if inert := next((name for name, is_given in given.items() if is_given), ""):
            raise UsageError(f"{found.source} has no column image, which {inert} needs. Add the column, or leave {inert} out.")
        return _of_scores(found, reference)
    margin = (DELTA if delta is None else delta) / 100
    folder = Path(images) if images is not None else found.folder
    if images is not None and not os.path.isdir(images):
        raise UsageError(f"--images {brief(str(images))} is no folder. Name the folder that the images' paths begin in.")
    by_network = networks or (found.folder is None and _single(found))
    compared = replace(found, runs=alone(found)) if by_network else found
    methods = _methods([run.method for run in compared.runs], reference, found.source)
    if by_network:
        return _of_networks(compared, methods, margin, folder)
    return _of_methods(compared, methods, margin, folder)


def _read(paths: Sequence[Path], networks: bool) -> Results | Scores:
    missing = next((path for path in paths if not os.path.exists(path)), None)
    if missing is not None:
        raise UsageError(f"there is no {brief(str(missing))}. Name folders of runs, or tables.")
    folders = [path for path in paths if os.path.isdir(path)]
    if not paths or (len(folders) == 1 and len(paths) == 1):
        raise UsageError("a comparison takes at least two folders of runs, or one table.")
    if not folders:
        return tables.read(paths)
    if len(folders) < len(paths):
        raise UsageError(f"{folders[0]} is a folder, and others are files. Compare folders of runs, or tables.")
    from trickbag.comparison import runs  # slower to import than tables are read

    found = runs.read(folders, networks)
    # Networks go by their folders.
    return runs.read(folders, networks=True) if not networks and _single(found) else found


def _single(found: Results) -> bool:
    names = [run.method for run in found.runs]
    return len(set(names)) == len(names)


def _methods(names: Sequence[str], reference: str, source: str) -> list[str]:
    """The names of the methods, the reference first."""
    found = list(dict.fromkeys(names))
    if reference and reference not in found:
        there = ", ".join(brief(name, 40) for name in found[:8]) + (", …" if len(found) > 8 else "")
        raise UsageError(f"--reference {brief(reference)}: there is no such method, only {there}.")
    if len(found) < 2:
        what = f"only {brief(found[0])}" if found else "none with a result"
        raise UsageError(f"{source}: a comparison takes at least two methods, and there is {what}.")
    if len(found) > MOST:
        raise UsageError(
            f"{source}: {len(found):,} methods, as {brief(found[0])}, are more than {MOST}. Compare fewer at a time."
        )
    return sorted(found, key=lambda name: name != (reference or found[0]))


def _of_methods(found: Results, methods: list[str], delta: float, folder: Path | None) -> Comparison:
    own, notes = paired(found.runs, methods)
    met, more = turns(own, methods, found.names)
    samples, contrasts, same = correctness(found, met), _contrasts(len(methods)), alike(found, met)
    estimates = effects(samples, contrasts, same=same, delta=delta, alpha=ALPHA)
    loss = losses(found, met)
    by_loss = effects(loss, contrasts, same=same, shares=False, delta=0.0, alpha=ALPHA) if loss else None
    return _comparison(
        "methods",
        found,
        (methods, met),
        (estimates, by_loss),
        delta,
        (*notes, *more),
        folder,
        "seeds and images, crossed or nested",
    )


def _of_networks(found: Results, methods: list[str], delta: float, folder: Path | None) -> Comparison:
    met, notes = turns(found.runs, methods, found.names)
    same, loss = alike(found, met), losses(found, met)
    estimates = _over_images(correctness(found, met)[0], same, delta, shares=True)
    by_loss = _over_images(loss[0], same, 0.0, shares=False) if loss else None
    return _comparison("networks", found, (methods, met), (estimates, by_loss), delta, notes, folder, "images, paired")


def _over_images(sample: Sample, same: Sequence[bool] | None, delta: float, *, shares: bool) -> tuple[Estimate, ...]:
    gaps: Floats = sample.values[1:] - sample.values[:1]
    whose = same or [not gap.any() for gap in gaps]
    drafts = [one_way.over_images(gap, sample.groups, same=one, shares=shares) for gap, one in zip(gaps, whose, strict=True)]
    return tuple(map(_unpaired, judged(drafts, delta, ALPHA, 0)))


def _contrasts(methods: int) -> Floats:
    return np.hstack([-np.ones((methods - 1, 1)), np.eye(methods - 1)])


def _comparison(
    kind: Kind,
    found: Results,
    which: tuple[list[str], list[Turn]],
    estimates: tuple[tuple[Estimate, ...], tuple[Estimate, ...] | None],
    delta: float,
    notes: Sequence[str],
    folder: Path | None,
    test: str,
) -> Comparison:
    methods, met = which
    grouped = len(np.unique(found.groups)) < len(found.groups)
    used = np.unique(np.concatenate([turn.images for turn in met]))
    pairs = []
    for place, (name, estimate) in enumerate(zip(methods[1:], estimates[0], strict=True), 1):
        differ = differing(found, met, place)
        exact = one_way.mcnemar(differ.gained, differ.lost) if kind == "networks" and not grouped else None
        loss = estimates[1][place - 1] if estimates[1] else None
        pairs.append(Versus(_effect(name, kind, estimate, loss), differ, exact, test))
    made = tuple(_method(found, name) for name in methods)
    seeds = sum(sum(run is not None for run in turn.runs) > 1 for turn in met)
    images, groups = len(used), len(np.unique(found.groups[used]))
    return Comparison(
        kind=kind,
        methods=made,
        pairs=tuple(pairs),
        images=images,
        groups=groups,
        seeds=seeds,
        delta=delta,
        source=found.source,
        answer=words.answer(kind, methods[0], pairs, delta),
        notes=(*notes, *words.failures(made), *found.notes),
        folder=folder,
    )


def _method(found: Results, name: str) -> Method:
    own = [run for run in found.runs if run.method == name]
    return _summary(name, [(run.seed, None if run.failed else float(run.correct.mean())) for run in own])


def _summary(name: str, values: Sequence[tuple[str, float | None]]) -> Method:
    known = [value for _, value in values if value is not None]
    failed = len(values) - len(known)
    return Method(
        name=name,
        seeds=tuple(seed for seed, _ in values),
        scores=tuple(value for _, value in values),
        score=fmean(known) if known else None,
        sd=stdev(known) if len(known) > 1 else None,
        failed=failed,
        failure_interval=clopper_pearson(failed, len(values)) if failed else None,
    )


def _effect(name: str, kind: str, found: Estimate, loss: Estimate | None) -> Effect:
    assert found.difference is not None
    return Effect(
        **{field: getattr(found, field) for field in SHARED},
        name=name,
        note=found.note,
        kind=kind,
        arm=name,
        says="",
        difference=found.difference,
        loss_difference=-loss.difference if loss and loss.difference is not None else None,
        loss_interval=Interval(-loss.interval.high, -loss.interval.low) if loss and loss.interval else None,
        loss_verdict=loss.verdict if loss else "",
        seconds_ratio=None,
        declared=True,
    )


def _of_scores(found: Scores, reference: str) -> Comparison:
    methods = _methods([run.method for run in found.runs], reference, found.source)
    values = {name: {run.seed: run.value for run in found.runs if run.method == name} for name in methods}
    drafts, tests = zip(*(_draft(methods[0], name, values) for name in methods[1:]), strict=True)
    estimates = judged(drafts, 0.0, ALPHA, 0)
    pairs = [
        Versus(_effect(name, "scores", _whole(estimate, test), None), None, None, test)
        for name, estimate, test in zip(methods[1:], estimates, tests, strict=True)
    ]
    made = tuple(_summary(name, [(seed, values[name][seed]) for seed in in_order(list(values[name]))]) for name in methods)
    seeds = in_order([run.seed for run in found.runs])
    several = [sum(values[name].get(seed) is not None for name in methods) > 1 for seed in seeds]
    return Comparison(
        kind="scores",
        methods=made,
        pairs=tuple(pairs),
        images=0,
        groups=0,
        seeds=sum(several),
        delta=0.0,
        source=found.source,
        answer=words.answer("scores", methods[0], pairs, 0.0),
        notes=(*words.failures(made), *found.notes),
        folder=None,
    )


PAIRED, UNPAIRED = "Student's paired t over {} seeds", "Welch's t over {} and {} seeds, which are not paired"


def _draft(reference: str, name: str, values: dict[str, dict[str, float | None]]) -> tuple[Draft, str]:
    """Paired by seed where enough seeds have a score of both, else unpaired."""
    ours, theirs = ({s: v for s, v in values[one].items() if v is not None} for one in (name, reference))
    for one, known in ((name, ours), (reference, theirs)):
        if len(known) < 2:
            raise UsageError(
                f"{brief(one)} has a score with {'one seed' if known else 'no seed'}, which says nothing of other seeds. Give "
                f"at least {SEEDS} seeds of each method."
            )
    both = in_order([seed for seed in ours if seed in theirs])
    if len(both) >= SEEDS or len(both) == len(ours) == len(theirs):
        left = [np.array([side[seed] for seed in both]) for side in (ours, theirs)]
        return one_way.paired(*left), PAIRED.format(len(both))
    return one_way.unpaired(np.array([*ours.values()]), np.array([*theirs.values()])), UNPAIRED.format(len(ours), len(theirs))


def _whole(found: Estimate, test: str) -> Estimate:
    """Without what has no meaning where nobody knows which difference would matter, or where seeds are not paired."""
    known = replace(found, verdict="helps") if found.verdict == "worthwhile" else found
    return known if test.startswith(PAIRED[:9]) else _unpaired(known)


def _unpaired(found: Estimate) -> Estimate:
    """Without what is counted over pairs of seeds."""
    return replace(found, points=(), better=None, better_interval=None)
