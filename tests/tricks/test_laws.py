"""The laws that every trick obeys, found by the folder: a new file on the shelf is covered by being there."""

import itertools

import pytest

from trickbag.engine.outline import outline
from trickbag.laboratory import laws
from trickbag.laboratory.lab import CLASSES, example, recipe
from trickbag.trick import PLUG_POINTS, WATCHING
from trickbag.tricks import bag

NAMES = list(bag())
PAIRS = [(a, b) for a, b in itertools.combinations(NAMES, 2) if bag()[a].stage == bag()[b].stage]
HEAP = (
    "warmup", "cosine", "random_resized_crop", "flip", "random_erasing", "one_of(mixup, cutmix)", "label_smoothing",
    "adamw", "sam", "clip_gradient", "ema(half_life=0.2)", "no_bias_decay", "distill", "balanced_sampling", "knn", "calibrate",
)  # fmt: skip
ELSEWHERE = (laws.examples, laws.neighbours, laws.families)
"""Tried here by pairs and by families, so that each is a test of its own; examples run as doctests."""
SILENT = {
    "neutral": {name for name in NAMES if bag()[name].neutral is None},
    "acting": {name for name in NAMES if bag()[name].neutral == {}},
    "odd_batches": {name for name in NAMES if "batch" not in example(name).plugs()},
    "exact": {name for name in NAMES if not {"loss", "weights", "select"} & set(example(name).plugs())},
    "single": {"ghost_norm"},
    "resuming_elsewhere": {name for name in NAMES if "optimizer" not in example(name).plugs()},
    "apart": {"flip"} | {name for name in NAMES if {"data", "order", "batch_size"} & set(example(name).plugs())},
    "watching": {name for name in NAMES if not set(example(name).plugs()) <= WATCHING},
    "beginning": {name for name in NAMES if not 0 < example(name).begin() < 1},
}
"""Of which tricks a law has nothing to say."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("law", [law for law in laws.LAWS if law not in ELSEWHERE], ids=lambda law: law.__name__)
def test_every_trick_obeys(law: laws.Law, name: str) -> None:
    said = law(name)
    assert bool(said) == (name in SILENT.get(law.__name__, ()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", laws.FAMILIES)
def test_two_steps_on_every_family_or_a_sentence(name: str, family: str) -> None:
    laws.family_of(name, family)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_tricks_of_a_stage_commute_or_exclude_each_other(a: str, b: str) -> None:
    laws.pair(a, b)


def test_a_heap_of_tricks_resumes() -> None:
    laws.check_resume(recipe(*HEAP))


def test_a_layout_of_memory_is_made_anew_without_tricks() -> None:
    laws.check_resume(recipe(channels_last=True))


def test_every_plug_point_is_drawn() -> None:
    text = "\n".join(outline(recipe(), len(CLASSES)))
    from trickbag.engine import outline as drawn

    assert all(drawn.LOOP.count(f" {point}\n") or drawn.LOOP.endswith(f" {point}") for point in PLUG_POINTS)
    assert "SGD" in text
