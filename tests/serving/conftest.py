"""Photos, two runs that were trained on them, and servers of theirs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from album import fill, recipe_file
from served import SECRET, SMALL, Served

import trickbag as tb


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        fill(folder / "photos", {"a": 0, "b": 1, "猫 <b>": 2}, 12)
        recipe_file(folder / "tiny.toml")
        tb.train("photos", "tiny.toml", out="one", set_={"epochs": 1, "lr": 0.1})
        tb.train("photos", "tiny.toml", out="two", with_="flip_tta", set_={"epochs": 1}, seed=1)
        (folder / "secret.txt").write_bytes(SECRET)
    return folder


@pytest.fixture(scope="session")
def photos(place: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted((place / "photos").glob("*/0[0-1].png"))]


@pytest.fixture(scope="session")
def server(place: Path) -> Iterator[Served]:
    """Two runs, at the limits that stand by default."""
    with Served(place, str(place / "one"), str(place / "two"), "--threshold", "0.5") as started:
        yield started


@pytest.fixture(scope="session")
def strict(place: Path) -> Iterator[Served]:
    """One run, at limits that a test reaches."""
    with Served(place, str(place / "one"), *SMALL) as started:
        yield started
