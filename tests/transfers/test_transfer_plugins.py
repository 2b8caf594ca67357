"""Detectors on networks of one's own, and with tricks of one's own: trained, kept with their code, and loaded without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import album
import marked
import own
import pytest

import trickbag as tb

SMALL: dict[str, Any] = {"size": 32, "epochs": 1, "batch_size": 2, "head": "fcos"}
WORDS = ("voc", "--to", "detection", *(word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")))


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    marked.voc(Path("voc"))
    own.write(Path(), "maps", own.MAPS)
    own.write(Path(), "signs", own.SIGNS)
    return tmp_path


def test_a_detector_on_a_network_of_ones_own_is_loaded_where_the_file_is_gone(place: Path, ask: Callable[..., Any]) -> None:
    album.fill(Path("photos"), {"a": 0, "b": 1}, 8)
    few = {"size": 16, "epochs": 1, "precision": "fp32"}
    tb.train("photos", "cifar", model="maps", plugins="maps.py", set_=few, out="run")
    assert ask("transfer", "run", *WORDS, "--out", "made").code == 0
    assert ask("transfer", "maps", *WORDS, "--plugin", "maps.py", "--out", "scratch").code == 0
    Path("maps.py").unlink()
    for folder in ("made", "scratch"):
        assert Path(folder, "seed-0/plugins/maps.py").read_text("utf-8") == own.MAPS
        assert tb.load(folder).classes == marked.CLASSES
        assert ask("predict", folder, "voc/JPEGImages", "--csv").code == 0
    refused = ask("transfer", "maps", *WORDS, "--out", "another")
    assert (refused.code, "There is no model 'maps'" in refused.err) == (2, True)


def test_a_trick_of_ones_own_trains_a_detector_and_its_content_is_part_of_what_was_asked(
    place: Path, ask: Callable[..., Any]
) -> None:
    words = (
        "transfer",
        "cifar_resnet8",
        *WORDS,
        "--without",
        "adamw",
        "--with",
        "signs",
        "--plugin",
        "signs.py",
        "--out",
        "made",
    )
    for _ in range(2):
        answer = ask(*words)
        assert answer.code == 0, answer.err
    assert tb.load("made").classes == marked.CLASSES
    own.write(Path(), "signs", own.SIGNS.replace("1e-3", "2e-3"))
    other = ask(*words)
    assert (other.code, "made was begun with another" in other.err) == (2, True)


def test_a_plugin_of_which_nothing_is_asked_is_refused(place: Path, ask: Callable[..., Any]) -> None:
    own.write(Path(), "scores", own.SCORES)
    for name, said in {"signs": "Add --with signs", "maps": "Name its network maps", "scores": "Leave it out"}.items():
        answer = ask("transfer", "cifar_resnet8", *WORDS, "--plugin", f"{name}.py", "--out", "made")
        assert (answer.code, said in answer.err) == (2, True), answer.err
    assert not Path("made").exists()
