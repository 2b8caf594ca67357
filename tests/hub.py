"""A stand-in for the Hugging Face hub on this machine: what its client asks for when a folder is uploaded, and nothing else."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "hf_standin"


class Hub(ThreadingHTTPServer):
    """Holds what was pushed: repository -> file -> content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        path, body = self.path.partition("?")[0], self._body()
        self.server.asked.append(f"{self.command} {path}")
        if path.startswith("/upload/"):
            self.server.large[path.removeprefix("/upload/")] = body
            self._answer({})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith("tensors") else "regular" for name in names}
            self._answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif path.endswith("/info/lfs/objects/batch"):
            links = [(one, f"{self.server.address}/upload/{one['oid']}") for one in json.loads(body)["objects"]]
            self._answer({"transfer": "basic", "objects": [one | {"actions": {"upload": {"href": to}}} for one, to in links]})
        elif path.endswith("/commit/main"):
            self._commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)
        else:
            self._answer({"error": f"the stand-in has no {self.command} {path}"}, 404)

    def _create(self, wanted: dict[str, str]) -> None:
        name = f"{wanted.get('organization') or 'ada'}/{wanted['name']}"
        if not name.startswith("ada/"):
            self._answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
            return
        self.server.held.setdefault(name, {})
        self._answer({"url": f"{self.server.address}/{name}", "name": name, "id": name})

    def _commit(self, name: str, body: bytes) -> None:
        held = self.server.held[name]
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                held[value["path"]] = self.server.large[value["oid"]]
        sha = "0" * 40
        address = f"{self.server.address}/{name}/commit/{sha}"
        self._answer({"commitUrl": address, "commitOid": sha, "hookOutput": "", "success": True})

    do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815  the names that the library asks for


@contextmanager
def standing_in() -> Iterator[Hub]:
    """A hub for as long as the block lasts."""
    hub = Hub()
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
