"""Looking early: after how many seeds a study decides, at which level, and which contrasts then need no more."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from numpy.typing import ArrayLike

from trickbag.ground.errors import UsageError
from trickbag.statistics.effects import Sample, effects
from trickbag.statistics.verdicts import Estimate

LOOKS = {3: 0.005, 5: 0.010, 10: 0.015, 20: 0.020}
"""After how many seeds, and the share of false findings that each look may spend: 5 % in all."""


def planned(seeds: int) -> dict[int, float]:
    """The looks of a study with so many seeds, and what each spends; the last one spends what is left of 5 %.

    >>> planned(5), planned(30)
    ({3: 0.005, 5: 0.045}, {3: 0.005, 5: 0.01, 10: 0.015, 30: 0.02})
    """
    early = {count: spent for count, spent in list(LOOKS.items())[:-1] if count < seeds}
    return early | {seeds: round(sum(LOOKS.values()) - sum(early.values()), 9)}


class Decided(NamedTuple):
    """A contrast at the look that decided it, or at the last one."""

    estimate: Estimate
    """At the level of that look."""
    open: bool
    """Whether no look decided it so far."""


def decide(
    samples: Sequence[Sample],
    contrasts: ArrayLike,
    looks: Mapping[int, float],
    *,
    same: Sequence[bool] | None = None,
    pool: int = 0,
    delta: float = 0.002,
) -> tuple[Decided, ...]:
    """Each contrast at the first look that has a verdict on it or finds it futile, its upper limit being below ``delta``.

    ``samples`` of S seeds, ``contrasts`` [C, A], ``same``, ``pool`` and ``delta`` as in ``effects``;
    ``looks`` are numbers of seeds and the alpha that each spends: those up to S are made, in their order. The alphas add up to
    the false findings of the whole study (Bonferroni), whatever is left out on the way: a contrast that is decided stays in the
    family, so that the family is the one that was declared. Raises UsageError where no look is planned after at most S seeds.

    >>> import numpy as np
    >>> decide([Sample(np.ones((2, 9)), np.arange(9))] * 3, [[-1, 1]], {3: 0.005})[0].open
    False
    """
    made = {count: spent for count, spent in looks.items() if count <= len(samples)}
    if not made:
        raise UsageError(f"no look is planned after {len(samples)} seeds, only after {', '.join(map(str, looks))}.")
    found: dict[int, Decided] = {}
    for count, spent in made.items():
        estimates = effects(samples[:count], contrasts, same=same, pool=pool, delta=delta, alpha=spent)
        for number, estimate in enumerate(estimates):
            if number in found and not found[number].open:
                continue
            settled = estimate.verdict not in ("open", "descriptive")
            futile = not settled and estimate.interval is not None and estimate.interval.high < delta
            last = count == max(looks)
            why = "no gain that counts is left possible" if futile else ""
            level = f"level {100 * spent:g} %, the look after {count} of {max(looks)} seeds"
            note = "; ".join(filter(None, [estimate.note, why, level if len(looks) > 1 else ""]))
            found[number] = Decided(replace(estimate, note=note), not (settled or futile or last))
    return tuple(found[number] for number in sorted(found))
