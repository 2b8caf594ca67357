"""Real stop signals to real processes: none is lost, none shows a traceback, and the same command goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from album import fill, recipe_file
from processes import Dying, Training, hit_twice

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOMENTS = {
    "reading": r"^open dog/\d+\.png$",
    "deciding": r"^os.rename run/\.recipe\.toml\.",
    "training": r"^open run/log\.jsonl$",
}
"""Files whose opening or renaming shows where the work stands."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos"), {"cat": 0, "dog": 1}, 20)


@pytest.fixture
def training(photos: Path, tmp_path: Path) -> Training:
    return Training(tmp_path, photos, "--recipe", str(recipe_file(tmp_path / "tiny.toml")))


@pytest.mark.parametrize(("moment", "number"), list(zip(MOMENTS, NUMBERS, strict=True)))
def test_a_signal_within_a_finaliser_stops_the_work(moment: str, number: int, training: Training) -> None:
    assert training.run(MOMENTS[moment], 1, number, Dying) == 128 + number, training.errors
    (line,) = training.errors.splitlines()
    assert line.startswith("trickbag: stopped")
    assert training.run() == 0, training.errors


def test_a_second_signal_ends_at_once(training: Training) -> None:
    assert training.run(MOMENTS["training"], 1, signal.SIGTERM, hit_twice) == 128 + signal.SIGTERM
    assert "ended at once" in training.errors
    assert training.run() == 0, training.errors


def test_two_hangups_of_a_closed_terminal_leave_time_for_a_checkpoint(training: Training) -> None:
    assert training.run(MOMENTS["training"], 1, signal.SIGHUP, hit_twice) == 128 + signal.SIGHUP
    assert training.errors.startswith("trickbag: stopped at step")


def test_a_signal_whose_error_a_library_replaces_is_no_traceback() -> None:
    code = """
import os, signal
from trickbag.terminal.start import begin
def library():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:
        raise ValueError(f"no schema: {error}") from None
begin(library)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stderr.startswith("trickbag: stopped")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_a_signal_during_the_imports_is_no_traceback(module: str, photos: Path) -> None:
    code = f"""
import os, signal, sys
sys.addaudithook(lambda event, of: event == "import" and of[0] == {module!r} and os.kill(os.getpid(), signal.SIGINT))
sys.argv = ["trickbag", "train", {str(photos)!r}, "--plan"]
from trickbag.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 130
    assert ended.stderr == "trickbag: stopped. What was finished is kept; the same command continues.\n"


def test_nohup_stays_in_force(training: Training) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "import os, signal\nfrom trickbag.ground import signals\nsignals.listen()\nos.kill(os.getpid(), signal.SIGHUP)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_leaves_ends_no_training(photos: Path, tmp_path: Path) -> None:
    words = ["train", str(photos), "--recipe", str(recipe_file(tmp_path / "tiny.toml")), "--out", str(tmp_path / "run")]
    environment = os.environ | {"TRICKBAG_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        [sys.executable, "-m", "trickbag", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as started:
        assert started.stdout
        assert started.stderr
        started.stdout.readline()
        started.stdout.close()
        assert started.wait() == 0
        assert started.stderr.read() == b""
    assert (tmp_path / "run" / "MANIFEST.json").exists()
