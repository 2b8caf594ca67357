"""What trickbag says when it cannot go on: one sentence with the place and the remedy, never a traceback."""


class TrickbagError(Exception):
    """Something failed that is not the caller's mistake: a diverged run, an unreadable checkpoint. Exit code 1.

    Examples:
        >>> import trickbag as tb
        >>> try:
        ...     list(tb.load("run").predict("photos/cat/lost.png"))
        ... except tb.TrickbagError as error:
        ...     print(error)
        photos/cat/lost.png cannot be predicted: unreadable: No such file or directory.

    """

    exit_code = 1


class UsageError(TrickbagError):
    """The request cannot be carried out as written: an unknown name, a value out of range. Exit code 2.

    Examples:
        >>> import trickbag as tb
        >>> try:
        ...     tb.plan("photos", with_="mixpu")
        ... except tb.UsageError as error:
        ...     print(error)
        there is no trick mixpu; did you mean mixup? List them: trickbag tricks. Name a file of your own with plugins.

    """

    exit_code = 2


class NoRoomError(TrickbagError):
    """The disk is full: what is begun next would fail as well."""


def lacks_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of this machine or a device: torch has no one type for it."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch is not imported for this
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


class Interrupted(BaseException):
    """The work was stopped by a signal; what was finished is kept. Exit code 128 + the signal's number, as shells have it."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
