"""Who may ask, and how much may arrive: before any handler sees a request.

A page of another site can send a browser's requests here, under this address (``Origin`` is then another) or under a name of
its own that it lets point here (``Host`` is then another: DNS rebinding). Both are refused, and no header ever lets another
site read an answer. The token is compared in constant time; a page gets it once, in its address, and a random cookie in
return, so that it stays neither in the address bar nor, as cookies go to every port of a machine, with another server.
"""

import asyncio
import hmac
import ipaddress
import json
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trickbag.serving.limits import Limits, Refused, busy

HELD = 8
"""Bodies of the largest size that are in memory at once."""
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Address:
    """Where a server listens, and the names under which it answers."""

    def __init__(self, host: str, port: int, names: frozenset[str], literals: bool) -> None:
        """``literals``: whether it answers under every IP address, which no site can let point elsewhere."""
        self.host, self.port, self.names, self.literals = host, port, names, literals

    def __str__(self) -> str:
        return f"http://{self.host}{'' if self.port == 80 else f':{self.port}'}"

    def has(self, host: str) -> bool:
        """Whether a ``Host`` header means this server.

        >>> here = Address("127.0.0.1", 8000, frozenset({"localhost", "127.0.0.1"}), literals=False)
        >>> here.has("localhost:8000"), here.has("evil.example:8000"), here.has("localhost"), here.has("10.0.0.1:8000")
        (True, False, False, False)
        """
        name, colon, port = host.lower().rpartition(":")
        if not colon or "]" in port:
            name, port = host.lower(), "80"
        if port != str(self.port):
            return False
        return name in self.names or (self.literals and _is_literal(name))


class Guard:
    """An application behind its guard."""

    def __init__(self, app: ASGIApp, address: Address, limits: Limits, token: str = "") -> None:
        self.app, self.address, self.limits, self.token = app, address, limits, token.encode()
        self.cookie, self.session = f"trickbag-{address.port}", secrets.token_urlsafe()
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        body = _Body(self, receive)
        try:
            ending = self._stopped(scope)
            await (ending or self.app)(scope, body.receive, _with_headers(send))
        finally:
            self.held -= body.count

    def _stopped(self, scope: Scope) -> Response | None:
        """What ends a request here."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            self._check_site(scope, headers)
            if self.token and (answered := self._let_in(scope, headers)):
                return answered
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length) > self.limits.bytes:
                raise self.too_large()
        except Refused as refused:
            return refusal(refused)
        return None

    def _check_site(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin")
        if not self.address.has(host):
            raise Refused(421, f"This server answers under {self.address} alone.")
        if origin is not None and origin.decode("latin-1").lower() != f"http://{host.lower()}":
            raise Refused(403, "Pages of other sites may not ask this server.")
        visit = scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == b"navigate"
        if headers.get(b"sec-fetch-site", b"none") in (b"cross-site", b"same-site") and not visit:
            raise Refused(403, "Pages of other sites may not ask this server.")

    def _let_in(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        if scope["path"] == "/healthz":
            return None
        kind, _, value = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(value.strip(), self.token):
            return None
        if hmac.compare_digest(_cookie(headers, self.cookie).encode(), self.session.encode()):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and hmac.compare_digest(given.encode(), self.token):
            kept = f"{self.cookie}={self.session}; Path=/; HttpOnly; SameSite=Strict"
            return Response(status_code=303, headers={"location": "/", "set-cookie": kept})
        raise Refused(
            401,
            "This server wants its token: open the page once with ?token=… after the address, or send the header "
            "Authorization: Bearer ….",
            www_authenticate="Bearer",
        )

    def too_large(self) -> Refused:
        """What a body is told that is larger than allowed."""
        return Refused(413, f"One request may bring {self.limits.megabytes:g} MB. Send fewer images, or smaller ones.")


class _Body:
    """What arrives of a request, counted."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self.guard, self.inner, self.count, self.whole = guard, receive, 0, False
        self.end = time.monotonic() + guard.limits.seconds

    async def receive(self) -> Message:
        """The next part. Raises Refused where the whole is too large or too slow."""
        if self.whole:
            return await self.inner()
        try:
            message = await asyncio.wait_for(self.inner(), max(0.0, self.end - time.monotonic()))
        except TimeoutError:
            said = f"The request did not arrive within {self.guard.limits.seconds:g} s."
            raise Refused(408, said, connection="close") from None
        part = len(message.get("body", b""))
        self.count += part
        self.guard.held += part
        self.whole = not message.get("more_body", False)
        if self.count > self.guard.limits.bytes:
            raise self.guard.too_large()
        if self.guard.held > HELD * self.guard.limits.bytes:
            raise busy("Too much is being sent at once. Ask again in a moment.")
        return message


def answer(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII: names of classes may hold bytes that are no text."""
    return Response(json.dumps(content), status, headers, "application/json")


def refusal(refused: Refused) -> Response:
    """A refusal as an answer."""
    return answer(refused.status, {"error": refused.sentence}, refused.headers)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


def _cookie(headers: dict[bytes, bytes], name: str) -> str:
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
