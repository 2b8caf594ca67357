"""A review of a detector or a segmenter as one HTML page that needs nothing else and runs no script."""

import base64
import io
from typing import TYPE_CHECKING

from PIL.Image import Image

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
    return environment().get_template("scenes.html").render(f=found, heads=HEADS[found.task], picture=picture)


def picture(image: Image) -> str:
    """The image as the address of a JPEG."""
    image.save(file := io.BytesIO(), "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
