"""The tables of a study: CSV for programs, Markdown for people. CSV holds the values as they are, fractions and seconds."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from math import nan
from statistics import fmean
from typing import NamedTuple

from trickbag.data.long_tail import FEW, MANY, by_frequency
from trickbag.ground.text import counted, line
from trickbag.report import downstream
from trickbag.report.findings import Arm, Effect, Findings, Measure, MeasuredEffect
from trickbag.report.wording import (
    DASH,
    SPACE,
    against_reference,
    chance,
    differences,
    failed,
    minutes,
    number,
    percent,
    points,
    ratio,
    signed,
    span,
    spread,
    verdict,
)
from trickbag.statistics.intervals import Interval

Value = str | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_MARKS = re.compile(r"[\\`*\[\]<>|~#&!:@$^{}]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\.", re.IGNORECASE)


class Row(NamedTuple):
    """An arm in the table of accuracies."""

    arm: Arm
    reference: bool
    failed: str
    """What outranks the mean: "3 of 5 seeds diverged"; mostly empty."""
    known: int
    """Seeds with a result."""
    difference: float | None
    """To the reference, over the seeds that both have."""
    effect: Effect | None
    """The effect that has this difference, if one does."""


def rows(findings: Findings) -> list[Row]:
    """The table of accuracies, in the order of the arms."""
    table = []
    for place, arm in enumerate(findings.arms):
        paired = differences(arm, findings.arms[0])
        known = sum(accuracy is not None for accuracy in arm.accuracies)
        difference = fmean(paired) if paired else None
        table.append(Row(arm, place == 0, failed(arm, findings), known, difference, against_reference(arm, findings)))
    return table


def frequencies(findings: Findings) -> list[tuple[Arm, dict[str, float | None]]]:
    """Mean recall of the classes with many, medium and few training images, an arm each; none where all are in one group."""
    judged = findings.class_counts
    found = [
        (arm, by_frequency([r if n else nan for r, n in zip(arm.recalls, judged, strict=True)], findings.trained))
        for arm in findings.arms
        if arm.recalls
    ]
    return found if found and sum(value is not None for value in found[0][1].values()) > 1 else []


def cell(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula.

    >>> cell("=1+1")
    "'=1+1"
    """
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def effects_csv(findings: Findings) -> str:
    """A line per effect, with four columns per metric of one's own and per downstream task, and a column ``seed_N`` per seed.

    A missing value is an empty cell.
    """
    by_metric = [{one.name: one for one in measure.effects} for measure in findings.measures]
    more = [f"metric_{m.name}_{part}" for m in findings.measures for part in ("difference", "low", "high", "verdict")]
    rows = []
    for one in downstream.lines(findings):
        own = [value for found in by_metric for value in _measured(found.get(one.effect.name))]
        rows.append(([*_effect(one.effect), *own, *downstream.values(one)], one.effect.points))
    return _csv([*EFFECT_COLUMNS, *more, *downstream.columns(findings)], _seeds(findings), rows)


def _measured(found: MeasuredEffect | None) -> tuple[Value, ...]:
    return (found.difference, *_ends(found.interval), found.verdict) if found else (None,) * 4


def arms_csv(findings: Findings) -> str:
    """A line per arm, the reference first, and a column ``seed_N`` per seed. An empty cell is a missing value."""
    return _csv(ARM_COLUMNS, _seeds(findings), ((_arm(arm), arm.accuracies) for arm in findings.arms))


def markdown(findings: Findings) -> str:
    """The accuracies of the arms and the effects as two tables of GitHub's Markdown."""
    chosen = " The arms were selected on the test set: the best of them looks better than it is." if findings.on_test else ""
    judged = f"{counted(findings.images, 'image')} ({findings.judges}), {counted(len(findings.seeds), 'seed')}"
    return "\n".join(
        [
            f"Accuracy on {mark(judged)}, mean ± sd over seeds; differences in percentage points.{chosen}",
            "",
            *_table(ACCURACY_HEAD, [accuracy_row(row) for row in rows(findings)]),
            "",
            f"Effects in percentage points; equivalent means within ±{number(100 * findings.delta)}.",
            "",
            *_table(EFFECT_HEAD, [effect_row(effect) for effect in findings.effects]),
            "",
            *_frequency_table(findings),
            *(line for measure in findings.measures for line in _measure_table(measure)),
            *_downstream_table(findings),
        ]
    )


def _frequency_table(findings: Findings) -> list[str]:
    found = frequencies(findings)
    if not found:
        return []
    rows = ([arm.name, *(DASH if value is None else percent(value) for value in shares.values())] for arm, shares in found)
    title = f"Mean recall by training images of a class: many above {MANY}, few below {FEW}."
    return [title, "", *_table(("arm", *found[0][1]), rows), ""]


MEASURE_HEAD = ("effect", "contrast", "difference", "95 % on new photos", "verdict")


def measure_title(measure: Measure) -> str:
    """What a table of one's own metric is of."""
    return f"By your metric {measure.name}: {measure.better} is better, {number(measure.reference, 4)} for the reference."


def measure_rows(measure: Measure) -> list[list[str]]:
    """The effects under MEASURE_HEAD."""
    return [
        [
            *(e.name, e.says, signed(e.difference, 4), span(e.interval, lambda value: signed(value, 4))),
            "not decided" if e.verdict == "open" else e.verdict,
        ]
        for e in measure.effects
    ]


def _measure_table(measure: Measure) -> list[str]:
    return [measure_title(measure), "", *_table(MEASURE_HEAD, measure_rows(measure)), ""]


def _downstream_table(findings: Findings) -> list[str]:
    if not findings.downstream:
        return []
    title = "Downstream, in percentage points: differences with 95 % intervals on new photos, and verdicts."
    table = _table([mark(name) for name in downstream.head(findings)], downstream.rows(findings))
    return [title, "", *table, "", *(f"* {mark(text)}" for text in downstream.told(findings)), ""]


def mark(text: str) -> str:
    r"""Text for a cell of a Markdown table: on one line, and nothing in it is markup.

    >>> print(mark("a|b <script> label_smoothing(eps=0.1)"))
    a\|b \<script\> label_smoothing(eps=0.1)
    """
    return _MARKS.sub(r"\\\g<0>", line(text).strip())


ACCURACY_HEAD = (
    *("arm", "accuracy ± sd", "seeds", "difference", "95 % on new photos"),
    *("verdict", "minutes", "time ratio"),
)
EFFECT_HEAD = (
    *("effect", "contrast", "difference", "seeds", "95 % on new photos", "p (Holm)", "verdict", "expected gain", "helps"),
    *("Δ log-loss", "by log-loss"),
)
EFFECT_COLUMNS = (
    *("name", "kind", "contrast", "seeds", "difference", "sd", "error", "low", "high", "p_holm"),
    *("verdict", "more_seeds", "more_images", "note", "seeds_low", "seeds_high", "better", "better_low", "better_high"),
    *("loss_difference", "loss_low", "loss_high", "loss_verdict", "correlation", "seconds_ratio", "declared"),
    *("expected_gain", "helps"),
)
ARM_COLUMNS = (
    *("name", "role", "edits", "seeds", "failed", "failure_low", "failure_high", "accuracy", "sd", "nll", "macro_recall"),
    *("ece", "ece_calibrated", "seconds", "seconds_ratio", "seconds_ratio_low", "seconds_ratio_high"),
    *("seconds_to_reference", "images_per_second", "memory_bytes", "model_bytes", "latency_seconds", "timed_alone"),
)


def _effect(e: Effect) -> list[Value]:
    return [
        *(e.name, e.kind, e.says, len(e.points), e.difference, e.sd, e.error, *_ends(e.interval), e.p, e.verdict, e.more_seeds),
        *(e.more_images, e.note, *_ends(e.over_seeds), e.better, *_ends(e.better_interval), e.loss_difference),
        *(*_ends(e.loss_interval), e.loss_verdict, e.correlation, e.seconds_ratio, "yes" if e.declared else "no"),
        *(e.expected, e.helps),
    ]


def _arm(a: Arm) -> list[Value]:
    done = sum(accuracy is not None for accuracy in a.accuracies)
    row: list[Value] = [
        *(a.name, a.role, a.edits, done, a.failed, *_ends(a.failure_interval), a.accuracy, a.sd, a.nll),
        *(a.macro_recall, a.ece, a.ece_calibrated),
    ]
    if a.price is None:
        return row + [None] * (len(ARM_COLUMNS) - len(row))
    p = a.price
    return [
        *row,
        *(p.seconds, p.ratio, *_ends(p.ratio_interval), p.to_reference, p.images_per_second, p.memory_bytes),
        *(p.model_bytes, p.latency, "yes" if p.alone else "no"),
    ]


def accuracy_row(row: Row) -> list[str]:
    """An arm under ACCURACY_HEAD."""
    mean = f"{percent(row.arm.accuracy)} ± {spread(row.arm.sd)}"
    price = row.arm.price
    return [
        row.arm.name,
        f"{row.failed}; {mean}" if row.failed else mean,
        f"{row.known} of {len(row.arm.accuracies)}",
        "reference" if row.reference else points(row.difference),
        span(row.effect.interval if row.effect else None, points),
        verdict(row.effect) if row.effect else DASH,
        DASH if price is None else minutes(price.seconds) + ("" if price.alone else " (shared device)"),
        DASH if price is None else ratio(price.ratio),
    ]


def effect_row(effect: Effect) -> list[str]:
    """An effect under EFFECT_HEAD."""
    return [
        *(effect.name, effect.says, points(effect.difference), str(len(effect.points))),
        *(span(effect.interval, points), number(effect.p, 3), verdict(effect), points(effect.expected), chance(effect.helps)),
        f"{signed(effect.loss_difference, 3)} ({span(effect.loss_interval, lambda value: signed(value, 3))})",
        "not decided" if effect.loss_verdict == "open" else effect.loss_verdict,
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = (f"| {' | '.join(mark(text.replace(SPACE, ' ')) for text in row)} |" for row in rows)
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines]


def _seeds(findings: Findings) -> list[str]:
    return [f"seed_{seed}" for seed in findings.seeds]


def _csv(head: Sequence[str], seeds: Sequence[str], rows: Iterable[tuple[Sequence[Value], Sequence[float | None]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *seeds])
    for values, per_seed in rows:
        padded = [*per_seed, *[None] * (len(seeds) - len(per_seed))]
        writer.writerow([cell(line(value)) if isinstance(value, str) else value for value in (*values, *padded)])
    return text.getvalue()


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)
