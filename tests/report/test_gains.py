"""What the report says of detectors and segmenters beside the classifier."""

import csv
import io
from dataclasses import replace

import pytest
from findings import onward, sample

from trickbag.report import downstream
from trickbag.report.methods import methods, references_bib
from trickbag.report.page import page
from trickbag.report.tables import effects_csv, markdown
from trickbag.report.times import HEIGHT
from trickbag.statistics.intervals import Interval


def test_sentences_begin_with_what_helps_one_and_hurts_the_other() -> None:
    findings = onward(sample())
    verdicts = {e.name: e.verdict for e in findings.effects}
    assert (verdicts["mixup(alpha=0.2)"], verdicts["ema(half_life=0.02)"]) == ("helps", "worthwhile")
    said = downstream.sentences(findings, 0)
    assert said[0].startswith("mixup(alpha=0.2) helps the classifier (+")
    assert said[0].endswith("but hurts detection on cells (−3.10 points of mAP at 0.5, −4.10 to −2.10).")
    assert not [text for text in said if text.startswith("No trick is shown")]
    (both,) = (text for text in said if text.startswith("ema"))
    assert " and helps detection on cells (+1.80 points" in both
    (one,) = (text for text in said if text.startswith("label_smoothing"))
    assert "makes no difference that matters to the classifier" in one
    assert "but hurts detection on cells" in one
    assert said[-2] == "The network below is the same for flip_tta, so detection on cells is exactly as it was."
    assert said[-1].startswith("Neither is decided for sam, warmup")


def test_where_nothing_is_opposed_the_sentences_say_so() -> None:
    findings = onward(sample(), half=0.02)
    said = downstream.sentences(findings, 1)
    assert "No trick is shown to help the classifier and to hurt segmentation on streets, or the other way round." in said
    assert any(text.startswith("mixup") and "is not decided for segmentation on streets (−3.10" in text for text in said)
    nothing = replace(findings, downstream=(replace(findings.downstream[0], effects=()),))
    assert downstream.sentences(nothing, 0) == ["Nothing is known of detection on cells yet."]
    assert downstream.gains(nothing, 0) is None
    assert "Nothing is known of detection on cells yet." in page(nothing)


def test_where_there_are_no_verdicts_the_sentences_say_what_they_take() -> None:
    findings = onward(sample())
    first = findings.downstream[0]
    bare = tuple(replace(m, verdict="descriptive", interval=None) for m in first.effects)
    plain = tuple(replace(e, verdict="descriptive", interval=None) for e in findings.effects)
    said = downstream.sentences(replace(findings, effects=plain, downstream=(replace(first, effects=bare),)), 0)
    assert len(said) == 1
    assert said[0].startswith("There is no verdict for mixup(alpha=0.2), ")
    assert said[0].endswith("it takes three seeds and two images at least.")


def test_the_chart_has_both_gains_at_their_places_and_leaves_far_ones_out() -> None:
    findings = onward(sample())
    chart = downstream.gains(findings, 0)
    assert chart is not None
    assert [effect.name for effect in chart.beyond] == ["lighting"]
    known = {(e.name, e.says): m for e, m in zip(findings.effects, findings.downstream[0].effects, strict=True)}
    assert len(chart.crosses) == 10
    for cross in chart.crosses:
        own, other = cross.effect, known[cross.effect.name, cross.effect.says]
        assert other.difference is not None
        assert other.interval is not None
        assert cross.x == chart.x.at(own.difference)
        assert cross.y == chart.height(other.difference)
        assert cross.up == (chart.height(other.interval.high), chart.height(other.interval.low))
        assert 0 <= cross.up[0] <= cross.y <= cross.up[1] <= HEIGHT
    assert {cross.effect.name for cross in chart.crosses if cross.decided} == {"mixup(alpha=0.2)", "ema(half_life=0.02)"}


def test_an_interval_that_leaves_the_frame_is_cut_off_there() -> None:
    findings = onward(sample())
    first = findings.downstream[0]
    wide = replace(first.effects[0], interval=Interval(-5.0, 5.0))
    chart = downstream.gains(replace(findings, downstream=(replace(first, effects=(wide, *first.effects[1:])),)), 0)
    assert chart is not None
    assert chart.crosses[0].up is not None
    assert 0 <= chart.crosses[0].up[0] < chart.crosses[0].up[1] <= HEIGHT
    assert abs(chart.y.high) < 1


@pytest.mark.parametrize("place", [0, 1])
def test_tables_have_what_the_findings_have(place: int) -> None:
    findings = onward(sample())
    one = findings.downstream[place]
    rows = list(csv.DictReader(io.StringIO(effects_csv(findings))))
    name = one.name.replace(" ", "_")
    assert [float(row[f"{name}_difference"]) for row in rows] == [m.difference for m in one.effects]
    assert [float(row[f"{name}_low"]) for row in rows] == [m.interval.low for m in one.effects if m.interval]
    assert [row[f"{name}_verdict"] for row in rows] == [m.verdict for m in one.effects]
    assert [float(row["seed_0"]) for row in rows] == [e.points[0] for e in findings.effects]
    assert f"| the classifier | {findings.downstream[0].name} |" in markdown(findings)


def test_a_paper_says_how_they_were_made_and_judged() -> None:
    said = methods(onward(sample()))
    assert "fine-tuned for segmentation on streets, always in the same way, and judged by mean IoU on 72 test images;" in said
    assert "[@efron1982]" in said
    assert "@book{efron1982," in references_bib(onward(sample()))
    assert "efron1982" not in references_bib(sample())


def test_without_transfers_nothing_is_said_of_them() -> None:
    findings = sample()
    assert 'id="downstream"' not in page(findings)
    assert "ownstream" not in markdown(findings)
    assert "detection" not in effects_csv(findings)
