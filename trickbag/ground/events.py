"""What long work tells while it runs; the command line draws it, the API may listen too."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Note(NamedTuple):
    """A sentence for the user."""

    text: str


class Doing(NamedTuple):
    """Work with a known end."""

    task: str
    done: int
    total: int


class EpochDone(NamedTuple):
    """An epoch was trained and judged."""

    epoch: int
    epochs: int
    line: dict[str, Any]
    """As in ``log.jsonl``."""


class CellDone(NamedTuple):
    """A run of a study ended."""

    arm: str
    seed: int
    accuracy: float | None
    """None where there is none."""
    failure: str
    """Why it ended badly; empty where it did not."""
    done: int
    total: int
    """Runs of this call."""
    seconds_left: float | None


Event = Note | Doing | EpochDone | CellDone
Tell = Callable[[Event], None]


def silent(_: Event) -> None:
    """Listen to nothing."""
