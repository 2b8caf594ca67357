"""Stop signals: Ctrl-C, SIGTERM and SIGHUP are noted when they come, and long loops look for the note.

Python drops what a handler raises where it interrupts a finaliser or a weak reference's callback. So a handler that only raises
loses the signal now and then; one that also notes it does not.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from trickbag.ground.errors import Interrupted

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
HANGUP = getattr(signal, "SIGHUP", None)
STOPPED = "stopped. What was finished is kept; the same command continues."

_asked: list[int] = []
"""Signals that have come."""
_waiting: list[bool] = []
"""For each block of ``stopping`` around the work, whether a step there is common to several processes."""
_before: dict[int, Any] = {}
"""What the second signal is left to; empty in a process of the command line, which ends then."""


def listen(second: bool = True) -> None:
    """From now on the first signal stops the work at the next ``look`` at the latest, and the second ends the process.

    A hangup that is ignored (``nohup``) stays ignored, and a second one does nothing: terminals send two. With ``second=False``
    any number of signals counts as one.
    """
    sys.unraisablehook = _ignored
    for number in STOPS:
        if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note if second else _note_once)


def look() -> None:
    """Raise Interrupted where a signal has come. Loops that take longer than a second call it in each turn."""
    if _asked and not any(_waiting):
        raise Interrupted(STOPPED, _asked[0])


def leave() -> None:
    """Let signals end the process as they do by themselves: the work is done."""
    for number in STOPS:
        if signal.getsignal(number) in (_note, _note_once):
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def held() -> Iterator[None]:
    """Inside, Ctrl-C and hangups wait; processes that are begun inside never get them, so that this one can decide for all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPS} - {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stopping(together: bool = False) -> Iterator[Callable[[], int]]:
    """Inside, a first signal raises nothing: the block looks for its number, 0 for none, and stops where it can go on later.

    ``together``: other processes wait for this one, so ``look`` raises nothing either. A signal that the block did not look
    for raises Interrupted at its end. In programs that do not ``listen`` the second signal acts as it would without this.
    """
    if signal.getsignal(signal.SIGTERM) not in (_note, _note_once):
        with suppress(ValueError):  # not the main thread: the caller owns the signals
            _before.update({number: signal.signal(number, _note) for number in STOPS})
    _waiting.append(together)
    try:
        yield lambda: _asked[0] if _asked else 0
        _waiting[-1] = False
        look()
    finally:
        _waiting.pop()
        if _before and not _waiting:
            for number, handler in _before.items():
                signal.signal(number, handler)
            _before.clear()
            _asked.clear()


def _note(number: int, _: Any) -> None:
    if number in _asked and number != HANGUP:
        _end(number)
    _note_once(number, _)


def _note_once(number: int, _: Any) -> None:
    first = not _asked
    _asked.append(number)
    if first and not _waiting:
        raise Interrupted(STOPPED, number)


def _ignored(dropped: Any) -> None:
    if not isinstance(dropped.exc_value, Interrupted):
        sys.__unraisablehook__(dropped)


def _end(number: int) -> None:
    if number in _before:
        signal.signal(number, _before[number])
        signal.raise_signal(number)
        return
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # progress bars hide the cursor
        os.write(2, b"trickbag: ended at once. The same command continues at the last checkpoint.\n")
    os._exit(128 + number)
