"""What a reader needs to know of where a figure comes from."""

import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

from trickbag.runs.outcome import PACKAGES, environment


def origin() -> str:
    """Date, machine, versions and command, as Markdown."""
    found = environment()
    device = "" if found["device"] == "cpu" else f", {found['device']}"
    versions = ", ".join(f"{name} {found[name]}" for name in PACKAGES)
    command = shlex.join(["python", *sys.orig_argv[1:]])
    return (
        f"{date.today().isoformat()}, {found['system']}, {processor()}, {os.cpu_count()} cores{device}; "
        f"Python {found['python']}, {versions}\n\n    {command}"
    )


def processor() -> str:
    """The name of the processor."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
