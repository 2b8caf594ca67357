"""The page in a real browser: photos dropped and chosen, by hand and by keyboard, narrow and dark; nothing from elsewhere."""

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium
from PIL import Image
from served import Served

import trickbag as tb

BINARY = chromium()
pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium or Chrome on the PATH")
NAMES = ("a plain one.png", "<img src=x onerror=alert(1)>.png", '猫, "quoted" ünï.png', "no image.txt", "=1+1.png")
# Boxes that reach beyond the window, except in frames that scroll by themselves.
TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && e.getClientRects().length)
  .map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 120)]).filter(([r]) => r.right > innerWidth + 1 || r.left < -1)
  .map(([, html]) => html)"""
# What a reader who does not see would not be told the name of.
NAMELESS = """[...document.querySelectorAll('input, select, button, img, dialog, [role=region]')]
  .filter(e => !(e.labels && e.labels.length) && !e.ariaLabel && !e.textContent.trim() && !e.hasAttribute('alt'))
  .map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def album(place: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("album")
    for name, photo in zip(NAMES, sorted((place / "photos").glob("*/*.png"))[::6], strict=False):
        (folder / name).write_bytes(b"hello" if name.endswith("txt") else photo.read_bytes())
    return [str(folder / name) for name in NAMES]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(BINARY), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def page(browser: Browser, server: Served) -> Browser:
    browser.look(1280)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(f"{server.address}/")
    until(browser, "served !== null")
    return browser


def until(browser: Browser, expression: str) -> None:
    end = time.monotonic() + 60
    while not browser.value(expression):
        assert time.monotonic() < end, (expression, browser.complaints)
        time.sleep(0.05)


def settled(browser: Browser, count: int) -> None:
    until(
        browser,
        f"photos.length === {count} && !sending && photos.every(photo => chosen().every(run => photo.answers.has(run)))",
    )


def choose(browser: Browser, files: list[str]) -> None:
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    browser.call("DOM.setFileInputFiles", files=files, nodeId=node)


def press(browser: Browser, key: str, code: int, text: str = "") -> None:
    told = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": code}
    browser.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
    browser.call("Input.dispatchKeyEvent", type="keyUp", **told)


def test_dropped_photos_are_classified_by_every_run(page: Browser, server: Served, place: Path, album: list[str]) -> None:
    spot = page.value("(r => ({x: r.x + r.width / 2, y: r.y + r.height / 2}))(at('drop').getBoundingClientRect())")
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, **spot, data={"items": [], "files": album, "dragOperationsMask": 1})
    settled(page, len(album))
    shown: list[Any] = page.value(
        "photos.map(photo => [photo.name, [...photo.answers.values()].map(a => best(a) && best(a).class)])"
    )
    assert [name for name, _ in shown] == list(NAMES)
    for number, run in enumerate(("one", "two")):
        known = tb.load(place / run)
        for path, (_, said) in zip(album, shown, strict=True):
            assert said[number] == (None if path.endswith("txt") else next(iter(known.predict(path))).classes[0])
    assert page.value("at('status').textContent").startswith("5 photos, ")
    assert "1 not classified" in page.value("at('status').textContent")
    assert page.value("document.querySelectorAll('.cards .run').length") == 10
    assert (
        page.value("[...document.querySelectorAll('.error')].map(e => e.textContent)")
        == ["no image.txt cannot be read: not an image."] * 2
    )
    page.value("document.querySelector('.run button').click()")
    until(page, "photos[0].seen && photos[0].seen.picture")
    until(page, "(i => i.complete && i.naturalWidth === 16)(document.querySelector('.shown img'))")
    assert page.value("document.title") == "trickbag: what is in your photos"
    assert page.complaints == []
    own = (server.address, f"blob:{server.address}", "data:")
    assert [request for request in page.requests if not request.startswith(own)] == []


def test_the_page_without_a_mouse(page: Browser, album: list[str]) -> None:
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.events.clear()
    press(page, "Tab", 9)
    assert page.value("document.activeElement.id") == "files"
    assert page.value("getComputedStyle(at('drop')).outlineStyle") == "solid", "the focus is seen"
    press(page, " ", 32, " ")
    end = time.monotonic() + 60
    while "Page.fileChooserOpened" not in page.events:
        assert time.monotonic() < end
        page.value("1")
    page.call("Page.setInterceptFileChooserDialog", enabled=False)
    choose(page, album[:2])
    settled(page, 2)
    visited = []
    for _ in range(20):
        press(page, "Tab", 9)
        visited.append(page.value("(e => e.id || e.name || e.ariaLabel || '')(document.activeElement)"))
        if "Where one looks" in visited[-1]:
            break
    assert [name for name in visited if name] == [
        *("run-0", "run-1", "threshold", "view", "order", "csv", "clear"), "Where one looks in a plain one.png",
    ]  # fmt: skip
    press(page, "Enter", 13, "\r")
    until(page, "photos[0].seen && photos[0].seen.picture")
    until(page, "document.activeElement.ariaPressed === 'true'")
    page.value("document.querySelector('[name=view]:checked').focus()")
    press(page, "ArrowRight", 39)
    until(page, "!at('frame').hidden")
    page.value("document.querySelector('.link').focus()")
    press(page, "Enter", 13, "\r")
    until(page, "at('dialog').open")
    assert page.value("document.activeElement.id") == "close"
    press(page, "Escape", 27)
    until(page, "!at('dialog').open")
    assert page.value("document.activeElement.className") == "link"


def test_the_table_and_its_csv(page: Browser, album: list[str]) -> None:
    choose(page, album)
    settled(page, 5)
    page.value("document.querySelector('[value=table]').click()")
    rows = page.value("[...at('rows').rows].map(row => [...row.cells].map(cell => cell.textContent))")
    assert [row[1] for row in rows] == list(NAMES)
    page.value("at('threshold').value = 100; at('threshold').oninput()")
    assert page.value("document.querySelectorAll('td .unsure').length") == 8
    table = list(csv.DictReader(io.StringIO(page.value("csv()"), newline="")))
    assert {row["path"] for row in table} == set(NAMES)
    assert len(table) == 4 * 2 * 3 + 2
    assert {row["unsure"] for row in table if row["class"]} == {"yes"}
    assert {row["error"] for row in table if not row["class"]} == {"no image.txt cannot be read: not an image."}
    page.value("at('order').value = 'sure'; at('order').onchange()")
    sure = page.value("[...at('rows').rows].map(row => row.cells[1].textContent)")
    assert sorted(sure) == sorted(NAMES)
    assert sure[-1] == "no image.txt"
    page.value("at('run-1').click()")
    assert page.value("at('head').rows[0].cells.length") == 3
    page.value("at('clear').click()")
    assert page.value("at('status').textContent") == "No photos yet."
    assert page.value("at('frame').hidden")


def test_more_photos_than_one_request_takes(page: Browser, album: list[str]) -> None:
    choose(page, album[:3] * 12)
    settled(page, 36)
    assert page.value("!at('frame').hidden"), "many photos are a table"
    assert page.value("document.querySelectorAll('#rows td .pair').length") == 72
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_the_page_fits_the_width_in_both_colours(page: Browser, album: list[str], width: int) -> None:
    choose(page, album)
    settled(page, 5)
    papers = []
    for dark in (False, True):
        page.look(width, dark=dark)
        for view in ("cards", "table"):
            page.value(f"document.querySelector('[value={view}]').click()")
            assert page.value("document.documentElement.scrollWidth") <= width
            assert page.value(TOO_WIDE) == []
            assert page.value(NAMELESS) == []
        papers.append(page.value("getComputedStyle(document.body).backgroundColor"))
        shot = Image.open(io.BytesIO(page.shot(0, width, 400))).convert("L")
        assert (shot.getpixel((2, 2)) > 200) == (not dark)
    assert papers[0] != papers[1]


def test_a_server_that_is_gone_is_said(browser: Browser, place: Path, album: list[str]) -> None:
    with Served(place, str(place / "one")) as server:
        browser.look(1280)
        browser.open(f"{server.address}/")
        until(browser, "served !== null")
    choose(browser, album[:1])
    settled(browser, 1)
    assert browser.value("document.querySelector('.error').textContent") == "The server does not answer. Is it still running?"


def test_a_token_in_the_address_opens_the_page_and_leaves_it(browser: Browser, place: Path, album: list[str]) -> None:
    with Served(place, str(place / "one"), "--token", "x" * 20) as server:
        browser.open(f"{server.address}/?token={'x' * 20}")
        until(browser, "served !== null")
        assert browser.value("location.href") == f"{server.address}/"
        assert browser.value("document.cookie") == ""
        choose(browser, album[:1])
        settled(browser, 1)
        assert browser.value("document.querySelectorAll('.bars li').length") == 3
