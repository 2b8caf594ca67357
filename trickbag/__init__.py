"""Train image classifiers with the whole bag of tricks and measure which of them help.

>>> import trickbag as tb
>>> str(tb.MixUp(alpha=0.4))
'mixup(alpha=0.4)'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trickbag.comparison.compare import Comparison, compare
    from trickbag.data.audit import Audit, Finding
    from trickbag.data.images import Images
    from trickbag.ground.errors import TrickbagError, UsageError
    from trickbag.recipe import Recipe
    from trickbag.runs.classifier import Classifier, Prediction
    from trickbag.runs.evaluation import evaluate
    from trickbag.runs.forecast import Plan, plan
    from trickbag.runs.request import check
    from trickbag.runs.run import Result, finish, train
    from trickbag.studies.conduct import study
    from trickbag.studies.options import Options

_ROOMS = {
    "trickbag.comparison.compare": ("Comparison", "compare"),
    "trickbag.runs.classifier": ("Classifier", "Prediction"),
    "trickbag.data.audit": ("Audit", "Finding"),
    "trickbag.data.images": ("Images",),
    "trickbag.ground.errors": ("TrickbagError", "UsageError"),
    "trickbag.runs.evaluation": ("evaluate",),
    "trickbag.runs.forecast": ("Plan", "plan"),
    "trickbag.recipe": ("Recipe",),
    "trickbag.runs.request": ("check",),
    "trickbag.runs.run": ("Result", "finish", "train"),
    "trickbag.studies.conduct": ("study",),
    "trickbag.studies.options": ("Options",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = [
    "Audit",
    "Classifier",
    "Comparison",
    "Finding",
    "Images",
    "Options",
    "Plan",
    "Prediction",
    "Recipe",
    "Result",
    "TrickbagError",
    "UsageError",
    "check",
    "compare",
    "evaluate",
    "finish",
    "load",
    "plan",
    "study",
    "train",
]


def load(run: Any) -> "Classifier":
    """The classifier in the folder of a finished run. Raises UsageError or TrickbagError as Classifier.load does."""
    from trickbag.runs.classifier import Classifier

    return Classifier.load(run)


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: what is not asked for is not imported
    if name in _ROOM_OF:
        return getattr(importlib.import_module(_ROOM_OF[name]), name)
    if name == "tricks":
        return importlib.import_module("trickbag.tricks")
    if name[:1].isupper() and hasattr(bag := importlib.import_module("trickbag.tricks"), name):
        return getattr(bag, name)
    raise AttributeError(f"module 'trickbag' has no attribute {name!r}")
