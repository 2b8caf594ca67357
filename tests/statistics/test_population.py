"""The intervals of a study on a population whose truth is known: the short form of ``python -m benchmarks.population``."""

import numpy as np
import pytest

from benchmarks import population
from benchmarks.population import NOISY, PLAIN, TRICKS, Population, against, runs, scores

SETS, PAIRS = 40, ("weaker", "half the features", "a third wrong")


@pytest.fixture(scope="module")
def photos() -> Population:
    """Ten classes that overlap, as features."""
    rng = np.random.default_rng(0)
    y = rng.integers(population.CLASSES, size=20_000)
    return Population(rng.normal(size=(population.CLASSES, 12))[y] + 1.6 * rng.normal(size=(20_000, 12)), y)


@pytest.mark.parametrize("rotating", [True, False])
@pytest.mark.parametrize("reference", [PLAIN, NOISY])
def test_intervals_hold_the_truth_on_new_photos(
    reference: population.Learner, rotating: bool, photos: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 120 intervals 95 % do, within three standard errors of 40 sets; those over the images alone do not, with few photos
    and many seeds."""
    monkeypatch.setattr(population, "SIZE", 300)
    monkeypatch.setattr(population, "OUTSIDE", 2000)
    learners = [reference, *(TRICKS[name] for name in PAIRS)]
    draws = [runs(photos, learners, 5, number, rotating) for number in range(SETS)]
    found = scores(draws, 5, against(0, 1, len(PAIRS)))
    margin = 3 * (0.05 * 0.95 / SETS) ** 0.5
    assert found["of the study"].covered > 0.95 - margin / 2
    assert found["of the study"].wrong <= 0.05 + margin
    assert found["images alone (Bayle et al.)"].covered < found["of the study"].covered
