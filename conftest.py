"""Where the examples of docstrings run: a folder with photos of cats and dogs, so to say, and two finished runs."""

from pathlib import Path

import pytest
from _pytest.doctest import DoctestItem


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``photos``, ``run``, ``mixup-run`` and the trick of a page of the documents lie.

    And ``cells`` with a ``detector`` and ``streets`` with a ``segmenter`` that learned from them.
    """
    from album import fill
    from marked import cells, regions

    import trickbag as tb

    place = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        fill(Path("photos"), {"cat": 0, "dog": 1}, 12)
        cells(Path("cells"))
        page = Path(__file__).with_name("docs") / "own-trick.md"
        Path("posterize.py").write_text(page.read_text("utf-8").split("```python\n")[1].split("```")[0], "utf-8")
        for out, tricks in (("run", ""), ("mixup-run", "mixup")):
            tb.train("photos", "cifar", model="cifar_resnet8", with_=tricks, set_={"size": 16, "epochs": 1}, out=out)
        tiny = {"size": 32, "epochs": 1, "head": "fcos"}
        tb.transfer("run", "cells", "detection", set_=tiny, out="detector")
        tb.transfer("run", regions(Path("streets")), "segmentation", set_=tiny | {"head": "fcn"}, out="segmenter")
    return place


@pytest.fixture(autouse=True)
def _there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that names photos or a run finds them."""
    item = request.node
    if isinstance(item, DoctestItem) and item.dtest and "import trickbag as tb" in (item.dtest.docstring or ""):
        place = request.getfixturevalue("photos")
        monkeypatch.chdir(place)
        monkeypatch.setenv("TRICKBAG_CACHE", str(place / "cache"))
