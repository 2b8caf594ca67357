"""What is wrong with a data set for detection or segmentation: one answer for ``check`` and for whoever trains on it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from trickbag.data.audit import given_up
from trickbag.data.facts import look_at_all
from trickbag.data.findings import (
    Finding,
    Severity,
    about_duplicates,
    about_files,
    about_ignored,
    about_left_out,
    about_near_duplicates,
    some,
)
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Doing, Tell, silent
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, show
from trickbag.scenes.findings import about_classes, about_copies, about_faults, about_splits
from trickbag.scenes.found import ORDER
from trickbag.scenes.reading import read
from trickbag.scenes.table import Fault, Scenes, Task

LEFT_OUT = ("unreadable", "damaged", "label size")
"""Kinds for whose sake ``on_bad`` may stop."""
APART = {"suggestion": "Compare them. Delete one of each pair, or put both into one split."}


@dataclass(frozen=True, repr=False)
class ScenesAudit(Shown):
    """A data set with boxes or regions that has been looked at.

    Examples:
        >>> import trickbag as tb
        >>> tb.check("cells", boxes=True).counts["red"]
        {'boxes': 4, 'images': {'train': 2, 'val': 1}, 'width': 9.5, 'height': 8.0}

    """

    scenes: Scenes
    """Without what was left out, clipped and dropped."""
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        """The findings with which nothing should be trained."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that was left out, clipped, dropped or guessed: its kind, the file, and what is wrong where in it."""
        return self.scenes.faults

    @cached_property
    def counts(self) -> dict[str, dict[str, Any]]:
        """Class -> its images by split (those of no given split under ``unassigned``) and, of boxes, how many there are and
        their median ``width`` and ``height`` in pixels; of regions, their ``share`` of the pixels that count.
        """
        scenes, there = self.scenes, self.scenes.per_image()
        labels = np.concatenate([boxes.labels for boxes in scenes.boxes] or [np.empty(0, np.int64)])
        sides = np.concatenate([boxes.xyxy[:, 2:] - boxes.xyxy[:, :2] for boxes in scenes.boxes] or [np.empty((0, 2))])
        found: dict[str, dict[str, Any]] = {}
        for k, name in enumerate(scenes.classes):
            splits = Counter(scenes.splits[there[:, k]].tolist())
            images = {split or "unassigned": splits[split] for split in ORDER if splits[split]}
            if scenes.task == "segmentation":
                found[name] = {"share": float(scenes.areas[:, k].sum() / scenes.areas.sum()), "images": images}
                continue
            own = sides[labels == k]
            width, height = np.median(own, axis=0).tolist() if len(own) else (0.0, 0.0)
            found[name] = {"boxes": len(own), "images": images, "width": width, "height": height}
        return found

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of a table of the classes, as people read it."""
        detection = self.scenes.task == "detection"
        rows = []
        for name, row in self.counts.items():
            images = [f"{'to be split' if split == 'unassigned' else split} {n:,}" for split, n in row["images"].items()]
            own = (
                [f"{row['boxes']:,}", f"{row['width']:g} x {row['height']:g}"] if detection else [f"{100 * row['share']:.2f} %"]
            )
            rows.append([show(name), *own, "  ".join(images) or "0"])
        return ["class", *(("boxes", "median pixels") if detection else ("share of pixels",)), "images"], rows

    def details(self, finding: Finding) -> list[str]:
        """What is wrong with each file of a finding, or what is alike, a line for each."""
        if finding.pairs:
            return [" and ".join(pair) for pair in finding.pairs]
        return [f"{show(path)}: {show(what)}" for kind, path, what in self.faults if kind == finding.kind] or finding.paths

    def without_leaks(self) -> Self:
        """The same with only one of the copies that stand in several splits: that of test, else of val."""
        gone, findings = given_up(self.findings, self.scenes.images)
        faults = [Fault("leak", self.scenes.paths[row], reason) for row, reason in gone.items()]
        scenes = replace(self.scenes, faults=(*self.scenes.faults, *faults))
        return replace(self, scenes=scenes.take([row for row in range(len(scenes)) if row not in gone]), findings=findings)

    def _sheet(self) -> Sheet:
        kinds = Counter(finding.severity for finding in self.findings)
        facts = {f"{severity}s": str(kinds[severity]) for severity in ("error", "warning", "note") if kinds[severity]}
        rows = [(finding.severity, finding.message, finding.suggestion) for finding in self.findings]
        return Sheet(self.scenes._sheet().title, facts, ("finding", "what", "what to do") if rows else (), rows)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values; names are what they are."""
        return {
            "task": self.scenes.task,
            "images": len(self.scenes),
            "splits": {split or "unassigned": n for split, n in Counter(self.scenes.splits.tolist()).items()},
            "classes": self.counts,
            "faults": [fault._asdict() for fault in self.faults],
            "findings": [finding.as_json() for finding in self.findings],
        }


def check(
    data: Any, task: Task, ignore: str | Iterable[str] = (), on_bad: Literal["skip", "error"] = "skip", tell: Tell = silent
) -> ScenesAudit:
    """Read a folder and look at it. Raises as ``trickbag.scenes.reading.read`` and ``audit`` do."""
    if not isinstance(data, str | Path):
        raise UsageError(f"{type(data).__name__}: boxes and regions are read from a folder. Give its path.")
    found = read(data, task, tell, [ignore] if isinstance(ignore, str) else list(ignore))
    return audit(found, on_bad, progress=lambda done, total: tell(Doing("checking images", done, total)))


def audit(
    scenes: Scenes,
    on_bad: Literal["skip", "error"] = "skip",
    on_leak: Severity = "error",
    progress: Callable[[int, int], None] | None = None,
) -> ScenesAudit:
    """What the reader found, and what is to be said of the table itself: splits, copies, classes.

    ``on_leak``: how severe it is that a copy stands in two of the given splits. Raises ``TrickbagError`` where ``on_bad`` is
    "error" and files had to be left out that cannot be read.
    """
    bad = [fault for fault in scenes.faults if fault.kind in LEFT_OUT]
    if bad and on_bad == "error":
        named = some([f"{show(path)}: {show(what)}" for _, path, what in bad], 20)
        raise TrickbagError(
            f"{counted(len(bad), 'file')} cannot be read ({named}). Repair or remove them, or use --on-bad skip."
        )
    facts = look_at_all(scenes.root, scenes.paths, progress=progress)
    unreadable = {path: what for kind, path, what in scenes.faults if kind == "unreadable"}
    findings = chain(
        about_left_out(unreadable, len(scenes) + len(unreadable), scenes.root),
        about_faults(scenes),
        about_duplicates(scenes.images, scenes.groups.tolist(), "error", on_leak),
        about_copies(scenes),
        (near.model_copy(update=APART) for near in about_near_duplicates(scenes.images, facts, scenes.groups)),
        about_classes(scenes),
        about_splits(scenes),
        about_files(scenes.images, facts),
        about_ignored(scenes.images),
    )
    return ScenesAudit(scenes, tuple(findings))
