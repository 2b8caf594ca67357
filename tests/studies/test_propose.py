"""What is proposed for a data set: by its counts, within the bag, never what the reference holds or excludes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trickbag.data.audit import Audit, LabelError
from trickbag.data.findings import Finding, about_classes
from trickbag.data.images import Images, divide
from trickbag.recipe import Recipe, recipe_names
from trickbag.runs import auto
from trickbag.statistics.belief import Prior
from trickbag.studies.design import design
from trickbag.studies.prior import Expected
from trickbag.studies.propose import FEW_IMAGES, images_per_class, propose
from trickbag.trick import EVALUATION
from trickbag.tricks import bag

BARE = Recipe(weights="hub")
SIZES = {"height": 240, "width": 320, "channels": 3}


def audited(counts: Mapping[str, Mapping[str, int]], sizes: dict[str, int] = SIZES) -> Audit:
    """The audit of a data set with these images by class and split, "" for images in no split."""
    rows = [(label, split) for label, row in enumerate(counts.values()) for split, n in row.items() for _ in range(n)]
    paths = tuple(f"{label}/{number}.png" for number, (label, _) in enumerate(rows))
    labels, splits = (np.array(column) for column in zip(*rows, strict=True))
    images = Images(Path(), paths, labels, splits.astype("<U5"), np.arange(len(rows)), tuple(counts))
    found = Audit(images, (), {}, sizes)
    return Audit(images, tuple(about_classes(images, found.counts, found.imbalance)), {}, sizes)


def even(each: int, classes: int = 3) -> Audit:
    return audited({f"class {n}": {"": each} for n in range(classes)})


def names(*args: object, **options: object) -> list[str]:
    return [trick.name() for trick, _ in propose(*args, **options)]  # type: ignore[arg-type]


def test_few_images_bring_frozen_layers_and_strong_augmentation() -> None:
    few = names(even(30), BARE)
    assert few[0] == "freeze"
    assert {"trivialaugment", "head_lr"} <= set(few)
    assert not {"mixup", "cutmix"} & set(few)


def test_from_scratch_there_are_no_pretrained_layers_to_spare() -> None:
    scratch = names(even(30), Recipe(), most=20)
    assert not {"freeze", "head_lr"} & set(scratch)
    assert {"trivialaugment", "mixup"} <= set(scratch)


def test_many_images_bring_mixing() -> None:
    many = names(even(500), BARE, most=20)
    assert {"mixup", "random_erasing"} <= set(many)
    assert "cutmix" not in many, "only one trick sits in the slot of mixing"
    assert not {"freeze", "trivialaugment"} & set(many)


def test_few_and_many_part_where_auto_parts_them() -> None:
    assert FEW_IMAGES == auto.SOME_IMAGES


def test_unequal_classes_bring_the_long_tail_family() -> None:
    unequal = audited({"common": {"": 400}, "rare": {"": 20}})
    found = {trick.name(): reason for trick, reason in propose(unequal, BARE)}
    assert {"class_weights", "crt"} <= found.keys()
    assert "20 times" in found["class_weights"]
    assert not {"class_weights", "balanced_sampling"} & set(names(even(200), BARE, most=20))


def test_labels_that_may_be_wrong_bring_what_survives_them() -> None:
    sound = even(100)
    twice = Finding(kind="conflict", severity="error", message="In two classes.")
    doubted = replace(sound, findings=(*sound.findings, twice))
    assert {"clean_labels", "symmetric_cross_entropy", "drop_hardest"} <= set(names(doubted, BARE, most=20))
    assert "clean_labels" not in names(doubted, Recipe(), most=20), "features from scratch tell little"
    assert "symmetric_cross_entropy" not in names(sound, BARE, most=20)
    found = replace(sound, label_errors=(LabelError("a.png", "class 0", "class 1", 0.9, 0.1),))
    reasons = {trick.name(): reason for trick, reason in propose(found, BARE)}
    assert reasons["clean_labels"].startswith("1 label is doubted: ")


def test_what_fits_the_start_is_proposed_for_it() -> None:
    assert "l2_sp" in names(even(30), BARE, most=20)
    assert "l2_sp" not in names(even(30), Recipe(), most=20)
    scratch = names(even(100), Recipe(batch_size=128), most=20)
    assert {"cautious", "ghost_norm"} <= set(scratch)
    assert "ghost_norm" not in names(even(100), Recipe(batch_size=64), most=20)
    assert "cautious" not in names(even(100), BARE, most=20)


def test_a_teacher_is_learned_from(tmp_path: Path) -> None:
    teacher = str(tmp_path / "a teacher's run")
    (trick, reason), *_ = propose(even(100), BARE, teacher)
    assert trick.name() == "distill"
    assert trick.teacher == teacher  # type: ignore[attr-defined]
    assert teacher in reason
    assert "distill" not in names(even(100), BARE, most=20)


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("each", [5, 1000])
def test_every_proposal_is_new_runs_with_the_reference_and_has_a_reason(name: str, each: int) -> None:
    reference = Recipe.load(name)
    proposed = propose(even(each), reference, teacher="runs/teacher")
    assert len(proposed) <= 6
    own = {trick.name() for trick in reference.tricks}
    for trick, reason in proposed:
        assert trick.name() in bag().keys() - own
        assert reason.endswith(".")
        assert reference.epochs or set(trick.plugs()) <= EVALUATION, "it could not act in a recipe without a step"
    if proposed:
        made = design(reference, [trick for trick, _ in proposed])
        assert made.kind == ("factorial" if len(proposed) > 1 else "add-one")
        assert [line for line in made.not_run if not line.startswith("one-nn")] == []


def test_basics_come_unless_the_reference_has_them() -> None:
    basics = {"cosine", "label_smoothing", "ema", "warmup", "flip_tta"}
    assert basics <= set(names(even(100), BARE, most=20))
    assert not basics & set(names(even(100), BARE.edit(basics), most=20))


def test_small_grey_images_have_no_mirror_image() -> None:
    counts = {"0": {"": 100}, "1": {"": 100}}
    assert "flip_tta" not in names(audited(counts, {"height": 8, "width": 8, "channels": 1}), BARE, most=20)
    assert "flip_tta" in names(audited(counts, {"height": 300, "width": 300, "channels": 1}), BARE, most=20)


def test_the_limit_holds_and_the_groups_take_turns() -> None:
    unequal = audited({"common": {"": 100}, "rare": {"": 8}})
    first = names(unequal, BARE, "runs/teacher", most=4)
    assert first == ["distill", "class_weights", "freeze", "cosine"]
    assert names(unequal, BARE, most=0) == []


@pytest.mark.parametrize("splits", [{"": 100}, {"train": 80, "test": 20}, {"train": 70, "val": 10, "test": 20}])
def test_images_per_class_are_those_that_the_division_leaves(splits: dict[str, int]) -> None:
    found = audited({"a": splits, "b": splits, "empty": {}})
    divided = divide(found.images, 0, BARE.val_share, BARE.test_share)
    assert images_per_class(found, BARE) == pytest.approx(len(divided.split("train")) / 2)


def test_what_other_data_sets_let_expect_comes_first_and_what_loses_last() -> None:
    def known(mean: float, price: float = 1.0) -> Expected:
        return Expected(Prior(mean, 1e-4), price)

    plain = names(even(100), BARE, most=20)
    led = names(even(100), BARE, most=20, known={"ema": known(0.02, 4.0), "warmup": known(0.01), "cosine": known(-0.01)})
    unknown = [name for name in plain if name not in ("ema", "warmup", "cosine")]
    assert led == ["warmup", "ema", *unknown, "cosine"]
    assert names(even(100), BARE, most=1, known={"ema": known(0.02)}) == ["ema"]
    assert names(even(100), BARE, most=20, known={"mixup(alpha=0.4)": known(0.1), "lighting": known(0.1)}) == plain


def test_of_two_that_exclude_each_other_the_more_promising_is_proposed() -> None:
    assert "mixup" in names(even(500), BARE, most=20)
    led = names(even(500), BARE, most=20, known={"cutmix": Expected(Prior(0.02, 1e-4), 1.0)})
    assert led[0] == "cutmix"
    assert "mixup" not in led
