"""What power and beliefs assume of tricks before a study measures them, beside what finished studies show of it.

    trickbag study DATA … --tricks … --seeds 6 --no-proof --out STUDY
    python -m benchmarks.assumed STUDY…

With six seeds that rotate over three folds each photo is judged twice, by two trainings of each arm that share nothing but
the recipe. *Churn* is how often the two trainings of the reference disagree, *own* what that leaves of the variance of being
right: 1 - churn / (2 right (1 - right)). *Kept* is the covariance of an arm's difference from the reference between the two
trainings, over its changes and the churn, the mean over arms. *Of main effects* is the share of their variance over photos that
the two have in common. *Interactions* is the root of the mean square of interactions of two over that of main effects, each
less its squared error; 0 where errors explain them. *Untrained* is what the classifier alone keeps, over the churn. Prints a
Markdown table.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import origin
from trickbag.report.findings import CONTROLS
from trickbag.studies.arms import Question, differences
from trickbag.studies.design import PROBE
from trickbag.studies.questions import estimates, samples, weighted
from trickbag.studies.record import Study, table

Floats = NDArray[np.float64]


def twice(study: Study, arms: Sequence[str]) -> Floats:
    """[2, A, N] which photos each arm names rightly, in the first partition and in the second."""
    seen = samples(study, table(study, study.arms), arms, "correct")
    turns = study.judging.turns
    right = np.full((2, len(arms), len(study.groups)), np.nan)
    for turn, sample in enumerate(seen[: 2 * turns]):
        right[turn // turns][:, sample.groups] = sample.values
    return right[:, :, np.isfinite(right).all((0, 1))]


def common(values: Floats) -> float:
    """The covariance over photos of two judgements [2, N]."""
    return float(np.cov(values)[0, 1])


def asked(study: Study, kind: str) -> list[Question]:
    """The questions of a kind that the design tells from all others."""
    return [question for question in study.questions if question.kind == kind and not question.aliases]


def beyond_chance(study: Study, arms: Sequence[str], questions: Sequence[Question]) -> float:
    """The mean square of effects, less that of their errors."""
    found = estimates(study, table(study, study.arms), arms, questions)
    return float(np.mean([(one.difference or 0.0) ** 2 - (one.error or 0.0) ** 2 for one in found]))


def shown(study: Study) -> str:
    """A row of the table."""
    arms = [arm for arm in study.arms if arm.role not in CONTROLS]
    names, reference = [arm.name for arm in arms], arms[0]
    right = twice(study, names)
    share, churn = float(right[:, 0].mean()), float((right[0, 0] != right[1, 0]).mean())
    changes = [differences(arm.recipe, reference.recipe) for arm in arms[1:]]
    together = [common(right[:, number] - right[:, 0]) for number in range(1, len(arms))]
    fitted = [arm.name for arm in study.arms if arm.role == PROBE]
    probe = twice(study, [reference.name, *fitted])
    untrained = f"{common(probe[:, 1] - probe[:, 0]) / churn:.3f}" if fitted else "–"
    kept = float(np.mean([both / count for both, count in zip(together, changes, strict=True)])) / churn
    mains = [np.einsum("a,san->sn", row, right) for row in weighted(asked(study, "main"), names)]
    of_mains = sum(map(common, mains)) / sum(float(one.var(1, ddof=1).mean()) for one in mains)
    squares = [beyond_chance(study, names, asked(study, kind)) for kind in ("pair", "main")]
    figures = share, churn, 1 - churn / (2 * share * (1 - share)), kept, of_mains, math.sqrt(max(squares[0], 0.0) / squares[1])
    return f"| {right.shape[2]} | {len(mains)} | {' | '.join(f'{figure:.3f}' for figure in figures)} | {untrained} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("study", type=Path, nargs="+")
    args = parser.parse_args()
    print(origin(), "", sep="\n", flush=True)
    print("| study | photos | tricks | right | churn | own | kept | of main effects | interactions | untrained |")
    print("|---|" + 9 * "--:|")
    for folder in args.study:
        print(f"| {folder.parent.name if folder.name == 'study' else folder.name} {shown(Study.load(folder))}", flush=True)


if __name__ == "__main__":
    main()
