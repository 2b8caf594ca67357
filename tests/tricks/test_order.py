"""The shuffle buffer: every image once, never long before its place in the reading order, and at random."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from trickbag.ground.errors import UsageError
from trickbag.ground.streams import generator
from trickbag.laboratory.lab import loop, recipe, same, train
from trickbag.tricks import parse
from trickbag.tricks.shuffle_buffer import through_buffer


@pytest.mark.parametrize(("count", "run", "buffer"), [(1, 1, 1), (10, 3, 4), (1000, 64, 100), (1000, 7, 5000), (97, 200, 13)])
def test_every_image_is_shown_once(count: int, run: int, buffer: int) -> None:
    shown = through_buffer(count, run, buffer, generator(0, "once"))
    assert sorted(shown.tolist()) == list(range(count))


def test_an_image_is_shown_at_most_a_buffer_before_its_place_in_the_reading_order() -> None:
    count, run, buffer = 5000, 50, 300
    shown = through_buffer(count, run, buffer, generator(0, "near")).tolist()
    firsts = torch.randperm(count // run, generator=generator(0, "near")).tolist()
    reading = {row: place for place, row in enumerate(row for first in firsts for row in range(first * run, (first + 1) * run))}
    early = np.array([reading[row] - place for place, row in enumerate(shown)])
    assert early.max() == buffer - 1
    assert np.corrcoef([reading[row] for row in shown], range(count))[0, 1] > 0.9
    assert abs(np.corrcoef(shown, range(count))[0, 1]) < 0.2


def test_a_buffer_of_one_reads_in_order() -> None:
    shown = through_buffer(100, 10, 1, generator(0, "order")).view(10, 10)
    assert torch.equal(shown - shown[:, :1], torch.arange(10).expand(10, 10))
    assert not torch.equal(shown[:, 0], shown[:, 0].sort().values)


def test_a_buffer_that_holds_all_shuffles_evenly() -> None:
    """Each of six images at each of six places, 600 times in all."""
    table = np.zeros((6, 6))
    for key in range(3600):
        table[range(6), through_buffer(6, 2, 6, generator(key, "even")).numpy()] += 1
    assert chisquare(table.ravel(), np.full(36, 600.0), ddof=10).pvalue > 0.01


def test_epochs_differ_and_a_resumed_one_does_not() -> None:
    made = loop(recipe("shuffle_buffer(run=5, buffer=8)"))
    first, second = made.plan.rows(0), made.plan.rows(1)
    assert not torch.equal(first, second)
    assert torch.equal(second, loop(recipe("shuffle_buffer(run=5, buffer=8)")).plan.rows(1))
    rest = list(made.plan.epoch(1, 16))
    assert torch.equal(torch.cat([part.rows for part in rest]), second[16:])


def test_it_takes_part_in_training() -> None:
    assert not same(train("shuffle_buffer(run=5, buffer=8)").live, train().live)


@pytest.mark.parametrize("spec", ["shuffle_buffer(run=0)", "shuffle_buffer(buffer=0)"])
def test_nothing_is_no_buffer(spec: str) -> None:
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        parse(spec)
