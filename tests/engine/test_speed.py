"""Timing: real steps of a throw-away network; the arithmetic that it picks is fast, right, and changes no other run."""

import math
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trickbag.engine import speed
from trickbag.engine.loader import Loader
from trickbag.engine.speed import Timing, fastest, time_steps
from trickbag.ground.errors import TrickbagError
from trickbag.laboratory.lab import dataset, follow, loop, recipe
from trickbag.recipe import Recipe

TRICKS = ("flip", "mixup", "ema(half_life=0.2)", "warmup")


def timed(made: Recipe) -> Timing:
    data, pixels = dataset()
    return time_steps(made, data, pixels, 0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Callable[..., list[Recipe]]:
    """A machine that remembers nothing, on which each arithmetic takes the given time and has the given first loss."""

    def of(timings: dict[tuple[str, bool], Timing]) -> list[Recipe]:
        asked: list[Recipe] = []
        shutil.rmtree(cache / "speed", ignore_errors=True)

        def measure(made: Recipe, *_: Any, **__: Any) -> Timing:
            asked.append(made)
            return timings[made.precision, bool(made.channels_last)]

        monkeypatch.setattr(speed, "time_steps", measure)
        return asked

    return of


def picked(**fields: Any) -> tuple[Recipe, Timing, str]:
    return fastest(recipe(**fields), dataset()[0], 0)


def timings(bf16_loss: float = 2.0, bf16: float = 0.001, fp32: float = 0.004) -> dict[tuple[str, bool], Timing]:
    slow, quick = Timing(fp32, fp32, 10, 2.0), Timing(bf16, bf16, 10, bf16_loss)
    return {
        ("fp32", False): slow, ("fp32", True): slow._replace(train=0.9 * fp32, judge=0.9 * fp32),
        ("bf16", False): quick, ("bf16", True): quick._replace(train=1.1 * bf16, judge=1.1 * bf16),
    }  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"precision": "bf16"}, {"channels_last": True}, {"epochs": 0}, {"batch_size": 64}])
def test_timings_are_finite_and_positive(fields: dict[str, Any]) -> None:
    timing = timed(recipe(*TRICKS, **fields))
    assert all(math.isfinite(value) and value > 0 for value in timing[:4])
    assert timing.train < 5
    assert timing.memory > 1_000_000


def test_the_loss_is_that_of_the_first_step_of_the_real_run() -> None:
    made = recipe(*TRICKS)
    assert timed(made).loss == follow(loop(made)).losses[0]


def test_larger_images_take_longer() -> None:
    small, large = (timed(recipe(size=size)) for size in (16, 96))
    assert large.train > 2 * small.train
    assert large.judge > 2 * small.judge


def test_timing_takes_no_step_of_the_real_run() -> None:
    """A loop that was begun before, and one that is made after, go as if nothing had been timed."""
    made = recipe(*TRICKS)
    whole = follow(loop(made))
    begun = loop(made)
    spelled, drawn = made.toml(), torch.get_rng_state()
    for other in (made, made.edit(precision="bf16", channels_last=True)):
        timed(other)
    assert made.toml() == spelled
    assert not any(trick.state() for trick in made.tricks)
    torch.set_rng_state(drawn)
    assert follow(begun).same(whole)
    timed(made)
    assert follow(loop(made)).same(whole)


def test_pixels_that_are_shared_stay_as_they_are() -> None:
    data, pixels = dataset()
    before = [image.clone() for image in pixels]
    time_steps(recipe(*TRICKS), data, pixels, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, pixels, strict=True))


def test_a_step_is_timed_at_its_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sizes, augmented = recipe("progressive_resizing(start=0.5)", *TRICKS), set[int](), Loader.augmented

    def noted(self: Loader, rows: torch.Tensor, copies: torch.Tensor, epoch: int, size: int, t: float) -> torch.Tensor:
        sizes.add(size)
        return augmented(self, rows, copies, epoch, size, t)

    monkeypatch.setattr(Loader, "augmented", noted)
    timed(made)
    assert sizes == {made.size}


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"precision": "auto", "channels_last": "auto"}, 4),
        ({"precision": "auto", "channels_last": False}, 2),
        ({"precision": "fp32", "channels_last": "auto"}, 2),
        ({"precision": "bf16", "channels_last": True}, 1),
    ],
)
def test_only_what_the_recipe_leaves_open_is_tried(machine: Any, fields: dict[str, Any], count: int) -> None:
    asked = machine(timings())
    made, timing, reason = picked(**fields)
    assert len(asked) == len(set(asked)) == count
    assert made in asked
    assert made.edit(**fields) == recipe(**fields)
    assert {made.precision, made.channels_last}.isdisjoint({"auto"})
    least = min(timings()[a.precision, bool(a.channels_last)].train for a in asked)
    assert timing.train == least
    assert made.precision in reason
    assert f"{1 / least:.0f}" in reason


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_choice_is_remembered_for_the_same_work(machine: Any, cache: Path, epochs: int) -> None:
    asked = machine(timings())
    first = picked(precision="auto", channels_last="auto", epochs=epochs)
    assert len(asked) == 4
    again = picked(momentum=0.5, precision="auto", channels_last="auto", epochs=3 * epochs, lr=0.3)
    assert len(asked) == 5
    assert asked[-1] == again[0]
    assert [getattr(again[0], name) for name in ("precision", "channels_last")] == ["bf16", False]
    assert again[1] == first[1]
    assert re.search(r"was the fastest here on 20\d\d-\d\d-\d\d: 1000 images/s", again[2])
    for other in ({"batch_size": 4}, {"size": 24}, {"model": "cifar_resnet20"}, {"precision": "fp32"}, {"epochs": 1 - epochs}):
        asked.clear()
        picked(**{"precision": "auto", "channels_last": "auto", "epochs": epochs} | other)
        assert len(asked) > 1, other


def test_a_memory_that_is_damaged_or_cannot_be_written_is_none(machine: Any, cache: Path) -> None:
    asked = machine(timings())
    first = picked(precision="auto", channels_last="auto")
    (place,) = (cache / "speed").iterdir()
    good = place.read_text()
    altered = good.replace("true", "false") if "true" in good else good.replace("false", "true")
    for damage in ("{", "[]", "{}", '{"choice": {"precision": "fp7", "channels_last": true}, "date": ""}', altered, "FIFO", ""):
        asked.clear()
        place.unlink()
        if damage == "FIFO":
            os.mkfifo(place)
        elif damage:
            place.write_text(damage)
        else:
            place.mkdir()
            (place / "file").touch()
        assert picked(precision="auto", channels_last="auto") == first
        assert len(asked) == 4
    asked.clear()
    place.unlink()
    place.parent.rmdir()
    place.parent.write_text("no folder")
    assert picked(precision="auto", channels_last="auto") == first
    assert len(asked) == 4


@pytest.mark.parametrize("micro_batch", [0, 6])
def test_where_a_step_does_not_fit_the_memory_it_takes_half_the_images_at_a_time(
    machine: Any, monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    tried: list[int] = []

    def measure(made: Recipe, *_: Any, **__: Any) -> Timing:
        tried.append(made.micro_batch)
        if (made.micro_batch or made.batch_size) > 3:
            raise torch.OutOfMemoryError
        return timings()["bf16", True]

    monkeypatch.setattr(speed, "time_steps", measure)
    made, _, reason = picked(precision="bf16", channels_last=True, batch_size=12, micro_batch=micro_batch)
    assert tried == [micro_batch, 6, 3][micro_batch > 0 :]
    assert made.micro_batch == 3
    assert "3 images at a time" in reason


def test_not_even_one_image_fits(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: Any, **__: Any) -> Timing:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(speed, "time_steps", measure)
    with pytest.raises(TrickbagError, match="not even one image of 32 pixels fits"):
        picked(precision="bf16", channels_last=True, size=32)


def test_slow_arithmetic_is_not_timed_to_the_end() -> None:
    data, pixels = dataset()
    slow = time_steps(recipe(*TRICKS), data, pixels, 0, steps=1_000_000, slowest=0.0)
    assert slow.judge == math.inf
    assert slow.loss == timed(recipe(*TRICKS)).loss


@pytest.mark.parametrize("loss", [2.5, 1.5, math.nan, math.inf])
def test_arithmetic_whose_loss_disagrees_is_refused(machine: Any, loss: float) -> None:
    machine(timings(bf16_loss=loss))
    made, timing, _ = picked(precision="auto", channels_last="auto")
    assert (made.precision, made.channels_last) == ("fp32", True)
    assert timing == timings()["fp32", True]


def test_arithmetic_whose_loss_agrees_is_taken_where_it_is_faster(machine: Any) -> None:
    machine(timings(bf16_loss=2.02))
    assert picked(precision="auto", channels_last="auto")[0].precision == "bf16"
    machine(timings(bf16_loss=2.02, bf16=0.01))
    assert picked(precision="auto", channels_last="auto")[0].precision == "fp32"


def test_a_loss_that_is_no_number_from_the_start_leaves_fp32(machine: Any) -> None:
    nan = {key: timing._replace(loss=math.nan) for key, timing in timings().items()}
    machine(nan)
    assert picked(precision="auto", channels_last="auto")[0].precision == "fp32"


def test_a_recipe_that_only_judges_is_timed_by_judging(machine: Any) -> None:
    some = timings()
    machine(some | {("fp32", False): some["fp32", False]._replace(judge=1e-6)})
    assert picked(precision="auto", channels_last="auto", epochs=0)[0].precision == "fp32"
    assert picked(precision="auto", channels_last="auto", epochs=1)[0].precision == "bf16"


IMAGES, EAGER = 41, Timing(0.002, 0.001, 10, 2.0)


def compiling(monkeypatch: pytest.MonkeyPatch, took: Timing | Exception) -> list[Recipe]:
    """A machine on which compiling takes a fifth of a second, and steps what is given then; a second of training is long."""
    asked: list[Recipe] = []

    def measure(made: Recipe, *_: Any, **__: Any) -> Timing:
        asked.append(made)
        time.sleep(0.2)
        if isinstance(took, Exception):
            raise took
        return took

    monkeypatch.setattr(speed, "time_steps", measure)
    monkeypatch.setitem(speed.WORTH_COMPILING, "cpu", 1.0)
    return asked


@pytest.mark.parametrize(
    ("epochs", "took", "chosen", "said"),
    [
        (20, EAGER._replace(train=0.001), True, r"compiled after \d+ s, it trains 1000 images/s"),
        (20, EAGER._replace(train=0.0019), False, r"compiled after \d+ s, it trains 526 images/s, which is not worth it"),
        (20, EAGER._replace(train=0.001, loss=3.0), False, r"compiled .* images/s, which is not worth it"),
        (20, RuntimeError("no compiler\nat all"), False, "the network cannot be compiled here: no compiler"),
        (2, EAGER._replace(train=0.001), False, ""),
    ],
)
def test_a_network_is_compiled_where_the_training_is_long_enough_to_repay_it(
    epochs: int, took: Timing | Exception, chosen: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = compiling(monkeypatch, took)
    made, timing, reason = speed.compiled(recipe(epochs=epochs), EAGER, dataset()[0], 0)
    assert made.compile is chosen
    assert re.fullmatch(said, reason)
    assert timing == (took if chosen else EAGER)
    assert [one.compile for one in asked] == [True] * (epochs * IMAGES * EAGER.train >= 1)


@pytest.mark.parametrize("trick", ["progressive_resizing", "manifold_mixup"])
def test_what_a_compiled_network_cannot_do_is_not_compiled(trick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = compiling(monkeypatch, EAGER._replace(train=0.001))
    assert speed.compiled(recipe(trick, epochs=100), EAGER, dataset()[0], 0)[0].compile is False
    assert not asked


def test_on_a_cpu_nothing_is_compiled_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, said = speed.compiled(recipe(epochs=100_000), EAGER, dataset()[0], 0)
    assert (made.compile, said) == (False, "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the timing, which a test turns by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("each", "count"), [(1.0, 4), (5.0, 3), (7.0, 2), (600.0, 1)])
def test_when_the_time_for_timing_is_over_what_is_known_decides(
    monkeypatch: pytest.MonkeyPatch, cache: Path, clock: list[float], each: float, count: int
) -> None:
    shutil.rmtree(cache / "speed", ignore_errors=True)
    asked: list[Recipe] = []

    def slow(made: Recipe, *_: Any, **__: Any) -> Timing:
        asked.append(made)
        clock[0] += each
        return timings()[made.precision, bool(made.channels_last)]

    monkeypatch.setattr(speed, "time_steps", slow)
    _, timing, reason = fastest(recipe(precision="auto", channels_last="auto"), dataset()[0], 0, until=1012.0)
    assert len(asked) == count
    assert (asked[0].precision, asked[0].channels_last) == ("fp32", False)
    assert timing == min((timings()[a.precision, bool(a.channels_last)] for a in asked), key=lambda found: found.train)
    assert ("not measured, to save time" in reason) == (count < 4)
    assert (cache / "speed").is_dir() == (count == 4), "a choice of some is not remembered as that of all"


def test_a_timing_ends_after_the_step_in_which_its_time_is_over(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    augmented, steps = Loader.augmented, list[int]()

    def slow(self: Loader, *arguments: Any) -> Any:
        steps.append(1)
        clock[0] += 60
        return augmented(self, *arguments)

    monkeypatch.setattr(Loader, "augmented", slow)
    data, pixels = dataset()
    short = time_steps(recipe(epochs=50, batch_size=4), data, pixels, 0, steps=40, until=1030.0)
    assert len(steps) <= 1 + 3 + speed.STEPS  # those made ahead of the one step
    assert short.judge == pytest.approx(short.train / 3)
    assert short.loss == timed(recipe(epochs=50, batch_size=4)).loss


def test_images_that_there_is_no_time_to_decode_are_stood_for_by_others(clock: list[float]) -> None:
    class Slow(dict[int, torch.Tensor]):
        def __getitem__(self, row: int) -> torch.Tensor:
            clock[0] += 10
            return torch.full((3, 4, 4), row, dtype=torch.uint8)

    pixels: Any = speed.Decoded(Slow(), until=1025.0)  # type: ignore[arg-type]
    seen = [int(pixels[row][0, 0, 0]) for row in range(20)]
    assert seen[:3] == [0, 1, 2]
    assert set(seen[3:]) == {0, 1, 2}
    late: Any = speed.Decoded(Slow(), until=0.0)  # type: ignore[arg-type]
    assert [int(late[row][0, 0, 0]) for row in (7, 8)] == [7, 7]
