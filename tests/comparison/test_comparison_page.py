"""The page of a comparison: whole, legible at every width, and nothing in it runs, whatever methods and images are called."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from album import fill
from browser import Browser, chromium

from trickbag.comparison.compare import Comparison, compare
from trickbag.comparison.pictures import thumbnail
from trickbag.report.page import jpeg

BINARY = chromium()
EVIL = "</td><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
WIDE = "w" * 300
KINDS = ("methods", "networks", "scores")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    """A comparison of each kind, among methods, classes and images with hostile names."""
    folder = tmp_path_factory.mktemp("page")
    fill(folder, {"cat": 0, "dog": 1}, 20)
    images = [f"{name}/{number:02d}.png" for name in ("cat", "dog") for number in range(20)]
    images += [EVIL, "\u202egnp.exe", WIDE, "../outside.png"]
    rng = np.random.default_rng(0)
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", "image", "label", "p_cat", f"p_{EVIL}"])
        for method, gain in (("plain", 0.5), (EVIL, 0.7), (WIDE, 0.4)):
            for seed in range(3):
                for place, image in enumerate(images):
                    p = 0.9 if (rng.random() < gain) == (place < 20) else 0.1
                    writer.writerow([method, seed, image, "cat" if place < 20 else EVIL, p, round(1 - p, 6)])
    with (folder / "s.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["method", "seed", "score"], *([m, s, rng.random()] for m in ("plain", EVIL, WIDE) for s in range(4))]
        )
    return {
        "methods": compare(folder / "t.csv"),
        "networks": compare(folder / "t.csv", networks=True),
        "scores": compare(folder / "s.csv"),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BINARY is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    with Browser(str(BINARY), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "dark"), [(320, False), (390, True), (820, False), (1280, True)])
def test_the_page_fits_every_width_asks_for_nothing_and_runs_nothing(
    browser: Browser, found: dict[str, Comparison], tmp_path: Path, kind: str, width: int, dark: bool
) -> None:
    path = tmp_path / "compare.html"
    path.write_text(found[kind].html(), "utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.look(width, dark)
    browser.open(path.as_uri())
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    outside = "filter(e => !e.closest('.scroll, svg, thead') && e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.value(f"[...document.querySelectorAll('body *')].{outside}.map(e => e.outerHTML.slice(0, 99))") == []
    assert [request for request in browser.requests if not request.startswith("data:image/jpeg;base64,")] == [path.as_uri()]
    assert browser.complaints == []
    assert browser.value("document.title").startswith(("3 methods: ", "9 networks: "))
    assert browser.value("document.querySelectorAll('script, iframe, a, form, [onerror], [style]').length") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_says_what_the_comparison_says(found: dict[str, Comparison], kind: str) -> None:
    page = found[kind].html()
    assert page == found[kind].html()
    assert f"{len(found[kind].methods)} " in page
    assert "<script>" not in page
    shown = page.replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'").replace("\n", " ")
    for sentence in found[kind].answer:
        assert sentence.replace(r"\u202e", "") in shown.replace(r"\u202e", ""), sentence


def test_images_have_thumbnails_where_their_files_lie_below_the_folder(found: dict[str, Comparison]) -> None:
    differing, folder = found["methods"].pairs[0].differing, found["methods"].folder
    shown = [*differing.best, *differing.worst]
    real = [picture for picture in shown if picture.path.startswith(("cat/", "dog/"))]
    assert real
    assert all(bool(thumbnail(folder, picture.path)) == (picture in real) for picture in shown)
    for picture in real:
        assert thumbnail(folder, picture.path) in found["methods"].html()
    for picture in differing.best:
        ours, theirs = (int(count.split()[0]) for count in (picture.ours, picture.theirs))
        assert ours > theirs


def test_a_thumbnail_is_made_of_images_alone_and_of_nothing_outside(tmp_path: Path) -> None:
    fill(tmp_path / "in", {"a": 0}, 1)
    fill(tmp_path, {"out": 0}, 1)
    (tmp_path / "in" / "text.png").write_text("no image")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out" / "00.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    place = tmp_path / "in"
    assert jpeg(thumbnail(place, "a/00.png"))
    for name in (
        "../out/00.png",
        str(tmp_path / "out" / "00.png"),
        "link.png",
        "text.png",
        "pipe.png",
        "a",
        "",
        "x\0y",
        "n" * 5000,
    ):
        assert thumbnail(place, name) == "", name
