"""Train image classifiers with the whole bag of tricks and measure which of them help.

>>> import trickbag as tb
>>> str(tb.MixUp(alpha=0.4))
'mixup(alpha=0.4)'
"""

import importlib
from typing import Any

_ROOMS = {
    "trickbag.api": (
        "check",
        "evaluate",
        "export",
        "finish",
        "laws",
        "load",
        "plan",
        "plan_study",
        "review",
        "serve",
        "study",
        "train",
        "transfer",
    ),
    "trickbag.checkup": ("Checkup", "doctor"),
    "trickbag.comparison.compare": ("Comparison", "compare"),
    "trickbag.data.audit": ("Audit", "Finding"),
    "trickbag.data.images": ("Images",),
    "trickbag.exports.shipping": ("Exported",),
    "trickbag.ground.errors": ("TrickbagError", "UsageError"),
    "trickbag.laboratory.verdicts": ("Verdicts",),
    "trickbag.plugins.measures": ("metric",),
    "trickbag.recipe": ("Recipe",),
    "trickbag.mistakes.look": ("Review",),
    "trickbag.mistakes.scenes": ("SceneReview",),
    "trickbag.runs.classifier": ("Classifier", "Prediction"),
    "trickbag.runs.evaluation": ("Evaluation",),
    "trickbag.runs.forecast": ("Plan",),
    "trickbag.runs.run": ("Result",),
    "trickbag.scenes.audit": ("ScenesAudit",),
    "trickbag.scenes.table": ("Scenes",),
    "trickbag.studies.finished": ("Finished",),
    "trickbag.studies.options": ("Options",),
    "trickbag.studies.plan": ("StudyPlan",),
    "trickbag.transfers.evaluation": ("TransferEvaluation",),
    "trickbag.transfers.predictor": ("Detection", "Predictor", "Segmentation"),
    "trickbag.transfers.seeds": ("Transfer",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_ROOM_OF)


def __dir__() -> list[str]:
    """The public names, tricks included, read from their files: to import them takes seconds."""
    from trickbag.ground import glance

    return sorted([*__all__, *glance.classes()])


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: what is not asked for is not imported
    if name in _ROOM_OF:
        return getattr(importlib.import_module(_ROOM_OF[name]), name)
    if name == "tricks":
        return importlib.import_module("trickbag.tricks")
    if name[:1].isupper() and hasattr(bag := importlib.import_module("trickbag.tricks"), name):
        return getattr(bag, name)
    raise AttributeError(f"module 'trickbag' has no attribute {name!r}")
