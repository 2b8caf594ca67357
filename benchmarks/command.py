"""Programs that a benchmark starts."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def output(command: Sequence[str | Path], **variables: str) -> str:
    """What a program printed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ | variables, timeout=1_800
    )
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout
