"""The images of a table, opened: all readers leave out the same, for the same reasons."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trickbag.data.audit import reasons
from trickbag.data.duplicates import merged
from trickbag.data.facts import Facts, look_at_all
from trickbag.data.splits import Ints
from trickbag.ground.events import Doing, Tell
from trickbag.scenes.table import Fault


def looked_at(root: Path, paths: Sequence[str], tell: Tell) -> tuple[dict[str, Facts], list[Fault]]:
    """The facts of these images, with the reason why one gives no pixels of one or three channels, also as a fault."""
    seen = look_at_all(root, tuple(paths), progress=lambda done, total: tell(Doing("checking images", done, total)))
    why = reasons(seen, 3)
    facts = {path: fact._replace(error=error) for path, fact, error in zip(paths, seen, why, strict=True)}
    return facts, [Fault("unreadable", path, error) for path, error in zip(paths, why, strict=True) if error]


def copies(facts: Sequence[Facts]) -> Ints:
    """Numbers [N] of which exact copies, of the file or of its pixels, have the same."""
    return merged(np.arange(len(facts)), [fact.content for fact in facts], [fact.pixels for fact in facts])
