"""Tricks that act in a part of training (until, after): what they may hold, and that nothing else about it changes."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import marked
import numpy as np
import pytest
import torch

import trickbag as tb
from trickbag.engine import assemble as assembling
from trickbag.engine.cutting import Resident
from trickbag.engine.precision import fabric_for
from trickbag.engine.speed import time_steps
from trickbag.ground.errors import UsageError
from trickbag.ground.typed import parted
from trickbag.laboratory import laws
from trickbag.laboratory.lab import dataset, example, loop, network, recipe, same, train
from trickbag.report import sketch
from trickbag.runs import auto, forecast
from trickbag.runs.request import edited, identity
from trickbag.scenes.reading import read
from trickbag.studies.arms import Bench
from trickbag.studies.jobs import shared
from trickbag.timed import IN_STEPS, Timed, phases
from trickbag.transfers.assemble import assemble as transfer_loop
from trickbag.transfers.recipe import TransferRecipe
from trickbag.trick import Trick, conflict, ordered
from trickbag.tricks import bag, parse

CPU = torch.device("cpu")
STEPPING = [name for name, kind in bag().items() if kind.plugs() and set(example(name).plugs()) <= IN_STEPS]
KINDS = (
    *("random_resized_crop", "flip", "randaugment", "augmix", "progressive_resizing", "balanced_sampling", "undersample"),
    *(
        "grow_batch",
        "cosine",
        "warmup(share=0.9)",
        "linear_scaling",
        "mixup",
        "one_of(mixup, cutmix)",
        "manifold_mixup",
        "label_smoothing",
    ),
    *(
        "focal",
        "balanced_softmax",
        "class_weights",
        "drop_hardest",
        "distill",
        "multi_scale",
        "sam",
        "freeze",
        "clip_gradient(norm=0.1)",
    ),
    "lookahead(every=2)",
)
"""Tricks at every plug point that is asked in steps."""
SHORT = {"batch_size": 8}


def timed(kind: str, trick: str, share: float) -> Trick:
    return parse(f"{kind}({trick}, {share})")


def trained(*tricks: Any, **fields: Any) -> tuple[list[float], int]:
    """The losses of a training, and how many of its steps begin before half of it."""
    found = train(*tricks, **SHORT, **fields)
    plan = found.loop.plan
    return found.losses, sum(part.t < 0.5 for epoch in range(plan.epochs) for part in plan.epoch(epoch))


# what may be held
@pytest.mark.parametrize("kind", ["until", "after"])
@pytest.mark.parametrize("name", [name for name in bag() if not issubclass(bag()[name], Timed)])
def test_every_trick_is_held_or_refused_in_a_sentence(name: str, kind: str) -> None:
    held = example(name)
    if name in STEPPING:
        trick = timed(kind, str(held), 0.9)
        assert parse(str(trick)) == trick
        assert (trick.name(), trick.stage) == (held.name(), held.stage)
        assert (trick.slot, trick.stilled) == (held.slot, held.stilled)
        assert (trick.plugs(), trick.others()) == (held.plugs(), held.others())
        assert kind == "after" or all(map(np.isfinite, train(trick, epochs=1).losses))
        return
    with pytest.raises(UsageError, match=rf"^{kind}\(.*\): trick: .* acts at '\w+'.*, once for all of training, .*\.$"):
        timed(kind, str(held), 0.5)


def test_every_plug_point_of_steps_is_tried() -> None:
    tried = {point for trick in KINDS for point in parse(trick).plugs()}
    assert tried == IN_STEPS


@pytest.mark.parametrize(
    ("spelled", "says"),
    [
        ("until(mixup)", "until(mixup): share is missing. Write until(trick=…, share=…)."),
        ("until(mixup, 1.5)", "until(mixup, 1.5): share: input should be less than or equal to 1."),
        ("after(mixup, -1)", "after(mixup, -1): share: input should be greater than or equal to 0."),
        ("until(0.5, 0.5)", "until(0.5, 0.5): trick: give a trick, such as mixup or label_smoothing(eps=0.1)."),
        ("until(mixup, 0.5, 3)", "until(mixup, 0.5, 3): write values with their names, until(trick=…, share=…)."),
        ("until(mixup, trick=flip)", "until(mixup, trick=flip): write values with their names, until(trick=…, share=…)."),
        ("until(mixup, 0.5, alpha=1)", "until(mixup, 0.5, alpha=1): there is no field alpha."),
        ("until(mixup(alpha=-1), 0.5)", "mixup(alpha=-1): alpha: input should be greater than or equal to 0."),
        ("until(distill(cached=True), 0.5)", "distill(cached=True) fixes the images of all epochs, and so"),
        (
            "until(drw(start=0.8), 0.5)",
            "it would never act, from 0.8 of training to 0.5.",
        ),
        ("after(until(flip, 0.3), 0.6)", "it would never act, from 0.6 of training to 0.3."),
        ("one_of(until(mixup, 0.5), cutmix)", "until(mixup, 0.5) cannot be chosen batch by batch;"),
    ],
)
def test_what_is_wrong_is_said(spelled: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(spelled)
    assert says in str(error.value)


# when they act
@pytest.mark.parametrize(
    ("spelled", "acting"),
    [
        ("until(mixup, 0.5)", [0.0, 0.25]),
        ("after(mixup, 0.5)", [0.5, 0.75, 1.0]),
        ("after(until(mixup, 0.75), 0.25)", [0.25, 0.5]),
        ("until(after(mixup, 0.25), 0.75)", [0.25, 0.5]),
        ("until(until(mixup, 0.5), 0.75)", [0.0, 0.25]),
        ("after(after(mixup, 0.5), 0.25)", [0.5, 0.75, 1.0]),
        ("until(mixup, 1)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("after(mixup, 0)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("until(mixup, 0)", []),
        ("after(mixup, 1)", []),
    ],
)
def test_the_part_of_training(spelled: str, acting: list[float]) -> None:
    trick = parse(spelled)
    assert [t for t in (0.0, 0.25, 0.5, 0.75, 1.0) if trick.acts(t)] == acting
    assert trick.begin() == (acting[0] if acting else 1.0)


@pytest.mark.parametrize(
    ("spelled", "begin"),
    [
        ("after(drw, 0.5)", 0.8), ("until(drw, 0.9)", 0.8), ("after(drw, 0.9)", 0.9), ("after(warmup, 0.5)", 0.5),
        ("after(undersample, 0.5)", 0.0), ("after(grow_batch, 0.5)", 0.0), ("after(supervised_contrastive, 0.5)", 0.0),
        ("after(feature_distill, 0.5)", 0.0),
    ],
)  # fmt: skip
def test_from_when_on_a_study_may_not_share(spelled: str, begin: float) -> None:
    assert parse(spelled).begin() == begin


@pytest.mark.parametrize("trick", KINDS)
def test_a_part_of_training_is_bit_for_bit_what_the_trick_makes_of_it(trick: str) -> None:
    fields = network([parse(trick)])
    (plain, before), (whole, before_whole) = trained(**fields), trained(trick, **fields)
    always, first, last = (
        trained(timed(kind, trick, share), **fields)[0] for kind, share in (("until", 1), ("until", 0.5), ("after", 0.5))
    )
    assert always == whole
    assert first[:before_whole] == whole[:before_whole]
    assert last[:before] == plain[:before]
    assert first[before_whole:] != whole[before_whole:]
    assert last[before:] != plain[before:]


@pytest.mark.parametrize(
    ("spelled", "alike"),
    [
        ("until(freeze, 0.5)", "freeze(until=0.5)"),
        ("until(freeze_norms, 0.5)", "freeze_norms(until=0.5)"),
        ("after(drw(start=0), 0.5)", "drw(start=0.5)"),
        ("after(drw(start=0.5), 0.2)", "drw(start=0.5)"),
        ("until(mixup(alpha=0), 0.5)", "mixup(alpha=0)"),
    ],
)
def test_what_a_trick_has_a_field_for_is_the_same_bits(spelled: str, alike: str) -> None:
    assert train(spelled).same(train(alike))


@pytest.mark.parametrize(
    "spelled",
    [
        "until(mixup, 0.5)",
        "after(lookahead(every=2), 0.3)",
        "after(until(drw(start=0), 0.7), 0.2)",
    ],
)
def test_a_stopped_training_goes_on(spelled: str) -> None:
    laws.check_resume(recipe(spelled, "warmup", **SHORT))


def test_run_state_is_that_of_the_held_trick_and_none_of_the_recipe() -> None:
    made = loop(recipe("after(lookahead(every=2), 0.5)"))
    (trick,) = made.tricks
    assert trick.state().keys() == trick.core.state().keys() == {"steps_", "slow_"}
    trick.steps_ = 7
    assert trick.core.steps_ == trick.steps_ == 7
    assert not trick.fresh().state()
    assert not made.recipe.tricks[0].state()
    assert list(made.state()["tricks"]) == ["after(lookahead(every=2), 0.5)"]


def test_one_after_the_other_is_each_in_its_part() -> None:
    one, other = "until(mixup, 0.5)", "after(cutmix, 0.5)"
    both, mixup, cutmix = (train(*tricks, **SHORT).losses for tricks in ((one, other), ("mixup",), (other,)))
    half = len(both) // 2
    assert both[:half] == mixup[:half]
    assert both[half:] != mixup[half:]
    assert both[half:] != cutmix[half:]


# images of the loader
def pictures(*tricks: str) -> list[list[torch.Tensor]]:
    """The training images of each epoch."""
    made = loop(recipe(*tricks, epochs=4))
    return [[batch.x for _, batch in made.loader.train(made.plan.epoch(epoch), epoch)] for epoch in range(4)]


@pytest.mark.parametrize("trick", ["random_resized_crop", "flip", "randaugment", "progressive_resizing(start=0.1, until=1)"])
def test_images_of_the_last_epochs_are_plain(trick: str) -> None:
    """The norms of an average see the images of the last step too."""
    plain, whole, part = pictures(), pictures(trick), pictures(f"until({trick}, 0.75)")
    for epoch in range(4):
        assert all(map(torch.equal, part[epoch], (whole if epoch < 3 else plain)[epoch]))
        assert not all(map(torch.equal, part[epoch], (plain if epoch < 3 else whole)[epoch]))
    assert all(map(torch.equal, norm_images(f"until({trick}, 0.75)", share=1.0), norm_images(share=1.0)))


def norm_images(*tricks: str, share: float) -> list[torch.Tensor]:
    """What the norms of an average are estimated from when a share of training is done."""
    made = loop(recipe(*tricks))
    made.judge.reach(share)
    return [torch.cat([batch.x.flatten(), batch.y.flatten()]) for batch in made.judge.batches()]


@pytest.mark.parametrize("trick", ["random_resized_crop", "mixup"])
def test_norms_do_not_see_what_is_still_to_begin(trick: str) -> None:
    """Or a study, which trains the beginning once for all, would keep another epoch of an average than a run alone."""
    late, plain, whole = f"after({trick}, 0.5)", norm_images(share=0.25), norm_images(trick, share=0.25)
    assert all(map(torch.equal, norm_images(late, share=0.25), plain))
    assert all(map(torch.equal, norm_images(late, share=0.5), whole))
    assert not all(map(torch.equal, plain, whole))
    at_start, bare = (loop(recipe("pretrain(epochs=1)", *tricks)) for tricks in ((late,), ()))
    for made in (at_start, bare):
        list(made.prepare())
    assert same(at_start.model.state_dict(), bare.model.state_dict())


def test_further_views_end() -> None:
    made = loop(recipe("until(augmix, 0.5)"))
    views = [batch.views for epoch in range(2) for _, batch in made.loader.train(made.plan.epoch(epoch), epoch)]
    assert [view is None for view in views] == [False] * 3 + [True] * 3


def test_batches_are_cut_in_the_memory_of_a_device_once_no_augmentation_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Held(Resident):
        def __init__(self, pixels: list[torch.Tensor]) -> None:
            sizes = np.array([image.shape for image in pixels])
            offsets = np.concatenate([[0], sizes.prod(1).cumsum()])
            joined = torch.cat([image.flatten() for image in pixels])
            super().__init__(SimpleNamespace(joined=lambda: joined, shapes=sizes, offsets=offsets), CPU)
            self.cuts = 0

        def cut(self, *asked: Any) -> torch.Tensor:
            self.cuts += 1
            return super().cut(*asked)

    held = Held(dataset()[1])
    monkeypatch.setattr(assembling, "resident", lambda *_: held)
    made = loop(recipe("flip", "until(randaugment, 0.5)"))
    before = held.cuts
    shown = [len(batch.x) for epoch in range(2) for _, batch in made.loader.train(made.plan.epoch(epoch), epoch)]
    assert len(shown) == 6
    assert held.cuts - before == 3


def test_a_detector_is_trained_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path / "cache"))
    scenes = read(marked.voc(tmp_path / "cells"), "detection")

    def shown(*tricks: str) -> list[list[torch.Tensor]]:
        fields = {"model": "cifar_resnet8", "head": "fcos", "size": 32, "epochs": 2, "batch_size": 2}
        made = transfer_loop(TransferRecipe(task="detection", tricks=tricks, **fields), scenes, 0, fabric_for("fp32"))
        return [[batch.x for _, batch in made.loader.train(made.plan.epoch(epoch), epoch)] for epoch in range(2)]

    plain, whole, part = shown(), shown("random_resized_crop"), shown("until(random_resized_crop, 0.5)")
    assert all(map(torch.equal, part[0], whole[0]))
    assert all(map(torch.equal, part[1], plain[1]))
    assert not all(map(torch.equal, whole[1], plain[1]))


# how many steps
@pytest.mark.parametrize(
    "tricks", ["until(undersample, 0.5)", "until(undersample, 0.5), after(oversample, 0.5)", "after(grow_batch(at=0.1), 0.6)"]
)
def test_the_steps_that_are_announced_are_those_that_come(tricks: str) -> None:
    made = loop(recipe(*parted(tricks), **SHORT))
    epochs = [list(made.plan.epoch(epoch)) for epoch in range(2)]
    assert sum(map(len, epochs)) == made.plan.steps() == made.judge.facts.steps
    assert made.plan.steps() != loop(recipe(**SHORT)).plan.steps()
    assert [sum(len(part.rows) for part in parts) for parts in epochs] == [made.plan.count(0), made.plan.count(1)]


def test_the_price_counts_each_part_of_training() -> None:
    tricks = [parse(text) for text in ("until(sam, 0.25)", "after(mixup, 0.5)", "flip")]
    assert [(share, [str(trick) for trick in own]) for share, own in phases(tricks)] == [
        (0.25, ["sam", "flip"]), (0.25, ["flip"]), (0.5, ["mixup", "flip"]),
    ]  # fmt: skip
    data, pixels = dataset()
    timing = time_steps(recipe("until(sam, 0.5)", "after(mixup, 0.25)"), data, pixels, 0, steps=1)
    assert timing.train > 0
    counts = torch.bincount(torch.from_numpy(data.images.split("train").labels))
    wanted = SimpleNamespace(data=data, seed=0)
    assert auto.shown(recipe("until(undersample, 0.5)", epochs=4), wanted) == (counts.sum() + counts.min() * 3) / 2


def test_the_learning_rates_of_a_forecast() -> None:
    made = recipe("until(exponential(final=0.001), 0.5)", epochs=4, lr=1.0)
    assert forecast.rates(made, 12) == pytest.approx({0: 1.0, 1: 0.001**0.25, 3: 1.0})
    assert sketch.schedule(parse("after(cosine, 0.5)"))[:: sketch.STEPS // 4] == pytest.approx([1, 1, 0.5, 0.1464, 0], abs=1e-4)


# beside others
@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ("until(mixup, 0.5)", "after(cutmix, 0.5)", ""),
        ("until(balanced_sampling, 0.5)", "after(oversample, 0.5)", ""),
        ("until(focal, 0.5)", "after(bce, 0.7)", ""),
        ("until(flip, 0.5)", "until(mixup, 0.5)", ""),
        ("until(mixup, 0.6)", "after(cutmix, 0.5)", "both sit in the slot 'mix'. Choose one."),
        ("until(mixup, 0.5)", "cutmix", "both sit in the slot 'mix'. Choose one."),
        ("until(focal, 0.6)", "after(bce, 0.5)", "both decide 'loss', which only one trick can. Choose one."),
        ("until(mixup, 0.5)", "after(mixup(alpha=1.0), 0.5)", "a recipe holds a trick once. Choose one."),
        ("until(mixup, 0.5)", "mixup", "a recipe holds a trick once. Choose one."),
    ],
)
def test_two_tricks_exclude_each_other_while_both_act(a: str, b: str, reason: str) -> None:
    first, second = parse(a), parse(b)
    between = ": " if "holds" in reason else " "
    assert conflict(first, second) == (f"{a} and {b}{between}{reason}" if reason else "")
    assert bool(conflict(second, first)) == bool(reason)


def test_it_acts_in_the_place_of_the_held_trick() -> None:
    tricks = [
        parse(text)
        for text in ("until(label_smoothing, 0.5)", "mixup", "after(class_weights, 0.2)", "until(clip_gradient, 0.3)", "sam")
    ]
    for typed in itertools.permutations(tricks):
        assert [trick.name() for trick in ordered(typed)] == [
            "mixup",
            "class_weights",
            "label_smoothing",
            "sam",
            "clip_gradient",
        ]


def test_answers_to_fixed_images_are_refused_beside_images_that_change() -> None:
    with pytest.raises(
        UsageError, match=r"distill\(cached=True\) has answers to fixed images, which until\(flip, 0\.5\) does not show"
    ):
        loop(recipe("distill(cached=True)", "until(flip, 0.5)"))


# recipes and studies
def test_a_recipe_is_edited_as_if_it_held_the_trick_itself() -> None:
    made = tb.Recipe(tricks=["mixup", "flip"]).edit(["until(mixup(alpha=0.4), 0.9)"])
    assert [str(trick) for trick in made.tricks] == ["flip", "until(mixup(alpha=0.4), 0.9)"]
    set_ = made.edit(**{"mixup.alpha": 1, "mixup.share": 0.5})
    assert str(set_.tricks[1]) == "until(mixup(alpha=1.0), 0.5)"
    nested = tb.Recipe(tricks=["until(after(warmup, 0.1), 0.9)"]).edit(**{"warmup.share": 0.5})
    assert str(nested.tricks[0]) == "until(after(warmup(share=0.5), 0.1), 0.9)"
    assert [str(trick) for trick in made.edit(without=["mixup"]).tricks] == ["flip"]
    assert str(made.edit(["mixup"]).tricks[1]) == "mixup"
    with pytest.raises(UsageError, match="there is no field aplha; did you mean alpha"):
        made.edit(**{"mixup.aplha": 1})
    with pytest.raises(UsageError, match="the recipe has no such trick"):
        made.edit(without=["until"])


def test_all_spellings_are_one(tmp_path: Path) -> None:
    spelled = "until(mixup(alpha=0.4), 0.9)"
    given = tb.Until(trick=tb.MixUp(alpha=0.4), share=0.9)
    assert str(given) == spelled
    made = tb.Recipe(tricks=[given])
    (tmp_path / "mine.toml").write_text(made.toml())
    assert f'"{spelled}"' in made.toml()
    assert tb.Recipe.load(tmp_path / "mine.toml").key == made.key == tb.Recipe(tricks=[spelled]).key
    assert edited("cifar", with_=f"{spelled}, after(flip, 0.1)")[1] == {"mixup", "flip"}
    assert identity(tb.Recipe(tricks=["until(distill(teacher='somewhere'), 0.5)"]))["tricks"]


def test_a_study_trains_a_common_beginning_once() -> None:
    plain = recipe("flip")
    assert shared(plain, plain.edit(["after(mixup, 0.5)"])) == 0.5
    assert shared(plain, plain.edit(["until(mixup, 0.5)"])) == 0.0
    assert shared(plain, plain.edit(["until(mixup, 0)"])) == shared(plain, plain.edit(["after(mixup, 1)"])) == 1.0


def test_in_a_study_a_slot_is_replaced_only_while_both_act() -> None:
    bench = Bench(recipe("until(mixup, 0.5)", "flip"), [])
    assert [str(t) for t in bench.recipe([parse("after(cutmix, 0.5)")]).tricks] == [
        "flip",
        "after(cutmix, 0.5)",
        "until(mixup, 0.5)",
    ]
    assert [str(t) for t in bench.recipe([parse("cutmix")]).tricks] == ["flip", "cutmix"]
    assert [str(t) for t in bench.recipe([parse("mixup")]).tricks] == ["flip", "mixup"]
