"""uvicorn's server and connections, with an end to every wait."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import h11
import python_multipart
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trickbag.serving.limits import Limits

MOST_HEADERS = 16_384
"""Bytes of a request's line and headers."""


class Server(uvicorn.Server):
    """Ends at once where ``stopped`` says so, and leaves signals to others."""

    def __init__(
        self, app: Any, limits: Limits, connections: int, stopped: Callable[[], object], began: Callable[[], None]
    ) -> None:
        connected = partial(Connection, limits.seconds, connections, {})
        silent: dict[str, Any] = {"log_config": None, "log_level": "critical", "access_log": False, "server_header": False}
        plain: dict[str, Any] = {"http": connected, "ws": "none", "lifespan": "off", "loop": "asyncio", "proxy_headers": False}
        super().__init__(uvicorn.Config(app, h11_max_incomplete_event_size=MOST_HEADERS, **silent, **plain))
        logging.getLogger(python_multipart.__name__).setLevel(logging.CRITICAL)  # a client's faults are told to the client
        self.stopped, self.began = stopped, began

    def capture_signals(self) -> Any:
        """No signals are taken."""
        return nullcontext()

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.began()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end."""
        return await super().on_tick(counter) or bool(self.stopped())

    async def shutdown(self, sockets: Any = None) -> None:
        """End without waiting for anybody."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class Connection(H11Protocol):
    """A connection that has ``seconds`` to ask for something, and three times as long until all of the answer is taken.

    Of more than ``most``, the one that has been silent for longest makes room.
    """

    def __init__(self, seconds: float, most: int, silent: dict["Connection", None], **of: Any) -> None:
        super().__init__(**of)
        self.seconds, self.most, self.silent = seconds, most, silent
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client is there."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            oldest = next(iter(self.silent), self)
            oldest._stop()  # now: more clients may come before it is gone
            oldest.transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Something came."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.transport.is_closing():
            self._stop()
            self.timer = self.loop.call_later(3 * self.seconds, self.transport.abort)

    def on_response_complete(self) -> None:
        """An answer is given; another request may come."""
        if not self.transport.is_closing():
            self._wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            self._say(400, f"This is no HTTP request, or its headers have more than {MOST_HEADERS:,} bytes.")
        self.transport.close()

    def _wait(self) -> None:
        self._stop()
        self.silent[self] = None
        self.timer = self.loop.call_later(self.seconds, self._late)

    def _stop(self) -> None:
        self.silent.pop(self, None)
        if self.timer:
            self.timer.cancel()

    def _late(self) -> None:
        if self.conn.our_state is h11.IDLE:
            self._say(408, f"The request did not arrive within {self.seconds:g} s.")
        self.transport.close()

    def _say(self, status: int, sentence: str) -> None:
        body = json.dumps({"error": sentence}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
