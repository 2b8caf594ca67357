"""A review as one HTML page that needs nothing else: a script of its own filters, sorts and saves corrections.

Every name goes through jinja2's autoescape or, for the script, through JSON without a sign that markup could begin with. The
page's policy lets nothing run but the one script, by its hash.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import PackageLoader
from markupsafe import Markup

from trickbag.data.corrections import DROP
from trickbag.ground.text import show
from trickbag.mistakes.thumbnails import thumbnail
from trickbag.report.page import environment
from trickbag.report.wording import shorten
from trickbag.runs.folder import Mistake

if TYPE_CHECKING:
    from trickbag.mistakes.look import Review

MOST = 600
"""Images on the page, of however many: with pictures of about 5 kB it stays below 5 MB."""
MOST_ERRORS, MOST_PAIRS = 250, 50
"""Probable label errors among them, and pairs of near copies."""
MOST_CLASSES = 30
"""Rows and columns of the confusion matrix."""
MOST_ROWS = 300
"""Of the table of classes."""
HEAT = 8
"""Shades of a cell."""


@dataclass
class Card:
    """An image on the page."""

    path: str
    label: str
    said: str = ""
    """Empty where nobody judged it."""
    probability: float | None = None
    kinds: list[str] = field(default_factory=list)
    """Of "label", "wrong", "copy" and "unlike"."""
    rank: int = MOST
    """Among the probable label errors."""
    distance: float = 0.0
    copies: list[str] = field(default_factory=list)
    """Near copies with other labels, in words."""
    pair: int = MOST
    picture: str = ""

    @property
    def suggested(self) -> str:
        """Another class that it may be."""
        return self.said if self.said != self.label else ""


def page(found: "Review") -> str:
    """The page. Equal reviews of equal photos give an equal page."""
    cards = list(chosen(found).values())
    if found.root is not None:
        for card in cards:
            card.picture = thumbnail(found.root / card.path, found.contents.get(card.path, ""))
    loader = environment().loader
    assert isinstance(loader, PackageLoader)
    script = loader.get_source(environment(), "review.js")[0]
    confused = matrix(found)
    return (
        environment()
        .get_template("review.html")
        .render(
            f=found,
            cards=cards,
            script=Markup(script),  # noqa: S704
            data=facts(found, cards),
            policy="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            kinds={kind: sum(kind in card.kinds for card in cards) for kind in ("label", "wrong", "copy", "unlike")},
            totals={
                "label": len(found.label_errors),
                "wrong": len(found.wrong),
                "copy": len({path for pair in found.copies for path in pair.paths}),
                "unlike": len(found.unlike),
            },
            most=MOST,
            matrix=confused,
            heat=lambda true, told: heat(found, true, told),
            rows=sorted(found.per_class, key=lambda one: (one.recall is None, one.recall))[:MOST_ROWS],
            number={name: k for k, name in enumerate(found.classes)},
        )
    )


def chosen(found: "Review") -> dict[str, Card]:
    """The images that the page shows, by path: of each kind the first, then mistakes from every cell of the matrix in turn."""
    cards, said = dict[str, Card](), {one.path: one for one in found.wrong}

    def card(path: str, label: str, kind: str) -> Card:
        made = cards.setdefault(path, Card(path, label))
        if mistake := said.get(path):
            made.said, made.probability = mistake.predicted, mistake.probability
        made.kinds += [one for one in (kind, "wrong" if mistake else kind) if one not in made.kinds]
        return made

    for rank, error in enumerate(found.label_errors[:MOST_ERRORS]):
        card(error.path, error.given, "label").rank = rank
    for number, pair in enumerate(found.copies[:MOST_PAIRS]):
        for place in (0, 1):
            made = card(pair.paths[place], pair.labels[place], "copy")
            made.copies.append(f"{show(pair.paths[1 - place])}, labelled {show(pair.labels[1 - place])}")
            made.pair = min(made.pair, number)
    for one in found.unlike:
        card(one.path, one.label, "unlike").distance = one.distance
    for mistake in islice(in_turn(found.wrong), MOST):
        if len(cards) < MOST:
            card(mistake.path, mistake.true, "wrong")
    return cards


def in_turn(wrong: tuple[Mistake, ...]) -> Iterator[Mistake]:
    """The most confident mistake of each pair of classes, then the second of each, and so on."""
    cells: dict[tuple[str, str], list[Mistake]] = defaultdict(list)
    for one in wrong:
        cells[one.true, one.predicted].append(one)
    return (one for one in chain.from_iterable(zip_longest(*cells.values())) if one)


def matrix(found: "Review") -> list[int]:
    """The classes that the confusion matrix shows, in their order: all, or those with the most mistakes."""
    if len(found.classes) <= MOST_CLASSES:
        return list(range(len(found.classes)))
    off = found.confusion - np.diag(found.confusion.diagonal())
    return sorted(np.argsort(-(off.sum(0) + off.sum(1)), kind="stable")[:MOST_CLASSES].tolist())


def heat(found: "Review", true: int, told: int) -> int:
    """The shade of a cell, 0 to HEAT: the share of the class's images, by its root so that a few can be seen."""
    images = max(int(found.confusion[true].sum()), 1)
    return int(np.ceil(HEAT * (found.confusion[true, told] / images) ** 0.5))


def facts(found: "Review", cards: list[Card]) -> Markup:
    """What the script knows: names as a file of corrections has them, and numbers to sort by."""
    place = {name: k for k, name in enumerate(found.classes)}
    known = {
        "classes": list(map(written, found.classes)),
        "shown": [shorten(name, 40) for name in found.classes],
        "drop": next(word for word in DROP[::-1] if word not in place),
        "images": [
            [
                written(card.path),
                place[card.label],
                place.get(card.said, -1),
                card.rank,
                round(card.probability or 0.0, 6),
                round(card.distance, 6),
                card.pair,
            ]
            for card in cards
        ],
    }
    text = json.dumps(known).replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    return Markup(text)  # noqa: S704


def written(name: str) -> str:
    """A name as UTF-8 can hold it: one with stray bytes as it is shown."""
    return name if name.isascii() or name.encode("utf-8", "ignore").decode() == name else show(name)
