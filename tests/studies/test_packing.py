"""How many trainings at a time: what real processes side by side show, and what needs no timing."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import study_lab
import torch

from trickbag.engine.pixels import Data
from trickbag.recipe import Recipe
from trickbag.runs.request import request
from trickbag.studies import packing as room
from trickbag.studies.packing import packing


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Data]:
    """A recipe and a data set."""
    folder = tmp_path_factory.mktemp("packing")
    recipe = Recipe.load(study_lab.recipe(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        data = request(study_lab.album(folder / "album", {"a": 30, "b": 30, "c": 30}, noise=60), recipe).data
    return recipe, data


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_several_at_a_time_where_they_are_faster_in_all(work: tuple[Recipe, Data], two_threads: None) -> None:
    workers, reason = packing(*work, seed=0, jobs=8)
    said = re.fullmatch(r"(\d+) images/s with 2 trainings at a time, (\d+) with one", reason)
    assert said
    together, one = map(int, said.groups())
    assert workers == (2 if together > room.WORTH * one else 1)
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only there are processes forked from a server")
def test_trainings_that_come_after_begin_with_all_imported(tmp_path: Path) -> None:
    """Whoever starts the server decides what it imports, once: a study that began without would import torch for each job."""
    study_lab.album(tmp_path / "album", {"a": 30, "b": 30, "c": 30}, noise=60)
    code = f"""
import torch
from multiprocessing.forkserver import _forkserver
from pathlib import Path
from trickbag.recipe import Recipe
from trickbag.runs.request import request
from trickbag.studies.packing import packing
torch.set_num_threads(2)
recipe = Recipe.load({study_lab.recipe(tmp_path)!r})
packing(recipe, request({str(tmp_path / "album")!r}, recipe).data, 0, 8)
print(Path(f"/proc/{{_forkserver._forkserver_pid}}/cmdline").read_text())
"""
    environment = os.environ | {"TRICKBAG_CACHE": str(tmp_path / "cache")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert "trickbag.studies.worker" in said


def test_one_at_a_time_where_there_is_no_room_for_two(
    work: tuple[Recipe, Data], two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packing(*work, seed=0, jobs=1).workers == 1
    assert 1 << 28 < room.free_memory() < 1 << 50
    monkeypatch.setattr(room, "free_memory", lambda: 1 << 20)
    assert packing(*work, seed=0, jobs=8).workers == 1
    torch.set_num_threads(1)
    monkeypatch.undo()
    assert packing(*work, seed=0, jobs=8).workers == 1
