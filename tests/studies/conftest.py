"""What the tests of whole studies share."""

import pytest
from shelves import more_tricks
from study_lab import COUNTS, album


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        album(folder / "album", COUNTS, noise=60)
        yield folder


@pytest.fixture(scope="module")
def shelf():
    """Two more tricks, for one module alone."""
    with more_tricks():
        yield
