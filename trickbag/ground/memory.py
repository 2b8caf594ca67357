"""How much memory the machine has to give."""

from contextlib import suppress
from pathlib import Path


def available() -> int:
    """Bytes that programs may still take, where the system tells; else more than any machine has."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return 1 << 60
