"""Splits: missing ones are filled in by class and group, the same at every call, and gaps are told."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import fill, make

from trickbag.data.images import divide, gaps
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError

pytestmark = pytest.mark.usefixtures("cache")


# Splits


@st.composite
def tables(draw):
    n = draw(st.integers(1, 60))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, draw(st.integers(0, 40))), min_size=n, max_size=n))
    words = draw(st.sampled_from([[""], ["train"], ["train", "val"], ["train", "test"], ["", "test"], ["", "train", "val"]]))
    of_group = draw(st.lists(st.sampled_from(words), min_size=41, max_size=41))
    return make(labels, groups, [of_group[g] for g in groups])


@given(tables(), st.integers(0, 5), st.randoms())
def test_laws_of_division(images, seed, shuffler):
    done = divide(images, seed)
    assert set(done.splits.tolist()) <= {"train", "val", "test"}
    homes = {(g, s) for g, s in zip(done.groups.tolist(), done.splits.tolist(), strict=True)}
    assert len(homes) == len({g for g, _ in homes}), "a group crosses"
    held = np.isin(images.splits, ["val", "test"])
    assert (done.splits[held] == images.splits[held]).all(), "what is given stays"
    for name in ("val", "test"):
        if (images.splits == name).any():
            assert ((done.splits == name) == (images.splits == name)).all()
    for k in set(images.labels[~held].tolist()):
        assert ((done.splits == "train") & (images.labels == k)).any(), "a class left train"
    order = shuffler.sample(range(len(images)), len(images))
    other = divide(replace(images, groups=images.groups * 3 + 1).take(order), seed)
    assert (other.splits == done.splits[order]).all(), "the order of rows matters"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 9))
def test_division_is_stratified(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes).tolist()
    done = divide(make(labels), seed)
    for name, share, least in (("val", 0.1, 2), ("test", 0.2, 3)):
        want = [max(1, int(share * n + 0.5)) if n >= least else 0 for n in sizes]
        assert done.split(name).counts().tolist() == want


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=3), st.integers(0, 3))
def test_every_class_reaches_the_held_out_splits_when_it_has_the_groups(classes, seed):
    labels = [k for k, sizes in enumerate(classes) for size in sizes for _ in range(size)]
    groups = [100 * k + g for k, sizes in enumerate(classes) for g, size in enumerate(sizes) for _ in range(size)]
    done = divide(make(labels, groups), seed)
    for k, sizes in enumerate(classes):
        have = [done.split(name).counts()[k] > 0 for name in ("train", "val", "test")]
        assert have == [True, len(sizes) >= 2, len(sizes) >= 3]


def test_a_huge_group_does_not_fill_a_small_split():
    labels = [0] * 103
    done = [divide(make(labels, [0] * 100 + [1, 2, 3]), seed) for seed in range(8)]
    assert all((one.splits[:100] == "train").all() for one in done)


def test_the_seed_decides_and_nothing_else():
    images = make([0, 1] * 50)
    draws = {tuple(divide(images, seed).splits) for seed in (0, 1, 2)}
    assert len(draws) == 3
    assert "".join(s[1] for s in divide(make([0] * 12), 0).splits.tolist()) == "rrrerrrrrare"


def test_rows_without_a_split_follow_their_group():
    done = divide(make([0] * 6, [0, 0, 1, 1, 2, 3], ["test", "", "val", "", "", "train"]), 0)
    assert done.splits.tolist() == ["test", "test", "val", "val", "train", "train"]


def test_a_group_that_the_user_tore_stays_as_given():
    torn = make([0] * 12, [g // 2 for g in range(12)], ["train", "val"] * 5 + ["train"] * 2)
    for seed in range(5):
        done = divide(torn, seed)
        assert done.splits[:10].tolist() == ["train", "val"] * 5
        assert set(done.splits[10:].tolist()) == {"test"}


def test_shares_are_checked_and_zero_takes_nothing():
    assert set(divide(make([0] * 9), 0, val=0, test=0).splits.tolist()) == {"train"}
    assert Counter(divide(make([0] * 100), 0, val=0.25, test=0.5).splits.tolist()) == {"train": 25, "val": 25, "test": 50}
    for val, test in ((-0.1, 0.2), (0.5, 0.5), (float("nan"), 0.1)):
        with pytest.raises(UsageError, match="together below 1"):
            divide(make([0] * 9), 0, val, test)


def test_gaps_say_where_a_class_is_missing():
    images = make(
        [0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 4], splits=["train", "val", "test"] + ["train"] * 2 + ["val"] * 2 + ["train"] * 4
    )
    images = replace(images, classes=("a", "b", "c", "d", "e", "f"), groups=np.array([0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
    assert gaps(images) == [
        "1 class without an image: 'f'. Add some, or remove the folder.",
        "1 class with one image, so that training or scoring gets none: 'd'. Add more.",
        "1 class in val only, so not learned: 'c'. Add images to train and test.",
        "2 classes in train only, so not scored in val and test: 'b', 'e'. Add images to val and test.",
        "1 group in more than one split, which inflates the scores. Give each group one split.",
    ]
    assert gaps(divide(make([0] * 10 + [1] * 3), 0)) == []


def test_an_empty_class_stays_in_the_map(tmp_path):
    root = fill(tmp_path / "d", "train/cat/1.jpg", "train/cat/2.jpg", "notes/a.txt")
    (root / "train/ape").mkdir()
    (root / "val").mkdir()
    images = read(root)
    assert images.classes == ("ape", "cat")
    assert "1 class without an image: 'ape'. Add some, or remove the folder." in gaps(images)


def test_taking_rows():
    images = replace(make([0, 1, 2, 1]), hashes=("p", "q", "r", "s"))
    some = images.take([3, 0])
    assert (some.paths, some.labels.tolist(), some.groups.tolist(), some.hashes) == (
        ("00003.png", "00000.png"),
        [1, 0],
        [3, 0],
        ("s", "p"),
    )
    assert images.take(images.labels == 1).paths == ("00001.png", "00003.png")
    assert len(images.take([])) == 0
    assert images.take([]).counts().tolist() == [0, 0, 0]
