"""What all tests share."""

import os
import sys
from multiprocessing import forkserver

import pytest
import torch
from answers import Here
from hypothesis import settings

# Every run tests the same examples, however slow the machine is just then.
settings.register_profile("trickbag", deadline=None, derandomize=True, database=None)
settings.load_profile("trickbag")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


PROCESSES = ("test_cluster.py", "test_study_kill.py", "test_resume.py", "test_ranks.py", "test_execute.py", "test_signals.py")
"""Files whose tests mostly wait for processes of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits begins first, so that the machine has other work meanwhile, and no test worker is left alone with it."""
    items.sort(key=lambda item: item.path.name not in PROCESSES)
    if "processes" in sys.modules:
        # Now: a test of a study with workers would start it with less imported, and each process import the rest.
        forkserver.ensure_running()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRICKBAG_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def ask(capsys, monkeypatch):
    """The command line in this process: words -> exit code, output and errors."""
    return Here(capsys, monkeypatch)
