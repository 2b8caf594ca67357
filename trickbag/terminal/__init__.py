"""Where a person meets the program: the verbs, the only place that prints, the table of a study under way."""

import time

BEGAN = time.monotonic()
"""When the command began: budgets count from here, imports included."""
