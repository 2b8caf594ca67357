"""Tables: CSV that reads back to the same values and no formula, Markdown that an independent parser reads as plain text."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from findings import proved, sample
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from trickbag.ground.text import legible, line
from trickbag.report.tables import arms_csv, cell, effects_csv, mark, markdown, rows
from trickbag.report.wording import number, percent, points, shorten, verdict
from trickbag.statistics.intervals import Interval

HOSTILE = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "a\nb", 'a"b,c', "\udcff\0", "")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def cells(text: str) -> list[list[str]]:
    """The rows of all tables in Markdown, as a reader sees them; fails where anything but text is in a cell."""
    found: list[list[str]] = []
    for token in MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"]).parse(text):
        if token.type == "tr_open":
            found.append([])
        if token.type == "inline" and found and token.level > 2:
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.content
            found[-1].append("".join(child.content for child in token.children or ()))
    return found


def test_effects_read_back_as_they_were() -> None:
    findings = sample()
    table = read(effects_csv(findings))
    assert len(table) == len(findings.effects)
    for row, effect in zip(table, findings.effects, strict=True):
        assert row["name"] == effect.name
        assert float(row["difference"]) == effect.difference
        assert [float(row[f"seed_{s}"]) for s in findings.seeds] == list(effect.points)
        assert effect.interval == Interval(float(row["low"]), float(row["high"]))
        assert float(row["error"]) == effect.error
        assert effect.over_seeds == Interval(float(row["seeds_low"]), float(row["seeds_high"]))
        assert effect.loss_interval == Interval(float(row["loss_low"]), float(row["loss_high"]))
        assert (row["verdict"], row["loss_verdict"]) == (effect.verdict, effect.loss_verdict)
        assert (row["more_seeds"] == "") == (effect.more_seeds is None)
        assert row["declared"] == ("yes" if effect.declared else "no")


def test_arms_read_back_as_they_were() -> None:
    findings = sample()
    table = read(arms_csv(findings))
    for row, arm in zip(table, findings.arms, strict=True):
        assert arm.price
        assert (float(row["accuracy"]), float(row["seconds"])) == (arm.accuracy, arm.price.seconds)
        assert (int(row["failed"]), int(row["seeds"]), row["timed_alone"]) == (arm.failed, 5, "yes")
        assert row["edits"].lstrip("'") == arm.edits


def test_what_is_missing_is_an_empty_cell() -> None:
    findings = sample(arms=2, seeds=1)
    bare = dataclasses.replace(findings.arms[1], price=None, accuracy=None, sd=None, accuracies=(None,), nll=None, ece=None)
    row = read(arms_csv(dataclasses.replace(findings, arms=(findings.arms[0], bare))))[1]
    assert [row[key] for key in ("accuracy", "sd", "nll", "seconds", "seed_0", "timed_alone")] == [""] * 6
    assert read(effects_csv(findings))[0]["low"] == ""


@pytest.mark.parametrize("name", HOSTILE)
def test_no_cell_of_text_is_a_formula(name: str) -> None:
    findings = sample(arms=2)
    effect = dataclasses.replace(findings.effects[0], name=name, says=name, note=name)
    arm = dataclasses.replace(findings.arms[1], name=name, edits=name)
    changed = dataclasses.replace(findings, effects=(effect,), arms=(findings.arms[0], arm))
    for text in (effects_csv(changed), arms_csv(changed)):
        text.encode()
        for row in read(text):
            for key, value in row.items():
                assert not value.lstrip().startswith(tuple("=+@＝＋－＠")), (key, value)
                assert not value.startswith("-") or math.isfinite(float(value))


@given(st.text())
def test_a_cell_differs_from_its_text_by_an_apostrophe_at_most(text: str) -> None:
    assert cell(text) in (text, f"'{text}")
    assert not cell(text).lstrip().startswith(("=", "+", "-", "@"))


@given(st.text())
def test_markdown_shows_any_name_as_it_is(name: str) -> None:
    table = f"| a |\n| --- |\n| x{mark(name)}x |\n"
    (shown,) = cells(table)[1]
    assert shown == f"x{line(name).strip()}x"


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "`a|b`",
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "![x](y)",
        "&lt;",
        "https://x.org",
        "www.x.org",
        "*a*",
        "__a__",
        "~~a~~",
        "\\|",
        "a\nb",
        "@someone",
        "#1",
    ],
)
def test_markdown_names_are_no_markup(name: str) -> None:
    findings = sample(arms=2)
    changed = dataclasses.replace(findings, arms=(findings.arms[0], dataclasses.replace(findings.arms[1], name=name)))
    table = cells(markdown(changed))
    assert table[2][0] == line(name)
    assert "https://x" not in markdown(changed)
    assert "www.x" not in markdown(changed)


def test_markdown_has_a_row_for_every_arm_and_effect() -> None:
    findings = sample()
    table = cells(markdown(findings))
    assert len(table) == 2 + len(findings.arms) + len(findings.effects)
    assert {len(row) for row in table} == {8, 11}
    reference, mixup = table[1], table[2]
    assert reference[3] == "reference"
    assert mixup[3] == points(findings.effects[0].difference)
    assert mixup[5] == "helps"


def test_failures_stand_before_the_mean() -> None:
    findings = sample()
    (row,) = [row for row in cells(markdown(findings)) if row[0] == "+lighting"]
    assert row[1].startswith("3 of 5 seeds diverged; ")


def test_an_arm_is_joined_with_the_effect_that_compares_it_with_the_reference() -> None:
    findings = sample()
    table = rows(findings)
    assert table[0].effect is None
    assert [row.effect for row in table[1:]] == list(findings.effects[:11])
    for row in table[1:]:
        assert row.effect
        assert row.difference == pytest.approx(row.effect.difference)
    dropped = dataclasses.replace(findings, effects=findings.effects[1:])
    assert rows(dropped)[1].effect is None


def test_an_arm_with_a_missing_seed_is_compared_on_the_others() -> None:
    findings = sample(arms=2)
    arm, base = findings.arms[1], findings.arms[0]
    gap = dataclasses.replace(arm, accuracies=(None, *arm.accuracies[1:]))
    row = rows(dataclasses.replace(findings, arms=(base, gap)))[1]
    assert row.known == 4
    assert row.difference == pytest.approx(sum(findings.effects[0].points[1:]) / 4)
    assert row.effect == findings.effects[0]


def test_test_set_selection_is_said() -> None:
    assert "selected on the test set" in markdown(dataclasses.replace(sample(), on_test=True))
    assert "selected on the test set" not in markdown(sample())


def test_verdicts_in_words() -> None:
    effects = sample().effects
    undecided = dataclasses.replace(effects[0], verdict="open", more_seeds=1, more_images=None)
    assert verdict(undecided) == "not decided; about 1 more seed may decide it"
    by_images = dataclasses.replace(undecided, more_seeds=None, more_images=1200)
    assert verdict(by_images) == "not decided; about 1,200 more judged images may decide it"
    assert verdict(dataclasses.replace(by_images, more_images=None)) == "not decided; that takes many more seeds and images"
    assert verdict(dataclasses.replace(undecided, verdict="identical")) == "the same network"
    assert verdict(sample(seeds=2).effects[0]) == "descriptive only"


def test_numbers_are_never_nan() -> None:
    for value in (None, math.nan, math.inf, -math.inf):
        assert number(value) == percent(value) == points(value) == "–"


@given(st.text(alphabet=st.characters()))
def test_legible_text_can_be_encoded_and_stays_as_it_is(text: str) -> None:
    once = legible(text)
    once.encode()
    assert legible(once) == once
    assert "\n" not in line(text)


@given(st.text(), st.integers(4, 40))
def test_shortened_names_keep_both_ends(name: str, length: int) -> None:
    short = shorten(name, length)
    assert len(short) <= length or short == line(name)
    assert short[:2] == line(name)[:2]
    assert short[-1:] == line(name)[-1:]


def test_equal_findings_give_equal_tables() -> None:
    for write in (effects_csv, arms_csv, markdown):
        assert write(proved(sample())) == write(proved(sample()))


def test_recalls_by_training_images_stand_below_where_classes_differ_in_them() -> None:
    plain = sample()
    counts = 10 * 3 ** np.arange(len(plain.classes))
    found = dataclasses.replace(plain, trained=tuple(counts.tolist()))
    table = markdown(found)
    assert "many above 100, few below 20" in table
    first = found.arms[0]
    many = np.mean([recall for recall, trained in zip(first.recalls, counts, strict=True) if trained > 100])
    assert f"| {first.name} | {100 * many:.1f} % |" in table
    assert "many above" not in markdown(plain)
