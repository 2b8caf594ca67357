"""Numbers, verdicts and foreign names as the page and the tables write them.

A value that is None or not finite is written as an en dash: a missing number never looks like one.
"""

import math
import re
from collections.abc import Callable

from trickbag.ground.text import counted, line
from trickbag.report.findings import Arm, Effect, Findings
from trickbag.statistics.effects import UNMOVED
from trickbag.statistics.intervals import Interval

MINUS, DASH, SPACE = "−", "–", "\u00a0"
SIGNS = {
    "helps": "▲",
    "worthwhile": "▲▲",
    "hurts": "▼",
    "equivalent": "≈",
    "open": "?",
    "identical": "=",
    "descriptive": "·",
}
SAID = {"descriptive": "descriptive only", "identical": "the same network", "open": "not decided"}
"""Verdicts that people read in other words."""
MEASURES = {"map50": "mAP at 0.5", "miou": "mean IoU", "map": "mAP", "accuracy": "pixel accuracy"}
"""What a person calls a measure of boxes or regions."""
LENGTH = 72


def shorten(text: str, length: int = LENGTH) -> str:
    """At most ``length`` characters of a line, the middle left out.

    >>> shorten("abcdefghij", 6)
    'abc…ij'
    """
    text = line(text)
    return text if len(text) <= length else f"{text[: length // 2]}…{text[len(text) + length // 2 + 1 - length :]}"


def pieces(text: str) -> list[str]:
    """Where a line may break: after a bracket, a comma, a slash or an underscore rather than within a word.

    >>> pieces("+label_smoothing(eps=0.1)")
    ['+label_', 'smoothing(', 'eps=0.1)']
    """
    return re.split(r"(?<=[_(,/])(?=.)", text)


def finite(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def number(value: float | None, places: int = 2) -> str:
    """A plain number.

    >>> number(1234.5, 1), number(-0.5), number(None)
    ('1,234.5', '−0.50', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", MINUS)


def percent(share: float | None) -> str:
    r"""A share, 0..1.

    >>> percent(0.8264), percent(None)
    ('82.6\xa0%', '–')
    """
    return number(100 * share, 1) + SPACE + "%" if share is not None and math.isfinite(share) else DASH


def chance(share: float | None) -> str:
    r"""A probability; none is written as certain.

    >>> chance(0.834), chance(0.9999), chance(0.001), chance(None)
    ('83\xa0%', 'over 99\xa0%', 'below 1\xa0%', '–')
    """
    if share is None:
        return DASH
    return f"over 99{SPACE}%" if share > 0.99 else f"below 1{SPACE}%" if share < 0.01 else f"{100 * share:.0f}{SPACE}%"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, signed.

    >>> points(0.0042), points(-0.013), points(0.000001)
    ('+0.42', '−1.30', '0.00')
    """
    return signed(100 * difference) if difference is not None else DASH


def spread(sd: float | None) -> str:
    """A standard deviation of shares in percentage points.

    >>> spread(0.0081), spread(None)
    ('0.81', '–')
    """
    return number(None if sd is None else 100 * sd)


def signed(value: float | None, places: int = 2) -> str:
    """A signed number.

    >>> signed(0.1234, 3), signed(-1), signed(-0.001)
    ('+0.123', '−1.00', '0.00')
    """
    return ("+" if value is not None and math.isfinite(value) and round(value, places) > 0 else "") + number(value, places)


def span(interval: Interval | None, write: Callable[[float], str]) -> str:
    """Both ends of an interval.

    >>> span(Interval(-0.001, 0.0085), points)
    '−0.10 to +0.85'
    """
    return DASH if interval is None else f"{write(interval.low)} to {write(interval.high)}"


def minutes(seconds: float | None) -> str:
    """Seconds as minutes, without the unit; two digits that count.

    >>> minutes(552), minutes(41.2), minutes(86400)
    ('9.2', '0.69', '1,440')
    """
    if seconds is None or not math.isfinite(seconds):
        return DASH
    return number(seconds / 60, 2 if seconds < 59.7 else 1 if seconds < 5997 else 0)


def ratio(value: float | None) -> str:
    """A factor.

    >>> ratio(1.3249)
    '1.32×'
    """
    return number(value) + "×" if finite(value) else DASH


def size(count: float | None) -> str:
    r"""Bytes as megabytes.

    >>> size(23_500_000)
    '23.5\xa0MB'
    """
    return number(count / 1e6, 1) + SPACE + "MB" if count is not None else DASH


def said(verdict: str) -> str:
    """A verdict in words.

    >>> said("helps"), said("open")
    ('helps', 'not decided')
    """
    return SAID.get(verdict, verdict)


def verdict(effect: Effect) -> str:
    """The verdict in words, with the cheapest way to decide what is open."""
    if effect.verdict != "open":
        return said(effect.verdict)
    if UNMOVED in effect.note:
        return "not decided; no answer differs"
    if effect.more_seeds is not None:
        return f"not decided; about {counted(effect.more_seeds, 'more seed')} may decide it"
    if effect.more_images is not None:
        return f"not decided; about {counted(effect.more_images, 'more judged image')} may decide it"
    return "not decided; that takes many more seeds and images"


def failed(arm: Arm, findings: Findings) -> str:
    """What outranks an arm's mean: "3 of 5 seeds diverged"; empty where none did."""
    if not arm.failed:
        return ""
    kinds = {failure.kind for failure in findings.failures if failure.arm == arm.name}
    return f"{arm.failed} of {counted(len(arm.accuracies), 'seed')} {'diverged' if kinds == {'diverged'} else 'failed'}"


def differences(arm: Arm, reference: Arm) -> tuple[float, ...]:
    """Accuracy of an arm minus the reference's, for each seed that both have."""
    pairs = zip(arm.accuracies, reference.accuracies, strict=False)
    return tuple(a - b for a, b in pairs if a is not None and b is not None)


def against_reference(arm: Arm, findings: Findings) -> Effect | None:
    """The effect that compares an arm with the reference; None where there is none."""
    return next((effect for effect in findings.effects if effect.arm == arm.name), None)
