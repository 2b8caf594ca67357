"""The real server in a process of its own, and clients that talk to it over real sockets."""

import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from processes import SERVER, command_line

SECRET = b"nobody may read this"
SECONDS = 2
SMALL = ("--seconds", str(SECONDS), "--megabytes", "1", "--megapixels", "0.1", "--images", "4", "--queue", "2")
"""Limits that a test reaches."""


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Served:
    """``trickbag serve`` with these words, from its first line to its end."""

    def __init__(self, place: Path, *words: str, **variables: str) -> None:
        self.said = place / f"said-{time.monotonic_ns()}"
        environment = {"OMP_NUM_THREADS": "1", **variables}
        arguments = ["serve", *words, *([] if "--port" in words else ["--port", "0"])]
        self.process = SERVER.Process(target=command_line, args=(arguments, environment, self.said, "", 1, 0))
        self.process.start()
        while not (found := re.search(r"http://\S+?:(\d+)/", self.output)):
            assert self.process.is_alive(), self.output
            time.sleep(0.02)
        self.address, self.port = found[0].rstrip("/"), int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        """What it wrote to its screen."""
        files = [self.said.with_suffix(f".{name}") for name in ("out", "err")]
        return "".join(file.read_text() for file in files if file.exists())

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send it a signal, and return its exit code."""
        if self.process.is_alive():
            assert self.process.pid
            os.kill(self.process.pid, number)
        self.process.join(60)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def memory(self) -> int:
        """Bytes that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """An answer; names of headers are written with ``_``."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            asked.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            got = asked.getresponse()
            return Reply(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            asked.close()

    def send(self, path: str, *parts: tuple[str, bytes], **headers: str) -> Reply:
        """Files as a form."""
        return self.ask("POST", path, form(*parts), **{"Content_Type": "multipart/form-data; boundary=edge", **headers})

    def connect(self) -> socket.socket:
        """A socket."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, sent: bytes) -> bytes:
        """What comes back until the server closes, or says nothing more for some time."""
        with self.connect() as wire:
            wire.sendall(sent)
            wire.shutdown(socket.SHUT_WR)
            return all_of(wire)


def all_of(wire: socket.socket) -> bytes:
    """What comes until the other end closes; a reset is an end."""
    found = b""
    try:
        while part := wire.recv(1 << 16):
            found += part
    except ConnectionError:
        pass
    return found


def form(*parts: tuple[str, bytes]) -> bytes:
    """The body of a form with the boundary ``edge``."""
    head = 'Content-Disposition: form-data; name="photo"; filename="{}"\r\n\r\n'
    return b"".join(b"--edge\r\n" + head.format(name).encode() + content + b"\r\n" for name, content in parts) + b"--edge--\r\n"
