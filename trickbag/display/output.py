"""Standard output and error that never end the work: what cannot be shown is lost, and the rest goes on."""

import io
import os
import select
import sys
from typing import Any, TextIO, cast


class Steady(io.FileIO):
    """A descriptor that takes everything; once it has failed (a full disk, a closed pipe), without writing it."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        """Write some of the bytes, and return how many."""
        while self.lost is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.lost = error
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # a pipe that does not wait by itself
        return memoryview(data).nbytes


def steady() -> None:
    r"""Make standard output and error steady. Signs that they cannot show are spelled, as in ``\xe9``."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # else the next file would take its number, and what is printed would go there
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and (stream is not getattr(sys, f"__{name}__") or os.name == "nt"):
            continue  # somebody else listens, such as a test; Windows' own console writes no bytes
        encoding = stream.encoding if stream else "utf-8"
        if stream:
            stream.flush()
        buffer = io.BufferedWriter(Steady(descriptor, "w", closefd=False))
        wrapped = io.TextIOWrapper(
            buffer, encoding, "backslashreplace", line_buffering=descriptor == 2 or os.isatty(descriptor)
        )
        setattr(sys, name, wrapped)


def lost() -> OSError | None:
    """Why standard output takes nothing more; None as long as it does."""
    sys.stdout.flush()
    raw = getattr(getattr(cast(TextIO, sys.stdout), "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, Steady) else None
