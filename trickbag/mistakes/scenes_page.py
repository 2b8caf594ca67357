"""A review of a detector or a segmenter as one HTML page that needs nothing else and runs no script."""

from typing import TYPE_CHECKING

from trickbag.report.marked import address
from trickbag.report.page import environment

if TYPE_CHECKING:
    from trickbag.mistakes.scenes import SceneReview

HEADS = {
    "detection": (("mAP at 0.5", "mAP"), ("Found", "Wrong", "Missed")),
    "segmentation": (("IoU",), ("Of the pixels", "Mostly taken for")),
}
"""The columns of the table of classes: measures, and what else there is."""


def page(found: "SceneReview") -> str:
    """The page. Equal reviews of equal photos give an equal page."""
    return environment().get_template("scenes.html").render(f=found, heads=HEADS[found.task], picture=address)
