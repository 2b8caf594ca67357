"""Folders, environments and names that cannot be as asked end in a sentence, before any work."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import torch
from album import fill, recipe_file
from answers import Here

from trickbag.display.screen import Screen
from trickbag.engine import speed
from trickbag.engine.speed import _fitting
from trickbag.ground import store
from trickbag.ground.errors import NoRoomError, TrickbagError, UsageError
from trickbag.ground.text import file_name
from trickbag.recipe import Recipe
from trickbag.runs.classifier import Prediction

STRAY = "cat/n\udcff\nl\x1b[31m=é\\ud800.png"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    fill(tmp_path / "photos", {"cat": 0, "dog": 1}, 12)
    recipe_file(tmp_path / "tiny.toml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", ["train", "study"])
@pytest.mark.parametrize(("out", "code"), [("", 2), ("/", 2), (".", 2), ("..", 2), ("tiny.toml", 2), ("/proc/run", 1)])
def test_a_folder_that_cannot_hold_results(out: str, code: int, verb: str, place: Path, ask: Here) -> None:
    os.chdir(place / "photos")
    told = ask(verb, ".", "--recipe", "../tiny.toml", "--out", out.replace("tiny", "../tiny"))
    assert told.code == code
    (line,) = told.err.splitlines()
    assert "another process" not in line


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TRICKBAG_WORKERS", "abc", "TRICKBAG_WORKERS"),
        ("TRICKBAG_CHECKPOINT_SECONDS", "nan", "TRICKBAG_CHECKPOINT_SECONDS"),
        ("TRICKBAG_CACHE_LIMIT", "-1", "TRICKBAG_CACHE_LIMIT"),
        ("LOCAL_WORLD_SIZE", "1.5", "LOCAL_WORLD_SIZE"),
        ("TRICKBAG_CACHE", "/proc/nowhere", "Set TRICKBAG_CACHE|set TRICKBAG_CACHE"),
        ("TRICKBAG_CACHE", "~nobody-of-this-name/x", "TRICKBAG_CACHE"),
    ],
)
def test_an_environment_that_cannot_be(
    name: str, value: str, words: str, place: Path, ask: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    told = ask("train", "photos", "--recipe", "tiny.toml", "--out", "run")
    assert told.code in (1, 2)
    (line,) = told.err.splitlines()
    assert any(word in line for word in words.split("|"))
    if name == "TRICKBAG_CACHE":
        assert "timing" not in told.out


UNCALLED = ("x" * 5000, "x/" * 3000, "a\0b")


def test_names_for_other_programs_are_what_they_are(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    found = [Prediction(STRAY, ("=1+1",), (1.0,))]
    with Screen(quiet=True) as screen:
        screen.predictions(found, "csv")
        written = capsysbinary.readouterr().out
        screen.predictions(found, "json")
        told = json.loads(capsysbinary.readouterr().out)
    rows = list(csv.reader(io.StringIO(written.decode("utf-8", "surrogateescape"), newline="")))
    assert rows == [["path", "rank", "class", "probability", "unsure"], [STRAY, "1", "=1+1", "1.000000", "no"]]
    assert told == {"path": STRAY, "predictions": [{"class": "=1+1", "probability": 1.0}], "unsure": False}


@pytest.mark.parametrize("name", [STRAY, "猫" * 300, "a/b\\c:d", "\0", "\u202egpj.exe"])
def test_a_part_of_a_file_name_is_one_that_every_disk_takes(name: str, tmp_path: Path) -> None:
    made = file_name(name)
    assert made.isprintable()
    (tmp_path / f"00000-{made}.png").touch()


def test_room_is_asked_for_before_training(tmp_path: Path) -> None:
    with pytest.raises(NoRoomError, match="checkpoints"):
        store.check_room(tmp_path, {"model": torch.zeros(1).expand(1 << 50)})
    store.check_room(tmp_path, {"model": torch.zeros(8)})


def test_folders_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.folder_of(".") == tmp_path
    assert store.folder_of("run") == Path("run")
    for out in ("", " ", "/", *UNCALLED):
        with pytest.raises(UsageError):
            store.folder_of(out)


@pytest.mark.parametrize("name", UNCALLED, ids=["long", "deep", "nul"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "photos", "--recipe", "tiny.toml", "--weights", "NAME"],
        ["train", "photos", "--recipe", "tiny.toml", "--with", "distill(teacher='NAME')"],
        ["train", "photos", "--recipe", "tiny.toml", "--with", "pseudo_label(unlabelled='NAME')"],
        ["train", "photos", "--recipe", "tiny.toml", "--out", "NAME"],
        ["train", "photos", "--recipe", "NAME"],
        ["predict", "NAME", "photos"],
        ["evaluate", "NAME", "photos"],
        ["explain", "NAME", "photos"],
        ["serve", "NAME", "--port", "0"],
        ["finish", "NAME"],
        ["report", "NAME"],
        ["atlas", "NAME"],
        ["atlas", "photos", "--out", "NAME"],
        ["study", "photos", "--recipe", "tiny.toml", "--tricks", "auto", "--plan", "--prior", "NAME"],
        ["check", "NAME"],
        ["study", "photos", "--study", "NAME"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have_is_refused_in_few_words(words: list[str], name: str, place: Path, ask: Here) -> None:
    told = ask(*(word.replace("NAME", name) for word in words))
    assert told.code == 2, told.err
    assert len(told.err) < 1500


def test_a_batch_that_the_memory_does_not_hold_is_halved_whatever_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that would need the memory are a stand-in; on a CPU torch has no error of its own for it."""
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError(),
    ):

        def steps(recipe: Recipe, *_: object, error: BaseException = error, **__: object) -> str:
            if not 0 < recipe.micro_batch <= 4:
                raise error
            return "timed"

        monkeypatch.setattr(speed, "time_steps", steps)
        fitting, timed = _fitting(Recipe(batch_size=16), None, None, 0)  # type: ignore[arg-type]
        assert (fitting.micro_batch, timed) == (4, "timed")
    monkeypatch.setattr(speed, "time_steps", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(TrickbagError, match="fits into memory"):
        _fitting(Recipe(batch_size=2), None, None, 0)  # type: ignore[arg-type]
