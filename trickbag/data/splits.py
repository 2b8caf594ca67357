"""Which images validate and which test, where the user did not say: deterministic, stratified by class, groups kept whole."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.str_]


class Cells(NamedTuple):
    """How many training images each group has of each class, as plain lists, since they are read one by one."""

    order: list[int]
    """The groups that may leave train, in their keyed order."""
    sizes: list[int]
    """Images per group."""
    starts: list[int]
    """Group g has the cells starts[g] to starts[g + 1]."""
    classes: list[int]
    counts: list[int]

    def of(self, group: int) -> Iterator[tuple[int, int]]:
        """Pairs of a class and the group's images of it."""
        inside = slice(self.starts[group], self.starts[group + 1])
        return zip(self.classes[inside], self.counts[inside], strict=True)


def fill(paths: Sequence[str], labels: Ints, splits: Words, groups: Ints, seed: int, shares: dict[str, float]) -> Words:
    """The splits [N] with every row in one: what is given stays, and the splits named in ``shares`` are taken out of train.

    ``shares`` maps a split to the share of each class's training images that it gets, in the order in which the splits
    choose. A class keeps a group in train, gives one to the first split from two groups on, to the second from three on.
    Rows without a split go where their group is, else to train. The order of rows changes nothing.
    """
    splits = _with_their_group(splits, groups)
    groups = np.unique(groups, return_inverse=True)[1]
    classes = int(labels.max(initial=-1)) + 1
    cells, members = _cells(paths, labels, splits, groups, classes, seed)
    images = np.bincount(labels[splits == "train"], minlength=classes)
    left = members.tolist()
    home = np.full(len(cells.sizes), "", dtype="<U5")
    for turn, (split, share) in enumerate(shares.items()):
        want = np.where(members >= turn + 2, np.maximum(1, np.floor(share * images + 0.5).astype(np.int64)), 0).tolist()
        keep = np.clip(members - turn - 1, 1, len(shares) - turn).tolist()
        taken = _choose(cells, want, keep, left)
        home[taken] = split
        gone = set(taken)
        cells = cells._replace(order=[group for group in cells.order if group not in gone])
    return np.where(home[groups] == "", splits, home[groups])


def follow(splits: Words, met: Words, groups: Ints, missing: Sequence[str]) -> tuple[Words, npt.NDArray[np.bool_]]:
    """The splits [N] where those that are missing are the ones in which images were ``met`` before, and which rows are left.

    ``met`` [N] are the splits of earlier divisions, empty for new images. A group of which an image was trained on stays in
    train, one of which an image was in a missing split belongs to that; val comes before test. What is left, and is to be
    divided by ``fill``, are the rows whose group nobody met, in train or in no split.

    >>> splits, met, groups = np.array(["", "", "", "val"]), np.array(["test", "", "train", "train"]), np.arange(4)
    >>> [column.tolist() for column in follow(splits, met, groups, ["test"])]
    [['test', 'train', 'train', 'val'], [False, True, False, False]]
    """
    splits = _with_their_group(splits, groups)
    groups = np.unique(groups, return_inverse=True)[1]
    ranks = [*(split for split in ("test", "val") if split in missing), "train"]
    strongest = np.zeros(int(groups.max(initial=-1)) + 1, np.int64)
    np.maximum.at(strongest, groups, [ranks.index(split) + 1 if split in ranks else 0 for split in met.tolist()])
    strongest[groups[splits != "train"]] = len(ranks)  # as in fill, a group that stands elsewhere too does not leave train
    mine = strongest[groups]
    return np.where((splits == "train") & (mine > 0), np.array(["", *ranks])[mine], splits), (splits == "train") & (mine == 0)


def _with_their_group(splits: Words, groups: Ints) -> Words:
    if (splits != "").all():
        return splits
    given = {group: split for group, split in sorted(zip(groups.tolist(), splits.tolist(), strict=True)) if split}
    both = zip(groups.tolist(), splits.tolist(), strict=True)
    return np.array([split or given.get(group, "train") for group, split in both], dtype="<U5")


def _cells(paths: Sequence[str], labels: Ints, splits: Words, groups: Ints, classes: int, seed: int) -> tuple[Cells, Ints]:
    """The cells of groups numbered from 0, and how many groups [K] of each class are in train."""
    number = int(groups.max(initial=-1)) + 1
    train = splits == "train"
    first: list[str] = [""] * number
    for path, group in zip(paths, groups.tolist(), strict=True):
        if not first[group] or path < first[group]:
            first[group] = path
    fixed = set(groups[~train].tolist())

    def draw(group: int) -> tuple[bytes, str]:
        key = f"{seed}/split/{first[group]}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(key, digest_size=8).digest(), first[group]

    cell, counts = np.unique(groups[train] * max(classes, 1) + labels[train], return_counts=True)
    owner, kind = np.divmod(cell, max(classes, 1))
    order = sorted((group for group in range(number) if group not in fixed), key=draw)
    sizes = np.bincount(groups, minlength=number).tolist()
    starts = np.searchsorted(owner, np.arange(number + 1)).tolist()
    return Cells(order, sizes, starts, kind.tolist(), counts.tolist()), np.bincount(kind, minlength=classes)


def _choose(cells: Cells, want: list[int], keep: list[int], left: list[int]) -> list[int]:
    """Groups that bring each class k near ``want[k]`` images while ``keep[k]`` groups stay; counts ``left`` down."""
    have = [0] * len(want)
    taken: dict[int, None] = {}

    def take(group: int) -> None:
        taken[group] = None
        for k, count in cells.of(group):
            have[k] += count
            left[k] -= 1

    for group in cells.order:
        nearer = 0
        for k, count in cells.of(group):
            short = want[k] - have[k]
            nearer += abs(short) - abs(short - count)
            if left[k] <= keep[k]:
                break
        else:
            if nearer > 0:
                take(group)
    # A class whose every group is far too large has none yet: it gives its smallest.
    if any(wanted and not had for wanted, had in zip(want, have, strict=True)):
        for group in sorted(cells.order, key=cells.sizes.__getitem__):
            inside = [k for k, _ in cells.of(group)]
            needed = any(want[k] and not have[k] for k in inside)
            if needed and group not in taken and all(left[k] > keep[k] for k in inside):
                take(group)
    return list(taken)
