"""What trickbag says when it cannot go on: one sentence with the place and the remedy, never a traceback."""


class TrickbagError(Exception):
    """Something failed that is not the caller's mistake: a diverged run, an unreadable checkpoint. Exit code 1."""

    exit_code = 1


class UsageError(TrickbagError):
    """The request cannot be carried out as written: an unknown name, a value out of range. Exit code 2."""

    exit_code = 2


class Interrupted(BaseException):
    """The work was stopped by a signal; what was finished is kept. Exit code 128 + the signal's number, as shells have it."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
