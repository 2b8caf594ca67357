"""Standard output and error of every kind: what cannot be shown ends no work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = (["tricks"], ["--help"], ["study", "--help"], ["train", "no-such-folder", "--budget", "é\udcff"])
ENCODINGS = ("ascii", "ascii:strict", "cp1252", "latin-1", "utf-8", "utf-16")
SINKS = (">/dev/null", ">/dev/full", ">&-", "2>&-", "2>/dev/full", ">&- 2>&-", "<&- >/dev/full 2>/dev/full", "| head -n 1", "")


@pytest.mark.parametrize("sink", SINKS)
def test_nothing_that_cannot_be_shown_is_a_traceback(sink: str, tmp_path: Path) -> None:
    """Commands that import little, each with every output, and so with every encoding: all pairs of the three meet."""
    for number, encoding in enumerate(ENCODINGS, SINKS.index(sink)):
        words = WORDS[number % len(WORDS)]
        script = f'"$@" {sink}; echo "code ${{PIPESTATUS[0]}}" >&9'
        reader, writer = os.pipe()
        ended = subprocess.run(
            ["bash", "-c", script.replace(">&9", f">&{writer}"), "bash", sys.executable, "-m", "trickbag", *words],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            pass_fds=[writer],
            check=False,
        )
        os.close(writer)
        with os.fdopen(reader) as told:
            code = int(told.read().split()[1])
        case = f"{words} {encoding} {sink}: {ended.stderr!r}"
        assert b"Traceback" not in ended.stderr + ended.stdout, case
        assert b"Exception ignored" not in ended.stderr, case
        assert code == (2 if "no-such-folder" in words else 1 if ">/dev/full" in sink.replace("2>/dev/full", "") else 0), case


def test_an_answer_that_a_full_disk_does_not_take_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "trickbag", "tricks"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == "trickbag: standard output could not be written (No space left on device); all else was done.\n"


def test_no_file_takes_the_place_of_a_closed_output(tmp_path: Path) -> None:
    code = f"""
import sys
from trickbag.display import output
output.steady()
file = open({str(tmp_path / "file")!r}, "w")
print("lost")
assert file.fileno() > 2
"""
    subprocess.run(["bash", "-c", '"$@" <&- >&-', "bash", sys.executable, "-c", code], check=True)
    assert (tmp_path / "file").read_text() == ""
