"""One arm over its seeds: accuracy, calibration, price, learning curve."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from trickbag.report.findings import Arm, Curve, Price
from trickbag.statistics.intervals import Interval, clopper_pearson, ratio
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.record import BINS, Judged, Study, ece

Results = Sequence[dict[str, Any] | None]
"""``result.json`` of an arm's runs, one per seed."""


def summary(study: Study, arm: Planned, runs: Sequence[Judged | None], results: dict[str, list[dict[str, Any] | None]]) -> Arm:
    """An arm over its seeds."""
    good = [judged for judged in runs if judged]
    whole = [judged for judged in good if len(judged.predicted)]
    cells = study.row(arm)
    accuracies = tuple(float(j.correct.mean()) if j else None for j, cell in zip(runs, cells, strict=True) if cell)
    scores = [a for a in accuracies if a is not None]
    mine = results[arm.name]
    told = {(failure["arm"], failure["seed"]) for failure in study.facts["failures"]}  # what else is missing was not run yet
    pairs = zip(mine, cells, strict=True)
    ended = [record for record, cell in pairs if cell and (record or (arm.name, cell.seed) in told)]
    failed = sum(record is None or "counts_with" in record for record in ended)
    bins = sum((judged.bins for judged in whole), np.zeros((BINS, 3)))
    cooled = [error for judged in whole if (error := ece(judged.bins_calibrated)) is not None]
    errors = [error for judged in whole if (error := ece(judged.bins)) is not None]
    recalls = np.mean([judged.recalls for judged in whole], axis=0) if whole else np.zeros(0)
    return Arm(
        name=arm.name,
        role=arm.role,
        edits=arm.edits,
        accuracies=accuracies,
        accuracy=fmean(scores),
        sd=stdev(scores) if len(scores) > 1 else None,
        nll=fmean(float(judged.nll.mean()) for judged in good),
        macro_recall=float(np.nanmean(recalls)) if whole else None,
        ece=fmean(errors) if errors else None,
        reliability=tuple((float(c / n), float(a / n), float(n / bins[:, 2].sum())) for c, a, n in bins if n),
        ece_calibrated=fmean(cooled) if cooled else None,
        recalls=tuple(float(r) for r in np.nan_to_num(recalls)),
        price=price(mine, next(iter(results.values())), study, arm),
        curve=curve([study.log(cell) for cell in cells if cell]),
        failed=failed,
        failure_interval=clopper_pearson(failed, len(ended)) if failed else None,
    )


def price(
    records: Sequence[dict[str, Any] | None], reference: Sequence[dict[str, Any] | None], study: Study, arm: Planned
) -> Price | None:
    """What a run of an arm costs, against the reference's runs with the same seeds."""
    pairs, times = both(records, reference), paired(records, reference)
    if times is None:
        return None
    mine = [a for a, _ in pairs]
    target = last([study.log(cell) for cell in study.row(study.arms[0]) if cell])
    return Price(
        seconds=fmean(a["seconds"] for a in mine),
        ratio=times[0],
        ratio_interval=times[1],
        to_reference=None if target is None else reached([study.log(cell) for cell in study.row(arm) if cell], target),
        images_per_second=fmean(a["images_per_second"] for a in mine),
        memory_bytes=max(a["memory_bytes"] for a in mine),
        model_bytes=max(a["model_bytes"] for a in mine),
        latency=fmean(a["latency"] for a in mine),
        alone=all(a["alone"] for a in mine),
    )


def both(records: Results, others: Results) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The runs of two arms with the same seeds, where both have ended well."""
    return [(a, b) for a, b in zip(records, others, strict=True) if a and b and "seconds" in a and "seconds" in b]


def paired(records: Results, others: Results) -> tuple[float, Interval | None] | None:
    """The price of one arm's runs as a multiple of another's with its interval, see ``intervals.ratio``; None without pairs."""
    pairs = both(records, others)
    return ratio([a["seconds"] for a, _ in pairs], [b["seconds"] for _, b in pairs]) if pairs else None


def last(logs: Sequence[list[dict[str, Any]]]) -> float | None:
    """The mean accuracy on validation after the last epoch; None without any."""
    ends = [log[-1]["val"]["top1"] for log in logs if log]
    return fmean(ends) if ends else None


def reached(logs: Sequence[list[dict[str, Any]]], accuracy: float) -> float | None:
    """Mean seconds until an accuracy on validation was first reached; None where a seed never reached it."""
    first = [next((line["seconds"] for line in log if line["val"]["top1"] >= accuracy), None) for log in logs if log]
    known = [seconds for seconds in first if seconds is not None]
    return fmean(known) if known and len(known) == len(first) else None


def curve(logs: Sequence[list[dict[str, Any]]]) -> Curve | None:
    """Validation accuracy by epoch over the seeds that have as many epochs."""
    logs = [log for log in logs if log]
    if not logs or len(logs[0]) < 2:
        return None
    rows = [[line["val"]["top1"] for line in log] for log in logs if len(log) == len(logs[0])]
    columns = list(zip(*rows, strict=True))
    epochs = tuple(line["epoch"] for line in logs[0])
    return Curve(epochs, tuple(map(fmean, columns)), tuple(map(min, columns)), tuple(map(max, columns)))
