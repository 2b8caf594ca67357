"""The command line: the verbs, and what surrounds them from the start of the process to its exit code."""

import time

BEGAN = time.monotonic()
"""When the command began: budgets count from here, imports included."""
