"""What trickbag says when it cannot go on: one sentence with the place and the remedy, never a traceback."""


class TrickbagError(Exception):
    """Something failed that is not the caller's mistake: a diverged run, an unreadable checkpoint. Exit code 1."""

    exit_code = 1


class UsageError(TrickbagError):
    """The request cannot be carried out as written: an unknown name, a value out of range. Exit code 2."""

    exit_code = 2


class Interrupted(TrickbagError):  # noqa: N818 - no error: the user wanted it
    """The user stopped the work; what was finished is kept. Exit code 130, as shells have it."""

    exit_code = 130
