"""The page of a review in a browser: what a person clicks, types and saves there, whatever classes and files are called."""

import base64
import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from album import texture
from browser import Browser, chromium
from PIL import Image

from trickbag.data.audit import LabelError
from trickbag.data.facts import content_of
from trickbag.mistakes import page as pages
from trickbag.mistakes.look import Copies, OfClass, Review, Unlike
from trickbag.mistakes.thumbnails import SIDE, thumbnail
from trickbag.runs.folder import Mistake

BINARY = chromium()
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
CLASSES = ("cat", EVIL, "drop", "w" * 200, 'größe, "é"\u202e')
FILES = ("a/1.png", f"{EVIL.replace('/', '_')}.png", "b/\udcff\n2.png", 'c,"3".png', "=d.png", "x" * 150 + ".png")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Review:
    """A review of a few photos with hostile names."""
    root, rng, contents = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), {}
    for name in FILES[:4]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x010E] = "secret place"
        Image.fromarray(texture(0, rng)).resize((400, 200)).save(root / name, exif=exif)
        with (root / name).open("rb") as file:
            contents[name] = content_of(file)
    wrong = tuple(Mistake(name, "test", CLASSES[n % 5], CLASSES[(n + 1) % 5], 0.9 - n / 20) for n, name in enumerate(FILES))
    confusion = np.eye(5, dtype=np.int64) * 3
    for one in wrong:
        confusion[CLASSES.index(one.true), CLASSES.index(one.predicted)] += 1
    confusion[0, 1] = 40
    return Review(
        Path(EVIL), "runs", 300, CLASSES, confusion,
        tuple(LabelError(one.path, one.true, one.predicted, 0.9, 0.1) for one in wrong[2:4]), wrong,
        (Copies((FILES[0], FILES[3]), (CLASSES[0], CLASSES[3])),), (Unlike(FILES[5], CLASSES[0], 0.7),),
        tuple(OfClass(name, 4, 0.5, None if n else 0.25, CLASSES[1] if not n else "", 40) for n, name in enumerate(CLASSES)),
        (f"a note of {EVIL}",), root, contents,
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BINARY is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    with Browser(str(BINARY), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Browser, found: Review, tmp_path: Path) -> Browser:
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
    browser.complaints.clear()
    browser.requests.clear()
    browser.look(1280)
    browser.open(found.write(tmp_path / "review.html").as_uri())
    return browser


def shown(tab: Browser) -> list[int]:
    """The images that can be seen, in their order."""
    return tab.value("[...document.querySelectorAll('[data-card]')].filter(c => !c.hidden).map(c => Number(c.dataset.card))")


def press(tab: Browser, key: str, text: str = "") -> None:
    code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38}[key]
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)


def saved(folder: Path) -> list[list[str]]:
    """The rows of the file that the browser saved."""
    file = folder / "saved" / "corrections.csv"
    for _ in range(100):
        if file.exists() and file.stat().st_size:
            return list(csv.reader(io.StringIO(file.read_text("utf-8"), newline="")))
        time.sleep(0.05)
    raise AssertionError("nothing was saved")


@pytest.mark.parametrize(("width", "dark"), [(320, False), (400, True), (820, False), (1280, True)])
def test_the_page_fits_asks_for_nothing_and_runs_nothing_of_others(tab: Browser, width: int, dark: bool) -> None:
    tab.look(width, dark)
    assert tab.value("document.documentElement.scrollWidth") <= width
    outside = "filter(e => !e.closest('.scroll, svg, option') && e.getBoundingClientRect().right > innerWidth + 1)"
    assert tab.value(f"[...document.querySelectorAll('body *')].{outside}.map(e => e.outerHTML.slice(0, 99))") == []
    page = tab.value("location.href")  # the first heard of may be a picture of the page before, late
    assert [request for request in tab.requests if not request.startswith("data:image/jpeg;base64,")] == [page]
    assert tab.complaints == []
    assert tab.value("document.title").startswith("What went wrong")
    assert tab.value("document.querySelectorAll('script').length") == 2
    assert tab.value("document.querySelectorAll('iframe, [onerror], [style], img:not([src^=\"data:image/jpeg\"])').length") == 0
    assert tab.value("getComputedStyle(document.getElementById('save')).display") != "none"


def test_a_cell_filters_and_says_what_the_page_does_not_hold(tab: Browser) -> None:
    assert len(shown(tab)) == len(FILES)
    tab.value('document.querySelector(\'.confusion [data-true="0"][data-said="1"]\').click()')
    paths = tab.value("JSON.parse(document.getElementById('data').textContent).images.map(i => i[0])")
    assert {paths[n] for n in shown(tab)} == {FILES[0], FILES[5]}
    assert tab.value("document.getElementById('status').textContent").endswith("The cell has 40.")
    assert tab.value("document.querySelectorAll('.confusion [aria-pressed=true]').length") == 1
    press(tab, "Escape")
    time.sleep(0.1)
    assert len(shown(tab)) == len(FILES)
    assert tab.value("document.querySelectorAll('[aria-pressed=true]').length") == 0


def test_filters_and_orders(tab: Browser) -> None:
    data = json.loads(tab.value("document.getElementById('data').textContent"))["images"]

    def pick(name: str, value: str) -> list[int]:
        tab.value(
            f"(() => {{ const t = document.getElementById('tools'); t.elements['{name}'].value = {json.dumps(value)};"
            "t.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        return shown(tab)

    assert len(pick("kind", "label")) == 2
    assert len(pick("kind", "copy")) == 2
    assert len(pick("kind", "unlike")) == 1
    assert len(pick("kind", "all")) == len(FILES)
    assert [data[n][0] for n in pick("text", "A/1")] == ["a/1.png"]
    assert pick("text", "nothing like it") == []
    assert "nothing fits" in tab.value("document.getElementById('status').textContent")
    pick("text", "")
    assert pick("sort", "confidence") == sorted(range(len(data)), key=lambda n: -data[n][4])
    assert pick("sort", "distance")[0] == next(n for n in range(len(data)) if data[n][5])
    assert [data[n][0] for n in pick("sort", "path")] == sorted(one[0] for one in data)
    assert {data[n][0] for n in pick("sort", "pair")[:2]} == {FILES[0], FILES[3]}
    assert all(data[n][1] == 2 for n in pick("true", "2"))
    pick("true", "")
    for kind, sort in (("unlike", "distance"), ("wrong", "confidence"), ("label", "rank")):
        tab.value(f"document.querySelector('input[value={kind}]').click()")
        assert tab.value("document.getElementById('tools').elements.sort.value") == sort
        assert all(
            kind in tab.value(f"document.querySelector('[data-card=\"{n}\"]').dataset.kinds").split() for n in shown(tab)
        )


def test_corrections_are_saved_as_the_verbs_read_them(tab: Browser, found: Review, tmp_path: Path) -> None:
    data = json.loads(tab.value("document.getElementById('data').textContent"))
    place = {image[0]: n for n, image in enumerate(data["images"])}
    assert tab.value("document.getElementById('save').disabled")

    def choose(path: str, value: str) -> None:
        select = f"document.querySelector('[data-card=\"{place[path]}\"] [data-fix]')"
        tab.value(
            f"{select}.focus(); {select}.value = '{value}'; {select}.dispatchEvent(new Event('change', {{bubbles: true}}))"
        )

    shown_path = r"b/\xff\x0a2.png"
    choose(FILES[0], "1")
    choose(shown_path, "drop")
    choose(FILES[3], "4")
    choose(FILES[4], "0")
    choose(FILES[4], "")
    tab.value(f"document.querySelector('[data-card=\"{place[FILES[1]]}\"] [data-accept]').click()")
    assert tab.value("document.getElementById('count').textContent") == "4 corrections."
    assert tab.value("document.querySelectorAll('.fixed').length") == 4
    tab.value("document.getElementById('save').click()")
    rows = saved(tmp_path)
    assert rows[0] == ["path", "old", "new"]
    assert sorted(rows[1:]) == sorted(
        [
            [FILES[0], "cat", EVIL],
            [shown_path, "drop", ""],  # a class is called drop: an empty cell is what leaves an image out
            [FILES[3], CLASSES[3], CLASSES[4]],
            [FILES[1], EVIL, "drop"],
        ]
    )
    from trickbag.data.corrections import corrected
    from trickbag.data.images import Images, Rows

    labels = [CLASSES[n % 5] for n in range(len(FILES))]
    images = Images.of(Path(), Rows(list(FILES), labels, [""] * len(FILES), [""] * len(FILES), CLASSES))
    made = corrected(images, tmp_path / "saved" / "corrections.csv")
    now = {path: made.classes[label] for path, label in zip(made.paths, made.labels, strict=True)}
    assert (now[FILES[0]], now[FILES[1]], now[FILES[3]], len(now)) == (EVIL, "drop", CLASSES[4], len(FILES) - 1)


def load(tab: Browser, *files: Path) -> str:
    """Give the page a file; what it says of it."""
    node = tab.call("DOM.querySelector", nodeId=tab.call("DOM.getDocument")["root"]["nodeId"], selector="#load")["nodeId"]
    before = tab.value("document.getElementById('hint').textContent")
    tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])
    for _ in range(100):
        if (said := tab.value("document.getElementById('hint').textContent")) != before:
            return str(said)
        time.sleep(0.05)
    raise AssertionError("the page says nothing of the file")


@pytest.mark.parametrize("mark", [",", ";"])
def test_earlier_corrections_are_gone_on_with(tab: Browser, tmp_path: Path, mark: str) -> None:
    """Those of images that the page shows, those of others, those that the labels have already, and what does not fit."""
    tab.look(400)
    rows = [
        ["elsewhere/1.png", "cat", 'größe, "é"'],
        [FILES[0], "cat", "drop"],
        [r"b/\xff\x0a2.png", "cat", "drop"],
        [FILES[4], "cat", "w" * 200],
        [FILES[4], "w" * 200, CLASSES[4]],
        [FILES[4], CLASSES[4], "cat"],
        [FILES[3], CLASSES[3], ""],
        [FILES[1], "cat", "drop"],
        [FILES[5], "cat", "zebra"],
    ]
    with (tmp_path / "earlier.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=mark).writerows([["Path", "OLD", "new"], *rows])
    said = load(tab, tmp_path / "earlier.csv")
    assert said == (
        "9 corrections read from earlier.csv. 4 of images that are not to be changed here are kept as they are. "
        "2 of them fit other labels or classes than these and are left out."
    )
    assert tab.value("getComputedStyle(document.getElementById('hint')).display") != "none"
    assert tab.value("document.getElementById('count').textContent") == "7 corrections."
    values = tab.value("[...document.querySelectorAll('.fixed')].map(c => c.querySelector('[data-fix]').value)")
    assert sorted(values) == ["0", "2", "drop"]
    tab.value("document.getElementById('save').click()")
    made = saved(tmp_path)
    assert sorted(made[1:]) == sorted([*rows[:6], [FILES[3], CLASSES[3], ""]])
    tab.open((tmp_path / "review.html").as_uri())
    again = load(tab, tmp_path / "saved" / "corrections.csv")
    assert again.startswith("7 corrections read from corrections.csv. 4 of images")
    assert tab.value("document.querySelectorAll('.fixed').length") == 3


def test_a_file_without_corrections_is_told(tab: Browser, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert load(tab, tmp_path / "other.csv") == (
        "other.csv has no corrections: it needs the columns path,old,new and lines below them."
    )
    assert tab.value("document.getElementById('save').disabled")


def test_the_table_of_classes_is_read_without_scrolling_aside(tab: Browser) -> None:
    for width in (320, 400, 820, 1280):
        tab.look(width)
        wide = "(e => e.scrollWidth > e.clientWidth)(document.querySelector('.tall'))"
        assert not tab.value(wide), width
    assert tab.value("parseFloat(getComputedStyle(document.querySelectorAll('.classes thead th')[3]).paddingRight)") > 24
    tab.look(400)
    shown = "getComputedStyle(document.querySelector('.classes td'), '::before').content"
    assert tab.value(shown) == '"Images "'


def test_all_of_it_works_by_keyboard(tab: Browser, tmp_path: Path) -> None:
    def focused() -> str:
        return tab.value("document.activeElement.outerHTML.slice(0, 200)")

    for _ in range(3):
        press(tab, "Tab")
        if "data-said" in focused():
            break
    assert 'data-true="0"' in focused()
    assert tab.value("document.querySelectorAll('.confusion [tabindex=\"0\"]').length") == 1
    press(tab, "ArrowDown")
    assert 'data-true="1"' in focused()
    press(tab, "ArrowUp")
    press(tab, "Enter", "\r")
    assert len(shown(tab)) == 2
    for _ in range(30):
        press(tab, "Tab")
        if "data-accept" in focused():
            break
    press(tab, "Enter", "\r")
    for _ in range(30):
        press(tab, "Tab")
        if 'id="save"' in focused():
            break
    press(tab, "Enter", "\r")
    assert [row[1:] for row in saved(tmp_path)[1:]] == [["cat", EVIL]]


def test_pictures_are_small_and_new_and_of_the_judged_content_alone(found: Review, tmp_path: Path) -> None:
    assert found.root is not None
    uri = thumbnail(found.root / FILES[0], found.contents[FILES[0]])
    content = base64.b64decode(uri.partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (SIDE, SIDE // 2), {})
    assert b"secret" not in content
    assert thumbnail(found.root / FILES[0], "another content") == ""
    assert thumbnail(found.root, "") == thumbnail(tmp_path / "missing.png", "") == ""


def test_a_page_of_many_images_and_classes_stays_small() -> None:
    """A thousand classes and 30,000 mistakes: the page holds 600 images, from as many cells as it can."""
    rng, names = np.random.default_rng(0), tuple(f"class {n:04d}" for n in range(1000))
    pairs = rng.integers(0, 1000, (30_000, 2))
    wrong = tuple(
        Mistake(f"images/{n:06d}.jpg", "test", names[a], names[b], 0.5) for n, (a, b) in enumerate(pairs.tolist()) if a != b
    )
    confusion = np.zeros((1000, 1000), np.int64)
    np.add.at(confusion, (pairs[:, 0], pairs[:, 1]), 1)
    errors = tuple(LabelError(one.path, one.true, one.predicted, 0.9, 0.1) for one in wrong[:1000])
    scores = tuple(OfClass(name, 30, 0.5, 0.5, names[0], 1) for name in names)
    found = Review(Path("run"), "a run", 100_000, names, confusion, errors, wrong, (), (), scores, (), None, {})
    chosen = pages.chosen(found)
    assert len(chosen) == pages.MOST
    assert sum("label" in card.kinds for card in chosen.values()) == pages.MOST_ERRORS
    text = found.html()
    assert len(text) < 1_500_000
    assert f"{pages.MOST_ERRORS} of 1,000" in text
    assert "The 30 classes with the most mistakes, of 1000." in text


def test_a_cell_of_many_mistakes_leaves_room_for_others() -> None:
    many = [Mistake(f"{n}.jpg", "val", "a", "b", 0.99) for n in range(700)]
    few = [Mistake(f"other {n}.jpg", "val", "b", "a", 0.5) for n in range(3)]
    confusion = np.array([[0, 700], [3, 0]])
    found = Review(Path("run"), "a run", 703, ("a", "b"), confusion, (), (*many, *few), (), (), (), (), None, {})
    chosen = pages.chosen(found)
    assert len(chosen) == pages.MOST
    assert {one.path for one in few} <= {*chosen}
