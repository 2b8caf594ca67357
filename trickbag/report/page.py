"""The report of a study as one HTML page that needs nothing else: no script, no request, no file beside it.

Every text goes through jinja2's autoescape and, before that, through ``legible``, so that no name of a class, a file or
an arm can be markup, and none can hide or turn around what stands beside it. The page's own policy
(``default-src 'none'``) holds where a browser is its reader. Charts are drawn in the templates from places that
``charts``, ``forest`` and ``times`` compute, coloured by CSS variables, so that they follow light, dark and paper.
"""

import re
from collections.abc import Callable
from functools import cache
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trickbag.data.long_tail import FEW, MANY
from trickbag.ground.text import counted, legible, line
from trickbag.report import downstream, wording
from trickbag.report.charts import Axis, curves, strips
from trickbag.report.findings import Effect, Findings
from trickbag.report.forest import Forest, Row, forest
from trickbag.report.latex import effects_tex
from trickbag.report.methods import methods, references_bib
from trickbag.report.tables import frequencies, measure_rows, measure_title, rows
from trickbag.report.times import HEIGHT, Times, times

_JPEG = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")
KINDS = {
    "alone": "Alone: added to the reference",
    "dropped": "Dropped: taken out of the full recipe",
    "midpoint": "Midpoint of alone and dropped",
    "step": "Step by step",
    "main": "Main effects",
    "shapley": "Shapley values",
    "varied": "Varied",
    "combination": "Combinations",
    "control": "Controls",
    "interaction": "Interactions",
    "pair": "Pairs",
}


def page(findings: Findings) -> str:
    """The report as HTML. Equal findings give an equal page."""
    single = [effect for effect in findings.effects if effect.kind not in downstream.PAIRED]
    paired = [effect for effect in findings.effects if effect.kind in downstream.PAIRED]
    axis, classes = strips(findings)
    arms = rows(findings)
    return (
        environment()
        .get_template("page.html")
        .render(
            f=findings,
            rows=arms,
            known=[effect for effect in findings.effects if effect.expected is not None],
            outranked={row.effect: row.failed for row in arms if row.effect and row.failed},
            effects=forest(single, findings.delta),
            interactions=forest(paired, findings.delta),
            kinds=KINDS,
            times=times(findings.arms),
            curves=curves(findings.arms),
            strips=classes,
            recalls=axis,
            frequencies=frequencies(findings),
            beside=downstream.lines(findings),
            gains=[downstream.gains(findings, place) for place in range(len(findings.downstream))],
            bounds=(MANY, FEW),
            paper=paper(findings),
        )
    )


def paper(findings: Findings) -> tuple[tuple[str, str], ...]:
    """What a paper about the study can paste: title and text."""
    return (
        ("Methods (Markdown)", methods(findings)),
        ("Effects (LaTeX)", effects_tex(findings)),
        ("References (BibTeX)", references_bib(findings)),
    )


def jpeg(thumbnail: str) -> str:
    """A thumbnail's address if it is nothing but an embedded JPEG, else an empty text.

    >>> jpeg("data:image/jpeg;base64,/9j/4AAQ"), jpeg("javascript:alert(1)")
    ('data:image/jpeg;base64,/9j/4AAQ', '')
    """
    return thumbnail if _JPEG.fullmatch(thumbnail) else ""


def minute_ticks(chart: Times) -> tuple[float, ...]:
    """Round minutes on the axis of seconds."""
    return Axis(chart.x.low / 60, chart.x.high / 60).ticks(7)


def plain(value: float) -> str:
    """A tick without idle zeros.

    >>> plain(82.5), plain(80.0)
    ('82.5', '80')
    """
    return f"{value:.6g}"


def grouped(plot: Forest) -> list[tuple[str, list[Row]]]:
    """The rows of a forest plot by kind, each kind where it comes first."""
    kinds: dict[str, list[Row]] = {}
    for row in plot.rows:
        kinds.setdefault(row.effect.kind, []).append(row)
    return list(kinds.items())


def spoken(effect: Effect) -> str:
    """A row of the forest plot for those who do not see it."""
    return (
        f"{effect.name}: {wording.points(effect.difference)} points, on new photos "
        f"{wording.span(effect.interval, wording.points)}, {wording.verdict(effect)}"
    )


@cache
def environment() -> Environment:
    """The templates of reports, with what they write values by. Every text is escaped."""
    made = Environment(
        loader=PackageLoader("trickbag.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written: tuple[Callable[..., Any], ...] = (
        *(wording.percent, wording.points, wording.signed, wording.number, wording.minutes, wording.ratio, wording.size),
        *(
            wording.span,
            wording.spread,
            wording.chance,
            counted,
            wording.verdict,
            wording.said,
            wording.shorten,
            line,
            wording.pieces,
        ),
        *(jpeg, grouped, spoken, minute_ticks, plain, fmean, measure_rows, measure_title),
        *(downstream.sentences, downstream.title),
    )
    made.globals.update({function.__name__: function for function in written})
    made.globals["SIGNS"] = wording.SIGNS
    made.globals["MEASURES"] = wording.MEASURES
    made.globals["TIMES_HEIGHT"] = HEIGHT
    return made


def _plain(value: Any) -> Any:
    """What the templates put into the page: markup of their own as it is, all else as legible text."""
    return value if hasattr(value, "__html__") else legible(str(value))
