"""What is wrong with this data set: the same answer for ``check`` and for the ingest of ``train``.

Every file is looked at (``facts``), files without pixels are left out with the reason, exact duplicates are put into one
group so that no split separates them, and whatever a person should know becomes a ``Finding`` with a suggestion.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from trickbag.data.duplicates import merged
from trickbag.data.facts import Facts, look_at_all
from trickbag.data.findings import (
    Finding,
    Severity,
    about_boxes,
    about_classes,
    about_duplicates,
    about_files,
    about_ignored,
    about_left_out,
    about_near_duplicates,
    about_reading,
    about_shapes,
    some,
)
from trickbag.data.images import Images
from trickbag.ground.errors import TrickbagError
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, show

__all__ = ["Audit", "Finding", "audit"]


LEAST = ("", "train", "val", "test")
"""Splits, the one first whose copy is given up."""


class LabelError(NamedTuple):
    """An image whose label is probably wrong."""

    path: str
    """As in the data set."""
    given: str
    """Its class."""
    suggested: str
    probability: float
    """Of the suggested class, 0 to 1, by networks that did not learn from the image."""
    quality: float
    """How well the label fits, 0 to 1 (``trickbag.statistics.label_errors.quality``)."""


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """A data set that has been looked at.

    Examples:
        >>> import trickbag as tb
        >>> tb.check("photos").counts["cat"]
        {'unassigned': 12}

    """

    images: Images
    """Without the files left out, with hashes and sizes, and with exact duplicates in one group."""
    findings: tuple[Finding, ...]
    left_out: dict[str, str]
    """Path as in the file system -> reason."""
    sizes: dict[str, int]
    """Median, least and greatest height and width in pixels, and the commonest number of channels."""
    label_errors: tuple[LabelError, ...] | None = None
    """Probable label errors, the worst first; None where nobody looked for them."""

    @property
    def errors(self) -> list[Finding]:
        """The findings with which nothing should be trained."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Class -> split -> images; files of no given split stand under ``unassigned``."""
        table: dict[str, dict[str, int]] = {name: {} for name in self.images.classes}
        for label, split in zip(self.images.labels.tolist(), self.images.splits.tolist(), strict=True):
            row = table[self.images.classes[label]]
            row[split or "unassigned"] = row.get(split or "unassigned", 0) + 1
        return table

    @property
    def imbalance(self) -> float:
        """Images of the largest class for one of the smallest, empty classes aside; 1 where all are equal."""
        sizes = [sum(row.values()) for row in self.counts.values() if row]
        return max(sizes) / min(sizes) if sizes else 1.0

    def without_leaks(self) -> Self:
        """The same with only one of the copies that stand in several splits: that of test, else of val.

        What is taken out is listed with the files left out, and the finding becomes a warning.
        """
        gone, findings = given_up(self.findings, self.images)
        left_out = self.left_out | {self.images.paths[row]: reason for row, reason in gone.items()}
        kept = [row for row in range(len(self.images)) if row not in gone]
        return replace(self, images=self.images.take(kept), findings=findings, left_out=left_out)

    def _sheet(self) -> Sheet:
        title = f"{counted(len(self.images), 'image')} in {counted(len(self.images.classes), 'class', 'classes')}"
        kinds = Counter(finding.severity for finding in self.findings)
        facts = {f"{severity}s": str(kinds[severity]) for severity in ("error", "warning", "note") if kinds[severity]}
        facts |= {"left out": f"{len(self.left_out):,}"} if self.left_out else {}
        facts |= {"probable label errors": f"{len(self.label_errors):,}"} if self.label_errors is not None else {}
        rows = [(finding.severity, finding.message, finding.suggestion) for finding in self.findings]
        return Sheet(title, facts, ("finding", "what", "what to do") if rows else (), rows)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values; names are what they are."""
        labels = {} if self.label_errors is None else {"label_errors": [one._asdict() for one in self.label_errors]}
        return labels | {
            "images": len(self.images.paths),
            "classes": dict(self.counts),
            "imbalance": round(self.imbalance, 3),
            "sizes": self.sizes,
            "left_out": dict(self.left_out),
            "findings": [finding.as_json() for finding in self.findings],
        }


def given_up(findings: Sequence[Finding], images: Images) -> tuple[dict[int, str], tuple[Finding, ...]]:
    """Rows of the copies that leave the lesser of their splits, with the reason, and the findings, with leaks as warnings."""
    rows = {show(path): row for row, path in enumerate(images.paths)}
    gone: dict[int, str] = {}
    for finding in findings:
        for pair in finding.pairs if finding.kind == "leak" else ():
            less, more = sorted((rows[name] for name in pair), key=lambda row: LEAST.index(images.splits[row]))
            gone[less] = f"a copy of {show(images.paths[more])}"
    milder = {
        "severity": "warning",
        "suggestion": f"Dropped {counted(len(gone), 'training copy', 'training copies')}.",
    }
    return gone, tuple(f.model_copy(update=milder) if f.kind == "leak" else f for f in findings)


def audit(
    images: Images,
    channels: int | None = None,
    on_bad: Literal["skip", "error"] = "skip",
    on_conflict: Severity = "error",
    on_leak: Severity = "error",
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Audit:
    """Look at every image of the data set.

    ``channels``: how many the model takes; None for what most files have. ``on_conflict`` and ``on_leak``: how severe it
    is that a file stands in two classes, or in two of the given splits. Raises ``TrickbagError`` if files have to be left
    out and ``on_bad`` is ``error``; what the files hold raises nothing else.
    """
    facts = look_at_all(images.root, images.paths, channels, progress, workers)
    left_out = {path: reason for path, reason in zip(images.paths, reasons(facts, channels), strict=True) if reason}
    if left_out and on_bad == "error":
        raise TrickbagError(_refusal(left_out, len(facts)))
    total = len(facts)
    kept = np.flatnonzero([path not in left_out for path in images.paths])
    facts = [facts[row] for row in kept]
    given = images = images.take(kept)
    groups = merged(images.groups, [fact.content for fact in facts], [fact.pixels for fact in facts])
    same = merged(np.arange(len(facts)), [fact.content for fact in facts], [fact.pixels for fact in facts])
    sizes = np.array([(fact.height, fact.width) for fact in facts], np.int64).reshape(-1, 2)
    images = replace(images, hashes=tuple(fact.content for fact in facts), groups=groups, sizes=sizes)
    result = Audit(images, (), left_out, _sizes(facts))
    findings = chain(
        about_reading(images),
        about_left_out(left_out, total, images.root),
        about_duplicates(images, same.tolist(), on_conflict, on_leak),
        about_near_duplicates(images, facts, same),
        about_classes(given, result.counts, result.imbalance),  # groups as given: copies are a finding of their own
        about_files(images, facts),
        about_shapes(images),
        about_boxes(images),
        about_ignored(images),
    )
    return replace(result, findings=tuple(findings))


def reasons(facts: Sequence[Facts], channels: int | None) -> list[str]:
    """Why each file is left out, empty where it is not; ``channels``: see ``audit``."""
    usual = Counter(fact.channels for fact in facts if not fact.error).most_common(1)
    wanted = channels or (usual[0][0] if usual else 3)
    fitting = {1, 3} if wanted in (1, 3) else {wanted}
    return [fact.error or ("" if fact.channels in fitting else f"has {fact.channels} channels, not {wanted}") for fact in facts]


def _refusal(left_out: dict[str, str], total: int) -> str:
    named = some([f"{show(path)}: {reason}" for path, reason in left_out.items()], 20)
    return (
        f"{len(left_out):,} of {counted(total, 'file')} cannot be read ({named}). Repair or remove them, or use --on-bad skip."
    )


def _sizes(facts: Sequence[Facts]) -> dict[str, int]:
    if not facts:
        return {}
    sizes: dict[str, int] = {}
    for name in ("height", "width"):
        values = np.array([getattr(fact, name) for fact in facts])
        sizes |= {name: int(np.median(values)), f"least_{name}": int(values.min()), f"greatest_{name}": int(values.max())}
    return sizes | {"channels": Counter(fact.channels for fact in facts).most_common(1)[0][0]}
