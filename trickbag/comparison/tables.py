"""Anybody's tables of results as runs to compare."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trickbag.comparison.results import Results, Run, Score, Scores, in_order
from trickbag.comparison.rows import FAILED, FORMS, Columns, Rows, form, known
from trickbag.comparison.sheets import opened
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, clipped, counted, show
from trickbag.statistics.variance import Ints


def read(paths: Sequence[Path]) -> Results | Scores:
    """The runs in some tables, taken together. Raises UsageError, which names the line, where a table makes no sense."""
    sheets = [opened(path, known) for path in paths]
    shapes = [form(sheet) for sheet in sheets]
    for sheet, shape in zip(sheets, shapes, strict=True):
        if (shape.kind, {*shape.numbers}) != (shapes[0].kind, {*shapes[0].numbers}) or shape.texts != shapes[0].texts:
            raise UsageError(
                f"{paths[0]} holds {shapes[0].kind} and {sheet.path} {shape.kind}, or their columns differ. Give all tables "
                "the same columns."
            )
    rows = Rows(shapes[0])
    for sheet in sheets:
        rows.add(sheet)
    if not rows.count:
        raise UsageError(f"{paths[0]} has no rows below its header. Write {FORMS}.")
    source = " and ".join(show(path.name) for path in paths[:2]) + (f" and {len(paths) - 2} more" if len(paths) > 2 else "")
    unused = [*dict.fromkeys(show(clipped(name, 40)) for name in chain(*(shape.unused for shape in shapes)))]
    notes = (f"Not used: the column{'s'[: len(unused) > 1]} {', '.join(unused[:8])}{', …' if len(unused) > 8 else ''}.",)
    return (
        _scores(rows, source, notes if unused else ())
        if "score" in shapes[0].texts
        else _results(rows, source, notes if unused else (), paths[0].parent)
    )


def _scores(rows: Rows, source: str, notes: tuple[str, ...]) -> Scores:
    table = rows.columns()
    methods, seeds = list(rows.names["method"]), list(rows.names["seed"])
    found: dict[tuple[str, str], int] = {}
    runs = []
    for row, (method, seed, value) in enumerate(zip(table["method"], table["seed"], table["score"], strict=True)):
        key = methods[method], seeds[seed]
        if key in found:
            raise UsageError(
                f"{rows.where(table['line'], row)}: method {brief(key[0])} with seed {key[1]} has a score already in "
                f"{rows.where(table['line'], found[key])}. Write one row for each run, or a column image."
            )
        found[key] = row
        runs.append(Score(*key, float(value) if np.isfinite(value) else None))
    return Scores(tuple(runs), source, notes)


def _results(rows: Rows, source: str, notes: tuple[str, ...], folder: Path) -> Results:
    table = rows.columns()
    names = list(rows.names["image"])
    methods, seeds = list(rows.names["method"]), list(rows.names["seed"])
    sound = table["value"] != FAILED
    empty = sound & (table["image"] == rows.names["image"].get("", -1))
    if empty.any():
        raise UsageError(f"{rows.where(table['line'], int(empty.argmax()))}: the image is empty.")
    run = table["method"].astype(np.int64) * len(seeds) + table["seed"]
    order = np.argsort(run * len(names) + table["image"], kind="stable")
    twice = np.flatnonzero((run[order][1:] == run[order][:-1]) & (table["image"][order][1:] == table["image"][order][:-1]))
    if len(twice):
        place = twice[order[twice + 1].argmin()]
        first, again = order[place], order[place + 1]
        raise UsageError(
            f"{rows.where(table['line'], again)}: method {brief(methods[table['method'][again]])}, seed "
            f"{seeds[table['seed'][again]]} has the image {brief(names[table['image'][again]])} already in "
            f"{rows.where(table['line'], first)}. Write one row for each image of a run."
        )
    labels = _one_for_each(rows, table, "label", names, sound) if "label" in table else None
    groups = _one_for_each(rows, table, "group", names, sound) if "group" in table else np.arange(len(names))
    if "" in rows.names["group"]:
        alone = groups == rows.names["group"][""]
        groups[alone] = len(rows.names["group"]) + np.flatnonzero(alone)
    runs = tuple(_runs(rows, table, run, order, methods, seeds))
    classes = tuple(rows.names["label"]) if labels is not None else ()
    return Results(runs, names, groups, labels, classes, source, folder, notes)


def _one_for_each(rows: Rows, table: Columns, column: str, names: list[str], sound: NDArray[np.bool_]) -> Ints:
    """What a column says of each image. Raises UsageError where two rows say different things."""
    images, values = table["image"][sound], table[column][sound]
    found = np.full(len(names), -1, np.int64)
    found[images[::-1]] = values[::-1]
    wrong = sound & (found[table["image"]] != table[column])
    if wrong.any():
        row = int(wrong.argmax())
        first = int((sound & (table["image"] == table["image"][row])).argmax())
        spelled = list(rows.names[column])
        raise UsageError(
            f"{rows.where(table['line'], row)}: the image {brief(names[table['image'][row]])} has the {column} "
            f"{brief(spelled[table[column][row]])}, but {brief(spelled[table[column][first]])} in "
            f"{rows.where(table['line'], first)}. Runs are compared on the same images with the same {column}s."
        )
    return found


def _runs(rows: Rows, table: Columns, run: Ints, order: Ints, methods: Sequence[str], seeds: Sequence[str]) -> Iterator[Run]:
    starts = np.flatnonzero(np.r_[True, run[order][1:] != run[order][:-1]])
    blocks = {int(run[block[0]]): block for block in np.split(order, starts[1:])}
    places = {seed: seeds.index(seed) for seed in in_order(seeds)}
    for method, name in enumerate(methods):
        for seed in places:
            block = blocks.get(method * len(seeds) + places[seed])
            if block is None:
                continue
            values = table["value"][block]
            if (failed := values == FAILED).all():
                yield Run(name, seed, np.zeros(0, np.int64), np.zeros(0, bool), None)
                continue
            if failed.any():
                row = int(block[failed].min())
                raise UsageError(
                    f"{rows.where(table['line'], row)}: the answer is empty, but method {brief(name)}, seed {seed} has "
                    f"{counted(int((~failed).sum()), 'other answer')}. Leave all answers of a run that failed empty, or none."
                )
            logits = table["logits"][block] if "logits" in table else None
            yield Run(name, seed, table["image"][block].astype(np.int64), values == 1, logits)
