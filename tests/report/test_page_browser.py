"""The page in a real browser: it asks for nothing, nothing in it runs, and it fits every width."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium
from findings import onward, proved, sample
from hostile import hostile

from trickbag.report.page import page

BINARY = chromium()
pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium or Chrome on the PATH")
STUDIES = {
    "sample": sample,
    "proved": lambda: proved(sample()),
    "downstream": lambda: onward(sample()),
    "hostile": hostile,
}
# Boxes that reach beyond the window, except in frames that scroll by themselves.
TOO_WIDE = """[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll, svg, thead') && e.getClientRects().length)
  .map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 120)]).filter(([r]) => r.right > innerWidth + 1 || r.left < -1)
  .map(([, html]) => html)"""
# Numbers of the charts that stand on one another or beyond the window.
TEXTS = """[...document.querySelectorAll('svg text')].filter(e => e.getClientRects().length).map(e => {
  const r = e.getBoundingClientRect(); return [e.textContent, r.left, r.top, r.right, r.bottom] })"""
MIDDLE = """[...document.querySelectorAll('%s')].map(e => [e.textContent, e.getBoundingClientRect()])
  .map(([text, r]) => [text, (r.left + r.right) / 2])"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(BINARY), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def opened(browser: Browser, folder: Path, text: str) -> str:
    path = folder / "report.html"
    path.write_text(text, "utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path.as_uri())
    return path.as_uri()


@pytest.mark.parametrize("study", STUDIES)
def test_nothing_is_asked_for_and_nothing_complains(browser: Browser, tmp_path: Path, study: str) -> None:
    address = opened(browser, tmp_path, page(STUDIES[study]()))
    assert [request for request in browser.requests if not request.startswith("data:image/jpeg;base64,")] == [address]
    assert browser.complaints == []


def test_the_watch_sees_what_a_page_without_escapes_would_do(browser: Browser, tmp_path: Path) -> None:
    policy = re.match(r".*?Content-Security-Policy[^>]*>", page(sample()), re.DOTALL)[0]
    opened(
        browser,
        tmp_path,
        policy + "<title>x</title></head><body><img src=http://127.0.0.1:9/x><script>document.title=1</script>",
    )
    assert browser.value("document.title") == "x"
    assert len(browser.complaints) >= 2
    opened(
        browser,
        tmp_path,
        "<!doctype html><title>x</title><img src=http://127.0.0.1:9/x><script>document.title='owned'</script>",
    )
    assert browser.value("document.title") == "owned"
    assert "http://127.0.0.1:9/x" in browser.requests


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(hostile()))
    assert browser.value("document.title").endswith(": which tricks help")
    assert browser.value("document.querySelectorAll('script, iframe, object, embed, base, a, b, form').length") == 0
    inline = "filter(a => /^(on|style|href)/.test(a.name)).length"
    assert browser.value(f"[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).{inline}") == 0


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
@pytest.mark.parametrize("study", STUDIES)
def test_the_page_fits_the_width(browser: Browser, tmp_path: Path, study: str, width: int) -> None:
    browser.look(width)
    opened(browser, tmp_path, page(STUDIES[study]()))
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(TOO_WIDE) == []


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_no_text_in_a_chart_covers_another(browser: Browser, tmp_path: Path, width: int) -> None:
    browser.look(width)
    opened(browser, tmp_path, page(sample()))
    texts = browser.value(TEXTS)
    assert len(texts) > 30
    for i, (text, left, top, right, bottom) in enumerate(texts):
        assert left >= 0 <= width - right, text
        for other, *box in texts[:i]:
            # A box is taller than its digits by some 3 pixels at either end.
            apart = right <= box[0] or box[2] <= left or bottom - 3 <= box[1] + 3 or box[3] - 3 <= top + 3
            assert apart, (text, other)


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_ticks_stand_over_the_values_that_they_name(browser: Browser, tmp_path: Path, width: int) -> None:
    browser.look(width)
    opened(browser, tmp_path, page(sample()))
    zeros = browser.value(MIDDLE % "figure.forest .axis text")
    lines = browser.value(MIDDLE % ".forest-row .zero")
    named = [middle for text, middle in zeros if text == "0"]
    assert len(named) == 5
    first, second = lines[0][1], lines[-1][1]
    assert named == pytest.approx([first] * 3 + [second] * 2, abs=1)
    assert [middle for _, middle in lines] == pytest.approx([first] * 12 + [second] * 2, abs=1)


def test_the_reader_s_colours_are_followed(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(sample()))
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.look(1280, dark=True)
    dark = browser.value(paper)
    browser.look(1280, dark=True, media="print")
    printed = browser.value(paper)
    browser.look(1280)
    assert (dark, browser.value(paper), printed) == ("rgb(20, 24, 29)", "rgb(253, 253, 251)", "rgb(255, 255, 255)")
