"""The pictures of ``statistics.md`` as SVG, on paper of their own so that they can be read on a light and on a dark page.

Written anew by ``python docs/drawings.py``.
"""

import html
from collections.abc import Iterable
from pathlib import Path

from trickbag.statistics.belief import belief, common
from trickbag.statistics.nominate import Option, nominee

PLACE = Path(__file__).parent / "statistics"
WIDTH = 760
PAPER, INK, QUIET, RULE = "#fdfdfb", "#1d2530", "#55606e", "#c3c9d0"
BLUE, ORANGE, PALE, BAND = "#1b5a9e", "#a63c12", "#d5e3f3", "#dfe8e1"
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"


def drawing(height: float, says: str, shapes: Iterable[str]) -> str:
    """A whole picture; ``says`` is what it shows, for those who cannot see it."""
    font = f'font-family="{FONT}" font-size="14"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" {font}>'
    paper = f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="{PAPER}"/>'
    return "\n".join([head, f"<title>{html.escape(says)}</title>", paper, *shapes, "</svg>", ""])


def text(x: float, y: float, words: str, fill: str = INK, anchor: str = "start", weight: int = 400) -> str:
    """Words on a line."""
    where = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {where} fill="{fill}" font-weight="{weight}">{html.escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, edge: str = "none") -> str:
    """A rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{fill}" stroke="{edge}"/>'


def line(x: float, y: float, x2: float, y2: float, stroke: str = INK, width: float = 1) -> str:
    """A straight line."""
    return f'<line x1="{x:g}" y1="{y:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}" stroke-width="{width:g}"/>'


def dot(x: float, y: float, fill: str, edge: str) -> str:
    """A point that was measured or is believed."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="5" fill="{fill}" stroke="{edge}" stroke-width="2"/>'


def signed(value: float) -> str:
    """With its sign, as the report writes it."""
    return f"{value:+.1f}".replace("-", "−")


def folds() -> str:
    """Which images judge which seed."""
    left, wide, high = 150.0, 92.0, 30.0
    heads = [*(f"fold {n}" for n in range(1, 6)), "test"]
    rows = [
        *((f"seed {n}", 62 + 38 * n, {n}, {5}) for n in range(3)),
        *((f"fresh seed {n + 1}", 206 + 38 * n, {3 + n, 5}, set[int]()) for n in range(2)),
    ]
    shapes = [text(left + wide * n + wide / 2 - 3, 42, head, QUIET, "middle") for n, head in enumerate(heads)]
    shapes += [text(20, 42, "The study", weight=600), text(20, 196, "The proof", weight=600)]
    for name, top, judges, unread in rows:
        shapes.append(text(20, top + 20, name))
        for n in range(len(heads)):
            fill, edge = (ORANGE, ORANGE) if n in judges else (PAPER, RULE) if n in unread else (PALE, PALE)
            shapes.append(box(left + wide * n, top, wide - 6, high, fill, edge))
            said = "judges" if n in judges else "not read" if n in unread else "learns"
            ink = PAPER if n in judges else QUIET if n in unread else INK
            shapes.append(text(left + wide * n + wide / 2 - 3, top + 20, said, ink, "middle"))
    shapes.append(text(20, 302, "The third and the fifth fresh seed are as the first, the fourth as the second.", QUIET))
    return drawing(320, "Seeds 0 to 2 judge folds 1 to 3 in turn; the proof judges folds 4 and 5 and the test split.", shapes)


def intervals() -> str:
    """What intervals say, on invented effects; the verdict *equivalent* is tested on its own, so it is drawn well inside."""
    middle, scale, delta = 290.0, 80.0, 0.2
    rows = [
        ("helps", 0.75, 0.65, "above 0"),
        ("worthwhile", 1.3, 0.6, "above what matters to you"),
        ("hurts", -1.0, 0.7, "below 0"),
        ("equivalent", 0.02, 0.13, "too small to matter, either way"),
        ("not decided", 0.4, 1.0, "a gain and a loss are both possible"),
    ]
    shapes = [box(middle - delta * scale, 20, 2 * delta * scale, 200, BAND), line(middle, 20, middle, 220, QUIET)]
    for n, (verdict, effect, half, why) in enumerate(rows):
        y, ink = 42 + 38 * n, ORANGE if effect < 0 else BLUE
        low, high = middle + scale * (effect - half), middle + scale * (effect + half)
        shapes += [text(20, y + 5, verdict, weight=600), line(low, y, high, y, ink, 3)]
        shapes += [line(end, y - 6, end, y + 6, ink, 2) for end in (low, high)]
        shapes += [dot(middle + scale * effect, y, ink, PAPER), text(480, y + 5, why, QUIET)]
    shapes += [text(middle + scale * at, 242, signed(at) if at else "0", QUIET, "middle") for at in (-2, -1, 0, 1, 2)]
    shapes += [text(middle, 266, "difference in points; the band is ±0.2 points (--delta)", QUIET, "middle")]
    return drawing(284, "Five invented intervals and the verdict that each gives.", shapes)


def beliefs() -> str:
    """How measured effects become expected gains, on invented ones."""
    middle, scale = 290.0, 75.0
    measured = {"A": 1.7, "B": 0.9, "C": 0.6, "D": 0.1, "E": -0.4, "F": -1.3}
    error = 0.6
    prior = common([*measured.values()], [error] * len(measured))
    believed = {name: belief(value, error, prior) for name, value in measured.items()}
    chosen = nominee([Option(name, known, 1.0) for name, known in believed.items()], {}, frozenset())
    shapes = [line(middle, 44, middle, 290, QUIET), text(middle, 30, "0", QUIET, "middle")]
    shapes += [text(560, 30, "expected", QUIET, "end"), text(635, 30, "helps", QUIET, "end"), text(662, 30, "nominated", QUIET)]
    for n, (name, value) in enumerate(measured.items()):
        y, known = 62 + 40 * n, believed[name]
        here, there = middle + scale * value, middle + scale * known.gain
        shapes += [text(20, y + 5, f"trick {name}", weight=600)]
        shapes += [line(here - scale * error, y, here + scale * error, y, RULE, 3), line(here, y, there, y, BLUE, 2)]
        shapes += [dot(here, y, PAPER, QUIET), dot(there, y, BLUE, BLUE)]
        shapes += [text(560, y + 5, signed(known.gain), anchor="end")]
        shapes += [text(635, y + 5, f"{100 * known.helps:.0f} %", anchor="end")]
        shapes += [text(662, y + 5, "yes" if name in chosen.options else "no", INK if name in chosen.options else QUIET)]
    names, gain = ", ".join(chosen.options), signed(chosen.belief.gain)
    shapes += [line(20, 298, WIDTH - 20, 298, RULE)]
    shapes += [text(20, 322, f"The recipe with {names} is nominated: {gain} points are expected of it.")]
    shapes += [dot(28, 344, PAPER, QUIET), text(42, 349, "measured, with its standard error of 0.6 points", QUIET)]
    shapes += [dot(398, 344, BLUE, BLUE), text(412, 349, "expected", QUIET)]
    return drawing(366, "Six invented effects, drawn towards their mean; those expected to gain are nominated.", shapes)


if __name__ == "__main__":
    for name, picture in {"folds": folds(), "intervals": intervals(), "beliefs": beliefs()}.items():
        (PLACE / f"{name}.svg").write_text(picture, "utf-8")
