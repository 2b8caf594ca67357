"""Batches: every image once an epoch, draws that differ where they should, none that depends on who draws."""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from trickbag.engine.cutting import cut
from trickbag.engine.loader import Loader, Plan
from trickbag.engine.loop import Judged, Step, mean_loss, micro_batches
from trickbag.engine.pixels import ahead
from trickbag.ground.errors import UsageError
from trickbag.ground.state import pack, unpack
from trickbag.laboratory.lab import loop, recipe, train
from trickbag.trick import Batch, View


def plan(count: int, batch_size: int, epochs: int = 3) -> Plan:
    return Plan(torch.zeros(count, dtype=torch.int64), (), 0, epochs, batch_size, 16)


@pytest.mark.parametrize(("count", "batch_size"), [(41, 16), (33, 16), (32, 16), (5, 16), (2, 1), (17, 4)])
def test_every_image_is_shown_once_an_epoch_and_never_alone(count: int, batch_size: int) -> None:
    made = plan(count, batch_size)
    steps = 0
    for epoch in range(3):
        parts = list(made.epoch(epoch))
        assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(count))
        assert batch_size == 1 or all(len(part.rows) > 1 for part in parts)
        assert all(part.t < part.after for part in parts)
        steps += len(parts)
    assert made.steps() == steps
    assert parts[-1].after == 1.0


def test_epochs_differ_in_order_and_a_run_does_not() -> None:
    assert not torch.equal(plan(40, 8).rows(0), plan(40, 8).rows(1))
    assert torch.equal(plan(40, 8).rows(1), plan(40, 8).rows(1))


def test_an_epoch_can_be_entered_in_the_middle() -> None:
    whole = list(plan(41, 16).epoch(1))
    entered = list(plan(41, 16).epoch(1, whole[1].position))
    assert [part.rows.tolist() for part in entered] == [part.rows.tolist() for part in whole[1:]]
    assert [part.t for part in entered] == [part.t for part in whole[1:]]


def loader(*tricks: str) -> Loader:
    return loop(recipe(*tricks)).loader


def test_an_image_is_augmented_anew_in_each_epoch_and_for_each_copy() -> None:
    made = loader("random_resized_crop")

    def shown(row: int, copy: int, epoch: int) -> Tensor:
        return made.augmented(torch.tensor([row, 5]), torch.tensor([copy, 0]), epoch, 16)[0, 0]

    first = shown(3, 0, 0)
    assert torch.equal(first, shown(3, 0, 0))
    assert torch.equal(first, made.augmented(torch.tensor([7, 3]), torch.zeros(2, dtype=torch.int64), 0, 16)[0, 1])
    assert not torch.equal(first, shown(3, 1, 0))
    assert not torch.equal(first, shown(3, 0, 1))


@pytest.mark.parametrize("workers", ["1", "2", "5"])
def test_the_number_of_workers_changes_nothing(workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> list[Tensor]:
        made = loop(recipe("random_resized_crop", "flip", "random_erasing"))
        return [batch.x for _, batch in made.loader.train(made.plan.epoch(0), 0)]

    one = batches()
    monkeypatch.setenv("TRICKBAG_WORKERS", workers)
    assert all(torch.equal(a, b) for a, b in zip(one, batches(), strict=True))


@pytest.mark.parametrize(("given", "slow", "found"), [("", True, [2, 4, 4]), ("", False, [1, 1, 1]), ("3", True, [3, 3, 3])])
def test_where_training_waits_for_batches_the_next_epoch_has_more_workers(
    given: str, slow: bool, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's own: a busy machine makes training wait too."""
    monkeypatch.setenv("TRICKBAG_WORKERS", given or "0")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    now = 0.0

    def slowly(make: Callable[[Any], Any], parts: Iterable[Any], *_: int) -> Iterator[Any]:
        nonlocal now
        for part in parts:
            now += 1.0 if slow else 0.001
            yield make(part)

    monkeypatch.setattr("trickbag.engine.loader.ahead", slowly)
    monkeypatch.setattr("trickbag.engine.loader.time", SimpleNamespace(perf_counter=lambda: now))
    made = loop(recipe(batch_size=4))
    made.loader.workers = int(given or 1)
    workers = []
    for epoch in range(3):
        for _ in made.loader.train(made.plan.epoch(epoch), epoch):
            now += 0.5
        workers.append(made.loader.workers)
    assert workers == found


def test_judged_views_come_in_order_with_a_partial_last_batch() -> None:
    made = loop(recipe())
    test = made.judge.loaders["test"]
    parts = list(test.judged(torch.arange(13), 5))
    assert [len(part.rows) for part in parts] == [5, 5, 3]
    alone = torch.cat([next(test.judged(torch.tensor([row]), 1)).x for row in range(13)])
    assert torch.equal(torch.cat([part.x for part in parts]), alone)


def test_a_judged_view_is_the_centre_of_the_resized_image() -> None:
    image = torch.zeros(1, 40, 80, dtype=torch.uint8)
    image[:, :, 18:62] = 200
    assert cut(image, View(20, 20)).shape == (1, 20, 20)
    assert int(cut(image, View(20, 20)).min()) == 200


def test_a_ribbon_does_not_fill_the_memory() -> None:
    assert cut(torch.zeros(3, 1, 60_000, dtype=torch.uint8), View(256, 224)).shape == (3, 224, 224)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 50])
def test_micro_batches_sum_to_the_gradient_of_the_whole_batch(size: int) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.eye(3)[torch.arange(7) % 3]
    batch = Batch(x, y, torch.arange(7))
    layer = torch.nn.Linear(4, 3)

    class Told:
        logits: Tensor

    def gradient(parts: list[tuple[Batch, float]]) -> Tensor:
        layer.zero_grad()
        for part, share in parts:
            told = Told()
            told.logits = layer(part.x)
            (share * mean_loss((), part, told, layer, 0.0)).backward()  # type: ignore[arg-type]
        assert layer.weight.grad is not None
        return layer.weight.grad.clone()

    torch.testing.assert_close(gradient(list(micro_batches(batch, size))), gradient([(batch, 1.0)]))


@pytest.mark.parametrize(
    ("count", "size", "parts"),
    [(9, 4, [4, 5]), (3, 2, [3]), (8, 4, [4, 4]), (5, 4, [5]), (7, 4, [4, 3]), (1, 4, [1]), (1, 0, [1]), (3, 1, [1, 1, 1])],
)
def test_no_part_of_a_batch_is_a_single_image_but_where_it_is_asked_for(count: int, size: int, parts: list[int]) -> None:
    batch = Batch(torch.zeros(count, 4), torch.zeros(count, 3), torch.arange(count))
    made = list(micro_batches(batch, size))
    assert [len(part.rows) for part, _ in made] == parts
    assert torch.equal(torch.cat([part.rows for part, _ in made]), batch.rows)
    assert [share for _, share in made] == [part / count for part in parts]


SMALL_MAPS = {"model": "test_resnet", "size": 32, "epochs": 1, "lr": 1e-3}
"""Whose last maps are of one place."""


@pytest.mark.parametrize(("batch_size", "micro_batch"), [(1, 0), (4, 1)])
@pytest.mark.parametrize("trick", ["flip", "pretrain(epochs=1)"])
def test_a_norm_with_nothing_to_compare_is_said(trick: str, batch_size: int, micro_batch: int) -> None:
    fields = {**SMALL_MAPS, "batch_size": batch_size, "micro_batch": micro_batch}
    with pytest.raises(UsageError, match=r"one value per channel, which has no variance.* 2 or more, or a larger size"):
        train(trick, **fields)
    assert len(train(trick, **fields | {"size": 64}).losses) > 0


def test_an_image_left_over_by_micro_batches_is_not_alone() -> None:
    assert len(train(**SMALL_MAPS, batch_size=9, micro_batch=4).losses) == 5  # of 9, 9, 9, 9 and 5 images


def test_the_best_epoch_on_validation_is_kept() -> None:
    made = loop(recipe("cosine", epochs=6))
    told = [event for event in made.train() if isinstance(event, Judged)]
    ranks = [(event.scores[""].top1, -event.scores[""].nll) for event in told]
    assert len(set(ranks)) > 1
    assert made.best[""]["epoch"] == told[ranks.index(max(ranks))].epoch


def test_a_resumed_run_knows_its_best_epoch_and_does_not_overwrite_it_by_a_worse_one() -> None:
    made = loop(recipe(epochs=2))
    next(event for event in made.train() if isinstance(event, Judged))
    made.best[""]["rank"] = [1.0, 0.0]
    resumed = loop(recipe(epochs=2))
    resumed.load(unpack(*pack(made.state())))
    last = [event for event in resumed.train() if isinstance(event, Judged)][-1]
    assert not last.kept
    assert resumed.best[""]["epoch"] == 1
    assert all(torch.equal(value, resumed.best[""]["model"][name]) for name, value in made.best[""]["model"].items())


def test_fp16_scales_the_loss_and_takes_the_scale_out_again() -> None:
    plain, scaled = train(lr=0.01), train(lr=0.01, precision="fp16")
    assert scaled.loop.scale.scale > 1
    torch.testing.assert_close(torch.tensor(scaled.losses), torch.tensor(plain.losses), atol=0.05, rtol=0.05)


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    made = loop(recipe(precision="fp16"))
    made.scale.scale = 2.0**60
    before = {name: p.clone() for name, p in made.model.named_parameters()}
    next(made.train())
    assert made.scale.scale == 2.0**59
    assert all(torch.equal(before[name], p) for name, p in made.model.named_parameters())


def test_the_mean_loss_of_an_epoch_is_one_over_images() -> None:
    """41 images in steps of 16: the last step shows 9, and counts as 9."""
    made = loop(recipe(epochs=1))
    seen = [(float(event.loss), event.images) for event in made.train() if isinstance(event, Step)]
    assert [images for _, images in seen] == [16, 16, 9]
    assert made.mean_loss == pytest.approx(sum(loss * images for loss, images in seen) / 41, rel=1e-6)


def test_a_reader_that_stops_does_not_wait_for_what_is_under_way() -> None:
    """Left in the middle it ends in the garbage collector, where to wait for a thread can be to wait for oneself."""
    begun, go, done = threading.Event(), threading.Event(), list[int]()

    def work(item: int) -> int:
        if item:
            begun.set()
            go.wait(20)
            done.append(item)
        return item

    results = ahead(work, range(9), 2, 4)
    assert next(results) == 0
    assert begun.wait(20)
    cast(Generator[int], results).close()
    assert not done
    go.set()
