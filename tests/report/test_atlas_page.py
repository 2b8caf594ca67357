"""The page of an atlas: whole and well-formed, true to its numbers, and no name in it becomes markup."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from atlases import GAINS, found, measured, sets
from browser import Browser, chromium
from hostile import NAMES

from trickbag.ground.text import legible
from trickbag.report.atlas import HEAD, Atlas, answer, forest, page, row
from trickbag.report.wording import points, span
from trickbag.statistics.intervals import Interval
from trickbag.studies.atlas import combined

BINARY = chromium()


class Tree(HTMLParser):
    """Reads a page strictly: every element is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def said(self) -> str:
        return " ".join("".join(self.texts).split())


def sample() -> Atlas:
    """Two regimes; a set that is far out, one without a change, a trick on one set alone."""
    studies = [*sets(), *sets(2, "from scratch", "raw ")]
    studies[0].effects["ema"] = measured("ema", 0.4)
    studies[1].effects["lighting"] = measured("lighting", 0.01)
    studies[2].effects["sam"] = measured("sam", 0.0, 0.0, verdict="identical")
    return combined(studies, "2026-11-29")


def hostile() -> Atlas:
    """Every text comes from someone who means harm."""
    turn = iter(NAMES * 9)
    studies = [
        found(
            next(turn),
            {name: measured(name, 0.01 * k) for name in NAMES[:6]} | {NAMES[k]: measured("x", 0.1, None, verdict="open")},
            folder=next(turn),
            model=next(turn),
            fingerprint=str(k // 2),
        )
        for k in range(8)
    ]
    return combined(studies, "2026-11-29")


def test_the_page_says_what_was_found() -> None:
    made = sample()
    read = Tree(page(made))
    for group in made.groups:
        for sentence in answer(group):
            assert sentence in read.said
        for entry in group.entries:
            for cell in row(entry):
                assert all(part in read.said for part in " ".join(legible(cell).split()).split(" to ")), cell
            for one in entry.sets:
                assert f"{points(one.difference)} {span(one.interval, points)}" in read.said
        assert all(note in read.said for note in group.notes)
    assert "The same network with it and without on set 2: not in the mean." in read.said
    assert "Measured on one data set, and so not combined: lighting." in read.said
    assert not re.search(r"\b(nan|None|inf)\b", read.said)


def test_the_page_needs_nothing_else_and_equal_atlases_give_equal_pages() -> None:
    text = page(sample())
    assert text == page(sample())
    assert text.lstrip().startswith("<!doctype html>")
    assert "default-src 'none'" in text
    assert "url(" not in text
    for read in (Tree(text), Tree(page(hostile()))):
        assert not {"script", "link", "img", "iframe", "a", "base", "use"} & read.tags
        assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("style", "href", "src")]


def test_hostile_names_are_text() -> None:
    text = page(hostile())
    text.encode()
    assert "<script" not in text
    assert Tree(text).tags <= Tree(page(sample())).tags
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\u2029\ufeff\ud800-\udfff]", text)
    assert "49" not in Tree(text).said.split()


def test_every_set_the_mean_and_the_next_set_are_drawn_once() -> None:
    made = sample()
    text = page(made)
    entries = [entry for group in made.groups for entry in group.entries]
    legends = len(made.groups)
    assert text.count('class="diamond"') == sum(entry.pooled is not None for entry in entries) + legends
    assert text.count('class="ahead"') == sum(bool(e.pooled and e.pooled.prediction) for e in entries) + 1
    assert len(re.findall('class="point"', text)) <= sum(len(entry.sets) for entry in entries) + legends
    assert sum(len(entry.sets) for entry in entries) == 4 * 4 + 1 - 1 + 2 * 4


def test_one_far_out_is_cut_off_rather_than_flattening_the_others() -> None:
    group = next(group for group in sample().groups if group.regime == "fine-tuning")
    drawn = forest(group.entries)
    assert drawn.axis.high < 0.1
    plots = {plot.entry.name: plot for plot in drawn.plots}
    far, *others = (mark for _, mark in plots["ema"].sets)
    assert (far.point, far.span, far.right, far.left) == (None, None, True, False)
    assert not any(mark.left or mark.right for mark in others)
    assert plots["ema"].cut
    assert not plots["random_erasing"].cut
    for plot in drawn.plots:
        for one, mark in plot.sets:
            if mark.point is not None and not plot.cut:
                assert (mark.point, mark.span) == (drawn.axis.at(one.difference), tuple(map(drawn.axis.at, one.interval)))
    assert plots["lighting"].mean is None


def test_a_row_has_a_cell_for_every_head() -> None:
    (group,) = combined(sets(), "2026-11-29").groups
    sam = next(entry for entry in group.entries if entry.name == "sam")
    assert sam.pooled
    cells = dict(zip(HEAD, row(sam), strict=True))
    assert cells["price"] == "2.00×"
    assert cells["95 % for the mean"] == span(Interval(*sam.pooled.interval), points)
    assert len(group.entries) == len(GAINS)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(BINARY), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.skipif(BINARY is None, reason="no Chromium or Chrome on the PATH")
@pytest.mark.parametrize("made", [sample, hostile])
@pytest.mark.parametrize("width", [320, 820, 1280])
def test_the_page_fits_the_width_and_asks_for_nothing(browser: Browser, tmp_path: Path, made, width: int) -> None:
    path = tmp_path / "atlas.html"
    path.write_text(page(made()), "utf-8")
    browser.look(width)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path.as_uri())
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert (browser.complaints, browser.requests) == ([], [path.as_uri()])


@pytest.mark.skipif(BINARY is None, reason="no Chromium or Chrome on the PATH")
def test_ticks_stand_over_the_values_that_they_name(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "atlas.html"
    path.write_text(page(sample()), "utf-8")
    browser.look(1280)
    browser.open(path.as_uri())
    middle = "[...document.querySelectorAll('%s')].map(e => e.getBoundingClientRect()).map(r => (r.left + r.right) / 2)"
    lines = browser.value(middle % ".forest-row > .zero")
    ticks = browser.value(
        "[...document.querySelectorAll('.axis text')].filter(e => e.textContent == '0').map(e => e.getBoundingClientRect())"
        ".map(r => (r.left + r.right) / 2)"
    )
    assert len(ticks) == sum(bool(entry.sets) for group in sample().groups for entry in group.entries)
    assert {round(x) for x in ticks} <= {round(x) + d for x in lines for d in (-1, 0, 1)}
