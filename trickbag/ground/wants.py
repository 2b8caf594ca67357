"""What tricks are for, in the words of users: searched for in the tricks' cards, so that no trick is filed by hand."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from trickbag.ground.errors import UsageError
from trickbag.ground.glance import Listed
from trickbag.ground.text import brief

WANTS = {
    "unequal classes": r"imbalanc|unequal|rare class|long.tail|macro recall",
    "unlabelled images": r"unlabelled|without labels",
    "few images": r"few images|few labelled|little data|small data|handful|overfitting",
    "label noise": r"label noise|noisy label|mislabel|wrong label",
    "calibrated probabilities": r"calibrat|probabilit|too sure|\bNLL\b|\bECE\b|miss a class",
    "small objects": r"small objects?\b|object is small|off (the )?centre|part of the image",
    "fine-grained classes": r"fine.grained",
    "other cameras": r"cameras?\b|blurred|light\b|unlike|small shifts|other sizes|varying size|stability",
    "pretrained networks": r"pretrained|fine.tun|transfer|linear probe",
    "speed": r"\bspeed|\bfast|cheaper|time budget|little time|in seconds|few epochs|short (runs|ones|training)|fewer steps",
    "large batches": r"large batch|batches of thousands|many devices",
    "training from scratch": r"from scratch|long (training|schedules|runs)",
    "accuracy": r"accuracy|top-1|nearly|photographs",
}
"""What can be wanted, and what cards and questions call it; a trick is listed under the first that it helps with."""
PLACES = {
    "steps and schedules": {"lr", "optimizer", "groups", "gradient", "update", "after_step", "batch_size", "order"},
    "images": {"region", "window", "mirror", "augment", "views", "size", "batch"},
    "judging": {"view", "predict", "finish", "adapt", "sets"},
}
"""Where tricks act that help with nothing of this."""
REST = "others"


class Found(NamedTuple):
    """What a trick's card says of something."""

    name: str
    part: str
    """Of the card."""
    line: str
    """The words around it."""


def grouped(bag: Mapping[str, Listed]) -> dict[str, tuple[list[str], list[str]]]:
    """All tricks by what they help with: those that are listed there, and those that help with it and are listed above.

    >>> from trickbag.ground.glance import shelf
    >>> listed, above = grouped(shelf())["label noise"]
    >>> "label_smoothing" in listed, "mixup" in above
    (True, True)
    """
    found: dict[str, tuple[list[str], list[str]]] = {want: ([], []) for want in (*WANTS, *PLACES, REST)}
    for name, trick in bag.items():
        helped = [want for want, words in WANTS.items() if re.search(words, trick.card.get("Helps", ""), re.IGNORECASE)]
        first, *others = helped or [next((place for place, points in PLACES.items() if points & set(trick.plugs)), REST)]
        found[first][0].append(name)
        for want in others:
            found[want][1].append(name)
    return {want: names for want, names in found.items() if any(names)}


def asked(text: str, bag: Mapping[str, Listed]) -> list[Found]:
    """What cards say of some words: first where they help, then elsewhere, last where they hurt; a trick once.

    Raises UsageError where no card has them.

    >>> from trickbag.ground.glance import shelf
    >>> "calibrate" in [found.name for found in asked("thresholds", shelf())]
    True
    """
    patterns = [words for want, words in WANTS.items() if text.lower() == want or re.search(words, text, re.IGNORECASE)]
    if text.lower() not in WANTS:
        patterns += ["".join(map(_stem, text.split()))]
    found: dict[str, Found] = {}
    for part in ("Helps", "Title", "Formula", "Costs", "Hurts"):
        for name, trick in bag.items():
            if name not in found and (line := _line(trick.card.get(part, ""), patterns)):
                found[name] = Found(name, part, line)
    if not found:
        raise UsageError(f"no trick's card says {brief(text)}. Ask for {', '.join(WANTS)}, or any words of a card.")
    return list(found.values())


def _stem(word: str) -> str:
    """A pattern for a word in any of its forms, anywhere in a line."""
    short = len(word) < 5
    stem = word if short else re.sub(r"(e?s|ed|ing)$", "", word)
    return rf"(?=.*(?<!\w){re.escape(stem)}" + (r"(?!\w))" if short else ")")


def _line(said: str, patterns: list[str]) -> str:
    """The clause that matches, or the whole where it takes several; empty where nothing matches."""
    for pattern in patterns:
        for clause in (*_clauses(said), said.rstrip(".")):
            if re.search(pattern, clause, re.IGNORECASE):
                return clause
    return ""


def _clauses(said: str) -> Iterator[str]:
    yield from (clause.strip().rstrip(".") for clause in re.split(r";|\. ", said))
