"""What the tricks do downstream: the study's questions, asked of the detectors and segmenters on its classifiers' bodies.

A sample is what each image that judges says of the first measure, mAP at 0.5 or mean IoU (see ``statistics.jackknife``). The
declared questions are one family for each data set, apart from that of the classifiers.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from trickbag.ground.errors import TrickbagError
from trickbag.report.findings import CONTROLS, Downstream, MeasuredEffect
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.verdicts import Estimate
from trickbag.studies.arms import Arm, Question
from trickbag.studies.folder import DownstreamRecord
from trickbag.studies.jobs import Cell
from trickbag.studies.questions import weighted
from trickbag.studies.record import Floats, Study
from trickbag.studies.transfers import called
from trickbag.transfers.judge import MEASURES
from trickbag.transfers.run import Transferred
from trickbag.transfers.seeds import per_image


class Judged(NamedTuple):
    """A detector or a segmenter on the images that judge it."""

    key: str
    """Its training."""
    values: Floats
    """[n] what each image says of the measure."""


Table = dict[str, list[Judged | None]]
"""Every arm's, one per seed."""


def downstream(study: Study, arms: Sequence[Arm]) -> tuple[Downstream, ...]:
    """The answers of all data sets, in the order in which they were asked for; a training that is damaged is noted there."""
    return tuple(OneData(study, held, arms).answer() for held in study.held.downstream)


class OneData:
    """The trainings on one data set."""

    def __init__(self, study: Study, held: DownstreamRecord, arms: Sequence[Arm]) -> None:
        self.study, self.held, self.arms = study, held, arms
        self.read: dict[str, Judged | None] = {}

    @cached_property
    def runs(self) -> Table:
        """What was judged."""
        return {arm.name: [self.judged(cell) if cell else None for cell in self.study.row(arm)] for arm in self.arms}

    def judged(self, cell: Cell) -> Judged | None:
        """What came of a run; None where there is nothing, or where it is damaged."""
        key = self.held.keys.get(cell.key, "")
        if key and key not in self.read:
            folder = self.study.place.transfer(self.held.task, key)
            self.read[key] = None
            try:
                if folder.exists() and not (folder / ".work").exists():
                    values = per_image(Transferred.load(folder), self.held.split)[0]
                    if len(values) != len(self.held.groups):
                        raise TrickbagError(f"{folder} was judged on other images than the study has.")
                    self.read[key] = Judged(key, values)
            except TrickbagError as error:
                self.study.damaged[f"{cell.key} {self.held.request}"] = str(error)
        return self.read.get(key)

    def answer(self) -> Downstream:
        """The declared questions as one family, each of the others by itself."""
        names = {arm.name for arm in self.arms}
        asked = [q for q in self.study.questions if all(name in names for name, _ in q.weights)]
        declared = [q for q in asked if q.declared]
        pooled = [arm.name for arm in self.arms if arm.role not in CONTROLS]
        found = dict(zip(declared, self.estimates(declared, pooled), strict=True))
        found |= {q: self.estimates([q], [name for name, _ in q.weights])[0] for q in asked if not q.declared}
        known = [judged.values.mean() for judged in self.runs[self.arms[0].name] if judged]
        return Downstream(
            name=called(self.held.task, self.held.name),
            measure=MEASURES[self.held.task][0],
            split=self.held.split,
            images=len(self.held.groups),
            trainings=len({judged.key for row in self.runs.values() for judged in row if judged}),
            runs=sum(judged is not None for row in self.runs.values() for judged in row),
            reference=float(np.mean(known)) if known else None,
            effects=tuple(
                MeasuredEffect(q.name, q.says, one.difference, one.interval, said, len(one.points), one.note)
                for q in asked
                for one in [found[q]]
                for said in ["helps" if one.verdict == "worthwhile" else one.verdict]  # there is no least gain that matters
            ),
        )

    def estimates(self, asked: Sequence[Question], arms: Sequence[str]) -> tuple[Estimate, ...]:
        """The estimates of some questions as one family."""
        if not asked:
            return ()
        weights, groups = weighted(asked, arms), np.array(self.held.groups)
        return effects(
            self.samples(arms),
            weights,
            same=[self.alike(row, arms) for row in weights],
            shares=False,
            pool=len(np.unique(groups)),
            delta=0.0,
        )

    def samples(self, arms: Sequence[str]) -> list[Sample]:
        """What the images say of each seed's detectors or segmenters."""
        groups = np.array(self.held.groups)
        missing = np.full(len(groups), np.nan)
        columns = zip(*(self.runs[arm] for arm in arms), strict=True)
        return [Sample(np.array([judged.values if judged else missing for judged in row]), groups) for row in columns]

    def alike(self, weights: Floats, arms: Sequence[str]) -> bool:
        """Whether the two sides of a contrast are one and the same training, whichever seed."""
        used = [(self.runs[arm], weight) for arm, weight in zip(arms, weights, strict=True) if weight]
        sums = []
        for turn in range(len(self.study.seeds)):
            column = [(row[turn], weight) for row, weight in used]
            if any(judged is None for judged, _ in column):
                continue
            keys = {judged.key for judged, _ in column if judged}
            sums += [sum(weight for judged, weight in column if judged and judged.key == key) for key in keys]
        return bool(sums) and bool(np.abs(sums).max() < 1e-9)
