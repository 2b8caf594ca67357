"""From the command to the address, and to its end: sentences and exit codes."""

import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from served import Served

import trickbag as tb
import trickbag.serving
from trickbag.serving.schema import SENTENCES
from trickbag.terminal.cli import app

DOCS = Path(__file__).parents[2] / "docs" / "serve.md"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_whatever_is_under_way(place: Path, number: int) -> None:
    with Served(place, str(place / "one")) as server:
        assert server.output == f"serving one at {server.address}/; stop with Ctrl-C\n"
        with server.connect() as idle, server.connect() as half:
            half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
            time.sleep(0.1)
            assert server.stop(number) == 128 + number
            assert idle.recv(1) == b""
        assert server.output.splitlines()[1:] == ["trickbag: stopped serving."]


def test_a_port_that_is_taken_is_said(place: Path, ask: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = ask("serve", str(place / "one"), "--port", str(port))
    assert told.code == 2
    assert told.err.startswith(
        f"trickbag: port {port} of 127.0.0.1 cannot be taken: Address already in use. Give another --port"
    )


REFUSED = (
    (["--host", "0.0.0.0"], 2, "can be reached by others. Give --token"),
    (["--host", "0.0.0.0", "--token", "short"], 2, "12 to 200 letters"),
    (["--token", "with a space in it"], 2, "12 to 200 letters"),
    (["--host", "no such host"], 2, "is no address of this machine"),
    (["--host", "192.0.2.1", "--token", "x" * 16], 2, "cannot be taken"),
    (["--seconds", "0"], 2, "seconds 0.0: write a number above 0"),
    (["--megabytes", "nan"], 2, "megabytes=nan: give a number"),
    (["--port", "70000"], 2, "--port"),
    (["--threshold", "2"], 2, "--threshold"),
)


@pytest.mark.parametrize(("words", "code", "said"), REFUSED)
def test_what_cannot_be_is_a_sentence(place: Path, ask: Any, words: list[str], code: int, said: str) -> None:
    told = ask("serve", str(place / "one"), "--port", "0", *words)
    assert (told.code, said in told.err) == (code, True), told.err


def test_a_run_that_is_none_or_damaged_is_said_before_anything_listens(place: Path, tmp_path: Path, ask: Any) -> None:
    none = ask("serve", str(tmp_path), "--port", "0")
    assert (none.code, "holds no trained classifier" in none.err) == (2, True)
    shutil.copytree(place / "one", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no")
    damaged = ask("serve", str(place / "one"), str(tmp_path / "damaged"), "--port", "0")
    assert (damaged.code, "is damaged" in damaged.err) == (1, True)
    with pytest.raises(tb.UsageError, match="there is no run to serve"):
        tb.serve()


@pytest.mark.parametrize("asked", [{"port": -1}, {"port": 70000}, {"threshold": 1.5}, {"images": 0}, {"seconds": float("inf")}])
def test_python_is_told_in_a_sentence_too(place: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(tb.UsageError, match=f"^{next(iter(asked))}.*: (give|write) a "):
        tb.serve(place / "one", **{"port": 0, **asked})


def test_without_the_extra_the_command_says_what_to_install(place: Path, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trickbag.serving, "server", raising=False)
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("fastapi", "uvicorn") or name.startswith("trickbag.serving."):
            monkeypatch.delitem(sys.modules, name)
    for missing in ("fastapi", "uvicorn", "python_multipart"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            told = ask("serve", str(place / "one"), "--port", "0", "--token", "short")
        assert told.code == 2
        assert told.err == "trickbag: serving needs FastAPI and uvicorn. Install them: pip install 'trickbag[serve]'.\n"


def test_runs_of_the_same_name_are_told_apart(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "one", tmp_path / "new" / "one")
    with Served(place, str(place / "one"), str(tmp_path / "new" / "one"), str(place / "one")) as server:
        assert [run["name"] for run in server.ask("GET", "/runs").json["runs"]] == [f"{place.name}/one", "new/one"]


def test_the_command_and_python_have_the_same_defaults_and_the_page_of_the_docs_says_them() -> None:
    offered = typer.main.get_command(app).commands["serve"].params  # type: ignore[attr-defined]
    known = {
        name: of.default for name, of in inspect.signature(tb.serve).parameters.items() if name not in ("runs", "progress")
    }
    assert {one.name: one.default for one in offered if one.name not in ("runs", "help")} == known
    page = DOCS.read_text("utf-8")
    told = {name: float(value) for name, value in re.findall(r"`--(\w+)` \((\d+)\)", page)}
    assert told == {name: known[name] for name in ("images", "megabytes", "megapixels", "seconds", "queue")}
    assert {int(status) for status in re.findall(r"^\| (\d{3}) \|", page, re.MULTILINE)} == {*SENTENCES}


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on the PATH")
def test_every_command_of_the_page_works_as_it_stands(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "one", "runs/best")
    shutil.copytree(place / "two", "runs/before")
    for name, photo in zip(("photo.jpg", "another.jpg"), sorted((place / "photos").glob("*/*.png")), strict=False):
        shutil.copy(photo, name)
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    marks = "trickbag serve detector segmenter"  # see test_serve_marks.py
    lines = [line for block in blocks for line in block.splitlines() if line != marks]
    server, token, typed = None, "", list[str]()
    for line in lines:
        typed.append(line.split()[0])
        if line.startswith("trickbag serve"):
            if server:
                server.stop()
            server = Served(tmp_path, *line.split()[2:], TRICKBAG_TOKEN=token)
        elif line.startswith("curl"):
            assert server
            words = line.replace(":8000", f":{server.port}")
            environment = os.environ | {"TRICKBAG_TOKEN": token}
            said = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True, env=environment).stdout
            assert "predictions" in json.loads(said)["images"][0], said
        else:
            assert line.startswith("export TRICKBAG_TOKEN=")
            token = "correct-horse-battery"
    assert server
    server.stop()
    assert typed == ["trickbag"] * 3 + ["curl"] * 2 + ["export", "trickbag", "curl"]


def test_it_is_refused_where_an_event_loop_runs(place: Path) -> None:
    import asyncio

    async def notebook() -> None:
        tb.serve(place / "one", port=0)

    with pytest.raises(tb.UsageError, match="an event loop runs here already"):
        asyncio.run(notebook())
