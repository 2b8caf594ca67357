"""A comparison as one HTML page, of the parts that a study's report is made of."""

from functools import partial
from typing import TYPE_CHECKING

from trickbag.comparison.pictures import thumbnail
from trickbag.report.forest import forest
from trickbag.report.page import environment

if TYPE_CHECKING:
    from trickbag.comparison.compare import Comparison

MOST_ALBUMS = 6
"""Pairs whose images are shown."""


def page(found: "Comparison") -> str:
    """The page. Equal comparisons give an equal page."""
    effects = [pair.effect for pair in found.pairs]
    return (
        environment()
        .get_template("comparison.html")
        .render(
            f=found,
            effects=effects,
            plot=None if found.kind == "scores" else forest(effects, found.delta),
            kinds={found.kind: f"Each minus {found.methods[0].name}"},
            outranked={},
            thumbnail=partial(thumbnail, found.folder),
            albums=[pair for pair in found.pairs if pair.differing][:MOST_ALBUMS],
        )
    )
