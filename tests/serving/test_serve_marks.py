"""Detectors and segmenters behind an address: boxes and shares as Python says them, and a page that shows where they are."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import marked
import pytest
import test_serve_page as pages
from browser import Browser
from PIL import Image
from served import Served
from test_serve_answers import fits

import trickbag as tb


@pytest.fixture(scope="module")
def marks(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector and a segmenter on the body of a run."""
    folder = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        for task, write, head in (("detection", marked.voc, "fcos"), ("segmentation", marked.regions, "fcn")):
            small = {"size": 32, "epochs": 1, "head": head}
            tb.transfer(place / "one", write(folder / task), task, set_=small, out=folder / head)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def mixed(place: Path, marks: Path) -> Iterator[Served]:
    with Served(place, str(marks / "fcos"), str(marks / "fcn"), str(place / "one")) as started:
        yield started


@pytest.fixture
def photo(marks: Path) -> tuple[str, bytes]:
    path = marks / "detection" / "JPEGImages" / "b.png"
    return path.name, path.read_bytes()


def test_boxes_and_shares_are_those_of_python(mixed: Served, marks: Path, photo: tuple[str, bytes]) -> None:
    found = mixed.send("/predict?run=fcos&threshold=0", photo).json["images"][0]
    (expected,) = tb.load(marks / "fcos").predict(photo[1], threshold=0)
    assert (found["name"], found["width"], found["height"]) == ("b.png", 32, 48)
    assert len(found["boxes"]) == len(expected.boxes) > 0
    for said, box in zip(found["boxes"], expected.boxes, strict=True):
        assert said["class"] == box.name
        assert said["score"] == pytest.approx(box.score, abs=1e-4)
        assert [said[side] for side in ("left", "top", "right", "bottom")] == pytest.approx(box[2:], abs=0.05)
    assert mixed.send("/predict?run=fcos", photo).json["images"][0]["boxes"] == [
        one for one in found["boxes"] if one["score"] >= 0.5
    ]
    shares = mixed.send("/predict?run=fcn", photo).json["images"][0]
    (regions,) = tb.load(marks / "fcn").predict(photo[1])
    assert {one["class"]: one["share"] for one in shares["shares"]} == pytest.approx(regions.shares, abs=0.01)
    assert "picture" not in shares
    bad = mixed.send("/predict?run=fcos", photo, ("bad.png", photo[1][:60]))
    assert bad.status == 200
    assert bad.json["images"][1] == {"name": "bad.png", "error": "bad.png cannot be read: truncated."}


def test_pictures_are_drawn_where_they_are_asked_for(mixed: Served, photo: tuple[str, bytes]) -> None:
    for run in ("fcos", "fcn"):
        address = mixed.send(f"/predict?run={run}&picture=true&threshold=0", photo).json["images"][0]["picture"]
        with Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,")))) as picture:
            assert picture.height >= 320


def test_the_description_holds_for_them_too(mixed: Served, photo: tuple[str, bytes]) -> None:
    told = mixed.ask("GET", "/openapi.json").json
    said = told["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    for run in ("fcos", "fcn", "one"):
        answer = mixed.send(f"/predict?run={run}&threshold=0&picture=true", photo).json
        fits(answer, said, told["components"]["schemas"])
    runs = mixed.ask("GET", "/runs").json
    assert [run["task"] for run in runs["runs"]] == ["detection", "segmentation", "classification"]
    assert runs["threshold"] == 0.5
    refused = mixed.send("/explain?run=fcos", photo)
    assert refused.status == 422
    assert "is no classifier" in refused.json["error"]


@pytest.mark.skipif(pages.BINARY is None, reason="no Chromium or Chrome on the PATH")
def test_the_page_shows_where_things_are(mixed: Served, marks: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Browser(str(pages.BINARY), tmp_path_factory.mktemp("profile")) as page:
        page.open(f"{mixed.address}/")
        pages.until(page, "served !== null")
        page.value("at('threshold').value = 0")
        pages.choose(page, [str(marks / "detection" / "JPEGImages" / f"{name}.png") for name in "ab"])
        pages.settled(page, 2)
        shown = "document.querySelector('.shown img')"
        pages.until(page, f"{shown}.src.startsWith('data:image/jpeg') && {shown}.complete && {shown}.naturalWidth >= 320")
        assert page.value(f"{shown}.alt") == "What fcos finds in a.png"
        page.value("document.querySelectorAll('.run button')[1].click()")
        pages.until(page, f"{shown}.alt === 'What fcn finds in a.png'")
        assert page.value("photos[0].answers.get('fcos').boxes.length") > 0
        page.value("at('threshold').value = 100, at('threshold').onchange()")
        pages.settled(page, 2)
        assert page.value("photos[0].answers.get('fcos').boxes.length") == 0
        assert page.value("document.querySelector('.run .quiet ~ *, .run p.quiet').textContent") is not None
        rows = page.value("csv()").splitlines()
        assert rows[0].endswith(",left,top,right,bottom")
        assert {len(row.split(",")) for row in rows} == {11}
        assert page.value(pages.TOO_WIDE) == []
        assert page.value(pages.NAMELESS) == []
        assert page.complaints == []
