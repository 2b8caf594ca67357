"""From runs' folders to a server that listens, until it is stopped."""

import asyncio
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trickbag.ground import signals
from trickbag.ground.errors import Interrupted, UsageError
from trickbag.ground.events import Note, Tell
from trickbag.ground.files import reason
from trickbag.ground.text import brief, show
from trickbag.models.card import transferred
from trickbag.runs.classifier import Classifier
from trickbag.serving.app import application
from trickbag.serving.desk import ClassifierDesk, Desk, MarksDesk
from trickbag.serving.guard import Address, Guard
from trickbag.serving.limits import Limits
from trickbag.serving.wire import Server
from trickbag.transfers.predictor import Predictor

TOKEN = re.compile(r"[A-Za-z0-9._~-]{12,200}")
"""Long enough that nobody guesses it, and the same in an address, a header and a shell."""
MOST_CONNECTIONS = 500


def serve(
    runs: Sequence[str | Path], host: str, port: int, token: str, threshold: float | None, limits: Limits, tell: Tell
) -> None:
    """Answer for runs until a signal comes; see ``trickbag.serve``."""
    if not runs:
        raise UsageError("there is no run to serve. Give the folder of one.")
    if token and not TOKEN.fullmatch(token):
        raise UsageError("the token: write 12 to 200 letters, digits or signs of -._~, such as openssl rand -hex 16 gives.")
    _check_loop()
    with bound(host, port) as listening:
        address = address_of(host, listening)
        if not token and not _is_loopback(listening):
            raise UsageError(f"host {host} can be reached by others. Give --token, which they need too, or leave --host out.")
        desks = [_desk(name, folder, limits.checked()) for name, folder in named(runs).items()]
        guarded = Guard(application(desks, limits, threshold, tell), address, limits, token)
        try:
            with signals.stopping() as stopped:
                server = Server(guarded, limits, _connections(), stopped, lambda: tell(Note(_said(desks, address, token))))
                asyncio.run(server.serve([listening]))
        except Interrupted as end:
            raise Interrupted("stopped serving.", end.exit_code - 128) from None
        finally:
            for desk in desks:
                desk.close()


def _desk(name: str, folder: Path, limits: Limits) -> Desk[Any]:
    if transferred(folder):
        return MarksDesk(name, Predictor.load(folder), limits)
    return ClassifierDesk(name, Classifier.load(folder), limits)


def named(runs: Sequence[str | Path]) -> dict[str, Path]:
    """Runs by the shortest ends of their paths that tell them apart; no more of a path is ever shown to a client.

    >>> list(named(["runs/a", "other/a", "b"]))
    ['runs/a', 'other/a', 'b']
    """
    given = {Path(run).absolute(): Path(run) for run in runs}
    tails = [_tail(folder, [other for other in given if other != folder]) for folder in given]
    return dict(zip(map(show, tails), given.values(), strict=True))


def bound(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet. Raises UsageError where the address is none, in use or not permitted."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise UsageError(f"host {brief(host)} is no address of this machine. Leave --host out, or give 127.0.0.1.") from None
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port {port} of {host} cannot be taken: {reason(error)}. Give another --port; 0 takes any that is free."
        ) from None
    return listening


def address_of(host: str, listening: socket.socket) -> Address:
    """The names under which a bound socket is asked for."""
    ip, port = listening.getsockname()[:2]
    literal = f"[{ip}]" if ":" in ip else ip
    names = {host.lower(), literal, "localhost", "127.0.0.1", "[::1]"}
    if _is_loopback(listening):
        return Address(literal, port, frozenset(names), literals=False)
    own = socket.gethostname().lower()
    shown = own if ipaddress.ip_address(ip).is_unspecified else literal
    return Address(shown, port, frozenset(names | {own, f"{own}.local"}), literals=True)


def _said(desks: Sequence[Desk[Any]], address: Address, token: str) -> str:
    which = ", ".join(desk.name for desk in desks)
    return f"serving {which} at {address}/{'?token=… (yours)' if token else ''}; stop with Ctrl-C"


def _tail(folder: Path, others: Sequence[Path]) -> str:
    parts = range(1, len(folder.parts))
    alone = (n for n in parts if all(other.parts[-n:] != folder.parts[-n:] for other in others))
    return "/".join(folder.parts[-next(alone, len(folder.parts)) :])


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _connections() -> int:
    """How many connections at once, well below the files that a process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("an event loop runs here already, as in a notebook. Call trickbag serve in a terminal.")
