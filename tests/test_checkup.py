"""What the doctor says is so, and one look that fails takes no other away."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from album import fill, recipe_file
from safetensors.torch import save_file

import trickbag as tb
from trickbag import checkup
from trickbag.ground import clearing

HOUSE = Path(__file__).parent.parent


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder and a cache of the test's own, and no weights of the hub."""
    cache.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(checkup, "LITTLE", 0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_what_it_says_is_so(place: Path, ask) -> None:
    fill(Path("photos"), {"a": 0, "b": 1}, 8)
    tb.train("photos", recipe_file(Path("tiny.toml")), out="runs/one", set_={"epochs": 1})
    save_file({"w": torch.zeros(1000)}, "own.safetensors")
    hub = place / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / "0"
    hub.mkdir(parents=True)
    save_file({"w": torch.zeros(500)}, hub / "model.safetensors")
    found = tb.doctor()
    assert found.versions["torch"] == version("torch")
    assert found.versions["timm"] == version("timm")
    assert (found.machine.cores, found.machine.threads) == (os.cpu_count(), torch.get_num_threads())
    assert found.cache.folder == str(place / "cache")
    assert found.cache.holds == clearing.sizes()
    assert found.cache.holds.keys() == {"pixels", "facts"}
    assert {one.name: Path(one.file).stat().st_size for one in found.weights} == {one.name: one.bytes for one in found.weights}
    assert [one.name for one in found.weights] == ["own.safetensors", "runs/one", "timm/resnet18.a1_in1k"]
    assert found.problems == ()
    told = ask("doctor")
    assert told.code == 0
    assert len(told.out.splitlines()) == len(found.lines()) == 8
    assert "own.safetensors (4 kB)" in told.out
    as_json = ask("doctor", "--json")
    assert not as_json.err
    assert json.loads(as_json.out).keys() == found.as_json().keys()
    assert json.loads(as_json.out)["cache"]["holds"] == found.cache.holds


def test_it_changes_nothing_unless_asked_to(place: Path, ask) -> None:
    shutil.rmtree(place / "cache")
    tb.doctor()
    assert not (place / "cache").exists()
    (place / "cache" / "given" / ("a" * 32)).mkdir(parents=True)
    (place / "cache" / "given" / ("a" * 32) / "x").write_bytes(bytes(5000))
    before = tb.doctor()
    assert before.cache.holds == {"given": 5000}
    assert before.freed is None
    told = ask("doctor", "--clear", "--json")
    assert json.loads(told.out)["freed"] == 5000
    assert json.loads(told.out)["cache"]["holds"] == {}
    assert "cleared: 0 kB" in ask("doctor", "--clear").out


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TRICKBAG_CACHE", "/nowhere/at all", "TRICKBAG_CACHE='/nowhere/at all', which is no folder"),
        ("TRICKBAG_CACHE", "/proc/nowhere", "cannot be written"),
        ("TRICKBAG_CACHE", "~nobody-of-this-name/x", "no home folder"),
        ("TRICKBAG_DATA", "/nowhere", "TRICKBAG_DATA='/nowhere', which is no folder"),
        ("TRICKBAG_DATA", "x" * 5000, "which is no folder"),
        ("TRICKBAG_WORKERS", "many", "TRICKBAG_WORKERS='many'"),
        ("TRICKBAG_CACHE_LIMIT", "-1", "TRICKBAG_CACHE_LIMIT='-1'"),
        ("TRICKBAG_CASHE", "/tmp", "Did you mean TRICKBAG_CACHE?"),
    ],
)
def test_an_environment_that_cannot_be_is_a_problem(
    place: Path, ask, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    told = ask("doctor")
    assert told.code == 0
    assert [line for line in told.out.splitlines() if line.startswith("problem: ") and words in line]
    assert "versions: Python" in told.out
    assert "no problem found" not in told.out


def test_a_full_disk_is_a_problem(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "LITTLE", 1e30)
    assert sum("are free in" in problem for problem in tb.doctor().problems) == 2


def test_what_an_extra_lacks_is_said_with_the_command(place: Path, monkeypatch: pytest.MonkeyPatch, ask) -> None:
    with (HOUSE / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert {name: list(packages) for name, packages in checkup.EXTRAS.items()} == {
        name: packages for name, packages in extras.items() if name not in ("dev", "docs")
    }
    lacking = {"export": ("numpy", "no-such-package"), "serve": ("no-such", "nor-such"), "ray": ()}
    monkeypatch.setattr(checkup, "EXTRAS", lacking)

    told = ask("doctor").out
    assert "export lacks no-such-package, serve lacks no-such and nor-such, ray is there" in told
    assert "pip install 'trickbag[export,serve]'" in told


def test_a_broken_torch_is_a_problem_and_no_end(place: Path) -> None:
    (place / "broken").mkdir()
    (place / "broken" / "torch.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    path = os.pathsep.join([str(place / "broken"), str(HOUSE)])
    command = [sys.executable, "-m", "trickbag", "doctor"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    (problem,) = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert "operator torchvision::nms does not exist" in problem
    assert "pip install --force-reinstall torch torchvision" in problem
    assert "device: unknown" in done.stdout
    assert "GB free" in done.stdout


def test_one_look_that_fails_takes_no_other_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("nothing there")

    for name in ("_versions", "_machine", "_cache", "_runs", "_weights", "_extras"):
        monkeypatch.setattr(checkup, name, fails)
    found = tb.doctor()
    assert len(found.problems) == 6
    assert all("ZeroDivisionError: nothing there" in problem for problem in found.problems)
    assert len(found.lines()) == 7 + 6
    assert "6 problems" in repr(found)
