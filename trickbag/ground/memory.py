"""How much memory the machine has to give."""

from contextlib import suppress
from pathlib import Path

UNKNOWN = 1 << 60
"""More bytes than any machine has."""


def available() -> int:
    """Bytes that programs may still take, where the system tells; else ``UNKNOWN``."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return UNKNOWN
