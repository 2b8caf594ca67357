"""The model card of a run: its data, its metrics with their intervals, its limits, how to load it."""

import html
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from trickbag.ground.text import counted, show
from trickbag.models.card import Card
from trickbag.runs.folder import Divided, RunRecord
from trickbag.tricks import parse

MOST = 100
"""Classes that the card names."""
RECIPE = "recipe.toml"


def written(run: Path) -> str:
    """The card in Markdown. No name of a class can be markup of it, of HTML or of a table."""
    card, record = Card.load(run), RunRecord.load(run)
    judged = [("test", record.test)] if record.test else []
    last = record.test or record.val
    per = last.per_class
    recipe = run / RECIPE
    room = Environment(loader=PackageLoader("trickbag.exports"), undefined=StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701  Markdown: names are escaped by plain
    room.filters["plain"] = plain
    return room.get_template("card.md").render(
        card=card,
        record=record,
        most=MOST,
        images=_images(record),
        judged=[*judged, ("validation", record.val)],
        chosen="The epoch was chosen on the validation images, so their score is a little too good.",
        classes=list(zip(card.classes, per.count, per.recall, per.precision, strict=True))[:MOST],
        limits=list(_limits(card, record)),
        version=version("trickbag"),
        recipe=_without_places(recipe.read_text("utf-8")) if recipe.is_file() else "",
    )


def _without_places(recipe: str) -> str:
    """A recipe that names files without the folders in which they lie on this machine, and that ends no fence."""
    return re.sub(r'(?m)^(weights = ").*[/\\\\]', r"\1", recipe.strip().replace("```", ""))


def plain(name: str) -> str:
    r"""A name that Markdown and HTML show as it is.

    >>> print(plain("a|*b* <i>"))
    a\|\*b\* &lt;i&gt;
    """
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(show(name), quote=False))


def _images(record: RunRecord) -> str:
    parts = [f"{counted(own.images, 'image')} for {name}" for name, own in _named(record)]
    return f"{', '.join(parts)} (content {record.data_fingerprint[:16]})"


def _named(record: RunRecord) -> Iterator[tuple[str, Divided]]:
    for split, name in {"train": "training", "val": "validation", "test": "the test"}.items():
        for own in (own for named, own in record.splits.items() if named == split and own.images):
            yield name, own


def _limits(card: Card, record: RunRecord) -> Iterator[str]:
    yield "It knows these classes alone: an image of anything else gets one of them, often with a high probability."
    if not record.test:
        yield "There was no test split: expect less on new images than the validation score says."
    if record.splits["train"].given and not (record.splits["test"].given and record.splits["test"].images):
        yield "The judged images were held out from the training images, so they are alike in all that these have in common."
    if any("region" in parse(text).plugs() for text in card.tricks):
        yield "It was trained on the parts of images that boxes showed; this folder cuts no boxes."
    if card.fit == "pad":
        yield "Images were padded to squares in grey; timm's transform pads with the mean colour."
    yield (
        f"Images were resized by torch with antialiasing and cut to {card.size} pixels; another library's resizing differs by "
        "some grey levels."
    )
