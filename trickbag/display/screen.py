"""What the command line shows: progress and results, drawn by rich on a terminal and as plain lines elsewhere."""

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trickbag.display import output, predicted
from trickbag.display.board import Board
from trickbag.ground import wants
from trickbag.ground.events import CellDone, Doing, EpochDone, Event, Note
from trickbag.ground.glance import Listed
from trickbag.ground.text import as_bytes, counted, duration, line, show, unshow
from trickbag.report import atlas, downstream
from trickbag.report.tables import (
    ACCURACY_HEAD,
    EFFECT_HEAD,
    MEASURE_HEAD,
    accuracy_row,
    effect_row,
    markdown,
    measure_rows,
    measure_title,
    rows,
)
from trickbag.report.wording import MEASURES

SIGNS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
PIPE_WIDTH = 160
LONG = 10.0
"""Seconds from which on progress is told where there is no terminal, however few its parts are."""
MOST_CLASSES, WORST_CLASSES = 50, 20
"""Rows of the tables of classes."""
MOST_ERRORS = 20
"""Probable label errors that are printed."""
HEADLINES = {"top1": "top-1", **MEASURES}
"""What a person calls a measure; of those of an epoch, the first one is shown."""
NARROW = ("seeds", "ΔNLL", "time ratio")
"""Columns that a terminal has no room for; the report has them."""


class Screen:
    """A terminal or a pipe. ``quiet`` keeps standard output for data alone."""

    def __init__(self, quiet: bool = False) -> None:
        follower = os.environ.get("RANK", "0") != "0"  # torchrun starts several of us: the first one speaks
        plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
        self.out = Console(**plain, quiet=follower, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self.console = Console(**plain, stderr=True) if quiet else self.out
        self.progress = Board(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.said: set[tuple[str, int]] = set()
        self.begun: dict[str, float] = {}
        """When work was first told of, by the monotonic clock."""

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:  # elsewhere it would print an empty line
            self.progress.stop()

    def tell(self, event: Event) -> None:
        """Show what long work tells."""
        if isinstance(event, Note):
            self.note(event.text)
        elif isinstance(event, EpochDone):
            self.epoch(event)
        elif isinstance(event, CellDone):
            self.run(event)
        elif self.console.is_terminal:
            self._bar(event)
        else:
            self._tenths(event)

    def beside_rows(self, event: Event) -> None:
        """The same while rows are written to standard output: of progress only what does not come between them."""
        if not isinstance(event, Doing) or (self.console is self.out) == sys.stdout.isatty():
            self.tell(event)

    def _bar(self, event: Doing) -> None:
        kind = "training" if event.task.startswith("epoch") else event.task
        if kind not in self.tasks:
            self.tasks[kind] = self.progress.add_task(event.task, total=event.total)
        self.progress.update(self.tasks[kind], completed=event.done, total=event.total, description=event.task)
        if event.done >= event.total:
            self.progress.remove_task(self.tasks.pop(kind))

    def _tenths(self, event: Doing) -> None:
        tenth = 10 * event.done // max(1, event.total)
        long = event.total > 200 or time.monotonic() - self.begun.setdefault(event.task, time.monotonic()) > LONG
        if long and not event.task.startswith("epoch") and (event.task, tenth) not in self.said and tenth:
            self.said.add((event.task, tenth))
            self.note(f"{event.task}: {event.done:,} of {event.total:,}")

    def note(self, text: str) -> None:
        """A sentence about the work."""
        self.console.print(Text(line(text), style="dim"))

    def lines(self, *texts: str) -> None:
        """Lines of the answer; whatever is called in them, none steers a terminal."""
        for text in texts:
            self.out.print(Text(line(text)))

    def epoch(self, event: EpochDone) -> None:
        """A line for an epoch."""
        line = event.line
        loss = f"loss {line['loss']:.3f}   " if line["loss"] is not None else ""
        name = next(name for name in HEADLINES if name in line["val"])
        raw = f" (raw weights {rate(line['raw'][name])})" if "raw" in line else ""
        kept = "   kept" if line["kept"] else ""
        head = f"epoch {event.epoch:>3} of {event.epochs}" if event.epoch else "before training"
        self.note(f"{head}   {loss}validation {HEADLINES[name]} {rate(line['val'][name])}{raw}   {line['seconds']:.0f} s{kept}")

    def run(self, event: CellDone) -> None:
        """A run of a study: in the table on a terminal, as a line elsewhere."""
        self.progress.add(event)
        if self.console.is_terminal:
            self.progress.refresh()
            return
        said = percent(event.accuracy) if event.accuracy is not None else "no result"
        failure = f"   failed: {event.failure}" if event.failure else ""
        left = f", about {duration(event.seconds_left)} left" if event.seconds_left else ""
        self.note(f"{event.arm}, seed {event.seed}: {said}   ({event.done} of {event.total} runs{left}){failure}")

    def study(self, finished: Any) -> None:
        """The answer of a study, the table, and where the report lies."""
        self.lines(*finished.findings.answer, "")
        shown = tuple(effect for effect in finished.findings.effects if effect.declared or effect.kind == "control")
        if self.out.is_terminal:
            self.table(ACCURACY_HEAD, map(accuracy_row, rows(finished.findings)))
            self.table(EFFECT_HEAD, map(effect_row, shown))
            for measure in finished.findings.measures:
                self.lines(measure_title(measure))
                self.table(MEASURE_HEAD, measure_rows(measure))
            if finished.findings.downstream:
                self.table(downstream.head(finished.findings), downstream.rows(replace(finished.findings, effects=shown)))
                self.lines(*downstream.told(finished.findings))
        else:
            self.out.print(markdown(replace(finished.findings, effects=shown)).strip(), markup=False)
        sharing = finished.findings.sharing
        self.lines(
            "",
            f"trained {sharing.trained_steps:,} steps; the runs alone would have taken {sharing.naive_steps:,}",
            *(f"failed: {f.arm}, seed {f.seed}: {f.kind}: {f.cause}" for f in finished.findings.failures),
            f"report: {finished.folder / 'report.html'}",
            f"try next: {shlex.join(['trickbag', *finished.following])}",
        )

    def atlas(self, made: Any, folder: Any) -> None:
        """What the studies of several data sets say together, a table for each regime, and where it lies."""
        for group in made.groups:
            self.lines(f"{group.regime}: {atlas.sets(group)}", *atlas.answer(group))
            self.table(atlas.HEAD, map(atlas.row, group.entries))
            self.lines(*group.notes, "")
        ahead = any(entry.pooled and entry.pooled.prediction for group in made.groups for entry in group.entries)
        following = shlex.join(["trickbag", "study", "DATA", "--tricks", "auto", "--prior", str(folder / "atlas.json")])
        self.lines(
            "gains in percentage points; 95 % intervals, each trick by itself",
            f"atlas: {show(str(folder / 'atlas.html'))}",
            *([f"try next: {following}"] if ahead else ()),
        )

    def table(self, head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
        """A table that breaks long cells instead of lines."""
        table, kept = Table(box=SIMPLE_HEAD, pad_edge=False), [n for n, name in enumerate(head) if name not in NARROW]
        for name in (head[n] for n in kept):
            table.add_column(name, min_width=12 if name in ("arm", "effect", "verdict") else None, overflow="fold")
        for row in lines:
            table.add_row(*(Text(line(row[n])) for n in kept))
        self.out.print(table)

    def json(self, value: Any) -> None:
        """Strict JSON on standard output."""
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def result(self, result: Any) -> None:
        """The answer of a training in five lines: what was done, how good, how sure, where it lies."""
        from trickbag.models.card import Card

        record, card = result.record, Card.load(result.folder)
        val = record["val"]
        judged, name = (record["test"], "test") if record["test"] else (val, "validation")
        low, high = judged["top1_interval"]
        kept = (
            f"epoch {record['kept_epoch']} of {record['epochs']} kept{', chosen on validation' if record['chosen'] else ''}"
            if record["epochs"]
            else "no epoch of training"
        )
        if record.get("trained", 1.0) < 1:
            kept += f", ended after {percent(record['trained'])} of the training"
        rate = f"   {record['images_per_second']:.0f} images/s" if record["images_per_second"] else ""
        validation = f"   validation {percent(val['top1'])}" if record["test"] else ""
        self.lines(
            f"trained {card.model} for {counted(len(card.classes), 'class', 'classes')} at {card.size} pixels: {kept}",
            f"{name} top-1 {percent(judged['top1'])}  ({100 * low:.1f} - {100 * high:.1f}, {judged['n']:,} images)"
            f"{validation}   {duration(record['seconds'])}{rate}",
            f"95 % interval for new images from the same source; macro recall {percent(judged['macro_recall'])}, "
            f"NLL {judged['nll']:.3f}, calibration error {percent(judged['ece'])}",
            *own(judged["metrics"]),
            *covered(judged.get("sets"), card.classes),
            *changed(record.get("training_images")),
            *caveats(record),
            f"the run lies in {show(str(result.folder))}: curves.png, confusion.png, result.json, model.safetensors",
        )

    def transfer(self, made: Any) -> None:
        """How right a detector or a segmenter is, and for which classes."""
        record, run = made.record, made.runs[0].record
        self.measures(record["measures"], record["intervals"], record["classes"], record["split"] + " ")
        new = "new images and seeds" if len(record["seeds"]) > 1 else "new images"
        self.lines(
            f"95 % intervals for {new}; {counted(record['images'], 'image')}, {counted(len(record['seeds']), 'seed')}, "
            f"{counted(run['epochs'], 'epoch')}, {duration(record['seconds'])}",
            f"the results lie in {show(str(made.folder))}: summary.json, and a folder for each seed",
        )

    def marks(self, found: Any) -> None:
        """How right a detector or a segmenter is on other images, and what flatters it."""
        whole = found.whole.plain()
        self.measures(whole["measures"], whole["intervals"], whole["classes"])
        self.lines(f"95 % intervals for new images; {counted(whole['n'], 'image')}")
        known = [f"trained on {found.trained_on:,}"] if found.trained_on else []
        known += [f"was validated on {found.chosen_on:,}"] if found.chosen_on else []
        if known:
            self.lines(f"it {' and '.join(known)} of these images, so the scores above are too good")
        if found.unseen:
            name, value = next(iter(found.unseen.measures.items()))
            self.lines(f"without them: {HEADLINES[name]} {rate(value)} on {counted(found.unseen.n, 'image')}")
        elif known:
            self.lines("no image is left without them: judge it on others")

    def measures(self, measures: Any, intervals: Any, classes: Any, split: str = "") -> None:
        """The measures of boxes or regions: those of each class, and over all of them with their intervals."""
        table = Table(box=SIMPLE_HEAD)
        names = list(next(iter(classes.values())))
        for head in ("class", *(HEADLINES[name] if name != "miou" else "IoU" for name in names)):
            table.add_column(head, justify="left" if head == "class" else "right")
        for label, values in classes.items():
            table.add_row(show(label), *(rate(values[name]) for name in names))
        self.out.print(table)
        for name, value in measures.items():
            ends = intervals.get(name)
            said = f"({100 * ends[0]:.1f} - {100 * ends[1]:.1f})" if ends else "(no interval)"
            self.lines(f"{split}{HEADLINES[name]} {rate(value)}  {said}")

    def scores(self, found: Any) -> None:
        """Metrics on other data, with the classes that do worst; before those, how images of unknown classes are rejected."""
        from trickbag.engine.open_set import OpenScores
        from trickbag.engine.scores import interval

        scores = found.scores
        low, high = interval(round(scores.top1 * scores.n), scores.n)
        judged = f"{scores.n:,} images" + (" of known classes" if isinstance(scores, OpenScores) else "")
        self.lines(
            f"top-1 {percent(scores.top1)}  ({100 * low:.1f} - {100 * high:.1f}, {judged})",
            f"top-5 {percent(scores.top5)}   macro recall {percent(scores.macro_recall)}   macro F1 {percent(scores.macro_f1)}",
            f"NLL {scores.nll:.3f}   Brier {scores.brier:.3f}   calibration error {percent(scores.ece)}",
        )
        if isinstance(scores, OpenScores):
            by = {"probability": "largest probability", "energy": "energy"}[scores.by]
            self.lines(
                f"{scores.n_unknown:,} images of unknown classes: AUROC {scores.auroc:.3f} by the {by}",
                f"rejected below {scores.threshold:.4g}, which keeps {percent(scores.kept_val)} of the run's validation "
                f"images: {percent(scores.rejected_unknown)} of the unknown, {percent(scores.rejected_known)} of the known",
                f"open-set F-measure {percent(scores.f_measure)}, {percent(scores.f_measure_unrejected)} with nothing rejected",
            )
        made = found.sets
        self.lines(*own(found.metrics), *covered(made and asdict(made), found.classes), *overlap(found))
        table = Table("class", "images", "recall", "precision", box=None)
        per = scores.per_class
        rows = sorted(zip(per.recall, found.classes, per.count, per.precision, strict=True), key=lambda row: row[0])
        for recall, name, count, precision in [row for row in rows if row[2]][:WORST_CLASSES]:
            table.add_row(Text(show(name)), str(count), percent(recall), percent(precision))
        self.out.print(table)
        self.rest(sum(count > 0 for count in per.count) - WORST_CLASSES)

    def comparison(self, found: Any) -> None:
        """Which method is better, the methods and their differences, and what is to be known of them."""
        from trickbag.comparison.words import HEAD, rows

        self.lines(*found.answer)
        self.table(HEAD, rows(found))
        self.lines(*(f"note: {note}" for note in found.notes))

    def check(self, found: Any, brief: bool = False) -> None:
        """What an audit found."""
        images = found.images
        sizes = found.sizes
        self.lines(
            f"{counted(len(images), 'image')} in {counted(len(images.classes), 'class', 'classes')}; "
            f"{counted(len(found.left_out), 'file')} left out; "
            f"largest class : smallest = {found.imbalance:.1f} : 1; "
            f"median {sizes.get('width', 0)} x {sizes.get('height', 0)} pixels"
            + (f", of which a central crop cuts away {100 * cut:.0f} %" if (cut := images.cut_away()) > 0.005 else "")
        )
        shown = [finding for finding in found.findings if not brief or finding.severity != "note"]
        left_out = found.left_out

        def details(finding: Any) -> list[str]:
            reasons = ((path, left_out.get(unshow(path))) for path in finding.paths)
            return [f"{path}: {reason}" if reason else path for path, reason in reasons]

        self.findings(shown, details)
        self.label_errors(found.label_errors, len(images))
        if not brief:
            if not found.findings and not found.label_errors:
                self.lines("nothing is wrong with these images")
            table = Table("class", "images", box=None)
            for name, counts in list(found.counts.items())[:MOST_CLASSES]:
                row = {"to be split" if split == "unassigned" else split: count for split, count in counts.items()}
                table.add_row(Text(show(name)), "  ".join(f"{split} {count}" for split, count in row.items()) or "0")
            self.out.print(table)
            self.rest(len(found.counts) - MOST_CLASSES)

    def scenes(self, found: Any) -> None:
        """What an audit of boxes or regions found, and a table of the classes."""
        title, facts, _, _ = found.scenes._sheet()
        self.lines(f"{title}: {', '.join(f'{split} {count}' for split, count in facts.items())}")
        self.findings(found.findings, found.details)
        if not found.findings:
            self.lines("nothing is wrong with these images")
        head, rows = found.table()
        table = Table(*head, box=None)
        for row in rows[:MOST_CLASSES]:
            table.add_row(*map(Text, row))
        self.out.print(table)
        self.rest(len(rows) - MOST_CLASSES)

    def findings(self, findings: Iterable[Any], details: Callable[[Any], list[str]]) -> None:
        """What was found, with a line for each of the first files and what to do."""
        for finding in findings:
            style = {"error": "bold red", "warning": "yellow", "note": ""}[finding.severity]
            self.out.print(Text(line(f"{finding.severity}: {finding.message}"), style=style))
            lines = details(finding)
            self.lines(*(f"    {one}" for one in lines[:10]))
            if len(lines) > 10:
                self.lines(f"    and {len(lines) - 10:,} more (all of them: --json)")
            if finding.suggestion:
                self.lines(f"    -> {finding.suggestion}")

    def review(self, found: Any, page: str) -> None:
        """What went wrong, and where the page lies."""
        self.lines(*found.answer)
        if hasattr(found, "worst"):
            self.lines(*(f"    {show(one.path)}: {one.said}" for one in found.worst[:MOST_ERRORS]))
        else:
            self.label_errors(found.label_errors, int(found.confusion.sum()), "on the page")
        self.lines(f"page: {show(page)}")

    def label_errors(self, errors: Any, images: int, rest: str = "--json") -> None:
        """The probable label errors that were found, the worst first."""
        if errors is None:
            return
        self.lines(f"probable label errors: {len(errors):,} of {images:,} images" + (", the worst first" if errors else ""))
        for one in errors[:MOST_ERRORS]:
            said = f"{show(one.given)}, rather {show(one.suggested)} ({percent(one.probability)})"
            self.lines(f"    {show(one.path)}: {said}")
        if len(errors) > MOST_ERRORS:
            self.lines(f"    and {len(errors) - MOST_ERRORS:,} more (all of them: {rest})")

    def rest(self, more: int) -> None:
        """That a table of classes goes on."""
        if more > 0:
            self.lines(f"and {counted(more, 'more class', 'more classes')} (all of them: --json)")

    def plan(self, plan: Any) -> None:
        """What a training would do and cost."""
        self.lines(*plan.recipe.toml(plan.reasons).splitlines(), *plan.lines())

    def predictions(self, predictions: Iterable[Any], form: Any, task: str = "classification") -> None:
        """What is said of images: text, or rows in UTF-8, in which names are what they are, also bytes that are no text."""
        if form == "csv":
            self.raw(predicted.row(predicted.HEADS[task]))
        for p in predictions:
            if output.lost():
                return
            self.raw(predicted.text(form, p)) if form else self.lines(predicted.line(p))

    def raw(self, text: str) -> None:
        """Rows on standard output."""
        sys.stdout.flush()
        sys.stdout.buffer.write(as_bytes(text))

    def bag(self, bag: Mapping[str, Listed]) -> None:
        """All tricks, a line each, by what they help with."""
        table = Table("trick", "what it does", "plugs into", box=None)
        for want, (names, above) in wants.grouped(bag).items():
            table.add_section()
            table.add_row(Text(f"for {want}" if want in wants.WANTS else want, style="bold"))
            for name in names:
                origin = f" (from {show(bag[name].origin)})" if bag[name].origin else ""
                table.add_row(name, Text(bag[name].card["Title"] + origin), ", ".join(bag[name].plugs))
            if above:
                table.add_row("", Text(f"also {', '.join(above)}"))
        self.out.print(table)
        self.lines("", "search the cards: trickbag tricks --for 'few images'; a whole card: trickbag tricks NAME")

    def found(self, tricks: Sequence[wants.Found]) -> None:
        """Tricks whose cards say what was asked for, and the words."""
        table = Table("trick", "", "", box=None)
        for one in tricks:
            table.add_row(one.name, one.part.lower(), Text(line(one.line)))
        self.out.print(table)

    def laws(self, found: Any) -> None:
        """A line for each law."""
        for one in found.laws:
            word = "broken" if not one.obeyed else "obeyed" if not one.why else "idle"
            self.lines(f"{word:<8}{one.law:<20}{one.says if word == 'obeyed' else show(one.why)}")
        idle = sum(one.obeyed and bool(one.why) for one in found.laws)
        obeyed, broken = len(found.laws) - len(found.broken) - idle, len(found.broken)
        self.lines("", f"{found.trick}: {obeyed} laws obeyed, {broken} broken, {idle} with nothing to say of it")

    def card(self, trick: Any) -> None:
        """One trick's card."""
        from trickbag.plugins import of
        from trickbag.trick import card

        words = card(trick)
        self.lines(trick.usage(), words.pop("Title"), "")
        self.lines(*(f"{word + ':':<9}{text}" for word, text in words.items()))
        self.lines(*(f"{'From:':<9}{one.origin}, {one.digest}" for one in of([trick]).values()))
        plugs = f"{', '.join(trick.plugs())} (stage {trick.stage.name})" if trick.plugs() else "as the trick that it holds"
        self.lines(f"{'Plugs:':<9}{plugs}", "")
        for name, field in trick.model_fields.items():
            default = "required" if field.is_required() else f"default {field.default!r}"
            within = f"; {bounds(field)}" if bounds(field) else ""
            self.lines(f"  {name}: {default}{within}", f"      {' '.join((field.description or '').split())}")


def bounds(field: Any) -> str:
    """Between which values a trick's field lies; empty for one without."""
    return " and ".join(f"{sign} {getattr(m, word)}" for m in field.metadata for word, sign in SIGNS if hasattr(m, word))


def own(metrics: Mapping[str, float | None]) -> Iterator[str]:
    """What one's own metrics say, in a line."""
    if metrics:
        yield "   ".join(f"{name} {'failed' if value is None else f'{value:.4g}'}" for name, value in metrics.items())


def covered(sets: Mapping[str, Any] | None, classes: Sequence[str]) -> Iterator[str]:
    """How often sets hold the right class, over all images and for the class that they hold least often."""
    from trickbag.engine.sets import Coverage, told

    if not sets:
        return
    yield f"sets of {sets['by']} {told(Coverage(**sets['whole']))}"
    own = [(name, one) for name, one in zip(classes, sets["classes"], strict=True) if one["n"]]
    if any(one["held"] < sets["whole"]["held"] for _, one in own):
        name, least = min(own, key=lambda pair: pair[1]["held"])
        yield f"those of the class {show(name)} least often: they {told(Coverage(**least))}"
    if sets.get("chosen"):
        yield "validation also chose the epoch, so that what the sets promise holds nearly: believe the images that measured it"


def rate(share: float | None) -> str:
    """A share in percent, which may be none where there is nothing to find."""
    return "–" if share is None or math.isnan(share) else percent(share)


def changed(images: Mapping[str, int] | None) -> Iterator[str]:
    """What tricks made of the training images, where they changed any."""
    from trickbag.engine.changed import WORDS

    said = [f"{images[kind]:,} {word}" for kind, word in WORDS.items() if images and images.get(kind)]
    if images and said:
        yield f"trained on {counted(images['images'], 'image')}: {', '.join(said)}, which changed.csv lists"


def caveats(record: Mapping[str, Any]) -> Iterator[str]:
    """What flatters the scores of a run, or keeps tricks out of them, a sentence each."""
    if short := record.get("short"):
        yield f"{short}. The scores are those of a network that is hardly trained: give more --budget"
    elif record["epochs"] and not record["kept_epoch"]:
        yield (
            "no epoch was better on validation than the network before training, so what acts in training steps has no part in "
            "these scores: give more epochs, or --set keep=last"
        )
    if record["chosen"] and not record["test"]:
        yield "there is no test split: the epoch was chosen on the validation images, so this score is too good for new images"
    for split, name in (("val", "validation"), ("test", "test")):
        own = record["splits"][split]
        if record["splits"]["train"]["given"] and not own["given"] and own["images"]:
            yield f"the {own['images']:,} {name} images were held out from your training images"
        if own["trained_before"]:
            yield (
                f"{own['trained_before']:,} of the {own['images']:,} {name} images were trained on by a run that this one "
                f"builds on: the {name} score is too good"
            )


def overlap(found: Any) -> Iterator[str]:
    """How many of the images that were judged a run knew, and the score without them."""
    n = found.scores.n
    known = [f"was trained on {found.trained_on:,}"] if found.trained_on else []
    known += [f"was validated on {found.chosen_on:,}"] if found.chosen_on else []
    if known:
        yield f"the run {' and '.join(known)} of these {n:,} images, so the score above is too good"
    if known and found.unseen:
        yield f"without them: top-1 {scored(found.unseen)}"
    elif known:
        yield "no image is left without them: judge the run on others"


def scored(scores: Any) -> str:
    """A top-1 accuracy with its interval and its n."""
    from trickbag.engine.scores import interval

    low, high = interval(round(scores.top1 * scores.n), scores.n)
    return f"{percent(scores.top1)}  ({100 * low:.1f} - {100 * high:.1f}, {scores.n:,} images)"


def percent(share: float | None) -> str:
    """A share as STYLE has it.

    >>> percent(0.826)
    '82.6 %'
    """
    return "-" if share is None else f"{100 * share:.1f} %"
