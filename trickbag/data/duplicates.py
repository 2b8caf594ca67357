"""Which images are the same, or nearly: perceptual hashes and the search among them.

A hash is 64 bits that say which of the lowest frequencies of a small grey copy lie above their median (the DCT hash of
Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1). Resizing, JPEG and
brightness move few bits, a crop moves more, so a small distance only proposes a pair: the grey copies themselves, also
cropped a little against each other, must correlate before two images are called near duplicates.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from trickbag.ground import signals

SMALLEST = 24
"""Images whose shorter side has fewer pixels have no perceptual hash: too many of them are alike."""

_SIDE = 16
_DISTANCE, _CORRELATION, _NEAREST = 16, 0.93, 8
_CROPS = (0.025, 0.05)
_MEMORY = 20_000_000


class Likeness(NamedTuple):
    """What two versions of one picture have in common."""

    bits: int
    """64-bit DCT hash."""
    copy: bytes
    """Grey copy of 16 x 16 pixels."""


def reduced(pixels: Tensor) -> NDArray[np.float64] | None:
    """The grey copy [32, 32] of an image, uint8 [C, H, W]; None where the image is too small to have a likeness.

    >>> import torch
    >>> reduced(torch.zeros(3, 20, 64, dtype=torch.uint8)) is None
    True
    """
    shorter = min(pixels.shape[1:])
    if shorter < SMALLEST:
        return None
    step = max(1, shorter // 256)
    grey = pixels[:, ::step, ::step].float().mean(0, keepdim=True)
    return np.asarray(adaptive_avg_pool2d(grey, 2 * _SIDE)[0].double().numpy())


def likenesses(small: Sequence[NDArray[np.float64] | None]) -> list[Likeness | None]:
    """The likenesses of images that were ``reduced``, None for those too small or too even to have one.

    >>> likenesses([None, np.zeros((32, 32))])
    [None, None]
    """
    found: list[Likeness | None] = [None] * len(small)
    rows = [row for row, one in enumerate(small) if one is not None]
    if not rows:
        return found
    stack = np.stack([one for one in small if one is not None])
    copies = stack.reshape(-1, _SIDE, 2, _SIDE, 2).mean((2, 4))
    frequencies = dctn(stack, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(stack), 64)
    bits = np.packbits(frequencies > np.median(frequencies[:, 1:], axis=1, keepdims=True), axis=1)
    for row, hashed, copy, spread in zip(rows, bits, copies, copies.std((1, 2)), strict=True):
        if spread >= 2:
            found[row] = Likeness(int.from_bytes(hashed.tobytes(), "big"), np.rint(copy).astype(np.uint8).tobytes())
    return found


def near(likenesses: Sequence[Likeness], sides: NDArray[Any], same: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of near duplicates whose ``sides`` differ and which are not the ``same`` already.

    ``sides`` and ``same`` are labels [N]. At most 8 partners are looked at for one image. All hashes of the smaller sides
    are compared with all others, a number of them at a time.
    """
    if len(likenesses) < 2:
        return []
    hashes = np.array([one.bits for one in likenesses], dtype=np.uint64)
    copies = np.array([np.frombuffer(one.copy, dtype=np.uint8) for one in likenesses])
    _, side, counts = np.unique(sides, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(side != counts.argmax())
    chunk = max(1, _MEMORY // len(hashes))
    pairs: set[tuple[int, int]] = set()
    for rows in (queries[at : at + chunk] for at in range(0, len(queries), chunk)):
        signals.look()
        distance = np.bitwise_count(hashes[rows, None] ^ hashes)
        distance[(side[rows, None] == side) | (same[rows, None] == same)] = 255
        found = (distance <= _DISTANCE).any(1)
        rows, distance = rows[found], distance[found]
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :_NEAREST]
        query, rank = np.nonzero(np.take_along_axis(distance, nearest, 1) <= _DISTANCE)
        left, right = rows[query], nearest[query, rank]
        alike = agreement(copies[left], copies[right]) >= _CORRELATION
        pairs.update(zip(np.minimum(left, right)[alike].tolist(), np.maximum(left, right)[alike].tolist(), strict=True))
    return sorted(pairs)


def agreement(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The highest correlation [P] of grey copies [P, 256] with each other, either one also cropped by up to 5 % a side."""
    best = _correlation(_cropped(left, 0), _cropped(right, 0))
    for share in _CROPS:
        best = np.maximum(best, _correlation(_cropped(left, share), _cropped(right, 0)))
        best = np.maximum(best, _correlation(_cropped(left, 0), _cropped(right, share)))
    return best


def merged(groups: NDArray[np.int64], *labels: Sequence[str]) -> NDArray[np.int64]:
    """Groups [N], joined wherever two rows share a label of any kind; a joined group takes its lowest number.

    >>> merged(np.array([0, 1, 2, 3]), ["a", "b", "a", "c"], ["x", "x", "y", "z"])
    array([0, 0, 0, 3])
    """
    count = len(groups)
    columns, nodes = [], count
    for values in (groups, *labels):
        _, node = np.unique(np.asarray(values), return_inverse=True)
        columns.append(node + nodes)
        nodes += int(node.max(initial=-1)) + 1
    ends = np.concatenate(columns)
    starts = np.tile(np.arange(count), len(columns))
    graph = coo_matrix((np.ones(len(ends), dtype=np.int8), (starts, ends)), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    lowest = np.full(nodes, np.iinfo(np.int64).max)
    np.minimum.at(lowest, component[:count], groups)
    return np.asarray(lowest[component[:count]])


def _cropped(copies: NDArray[np.uint8], share: float) -> NDArray[np.float64]:
    at = np.linspace(share * _SIDE, (1 - share) * _SIDE - 1, _SIDE)
    weights = np.clip(1 - np.abs(at[:, None] - np.arange(_SIDE)), 0, 1)
    return np.asarray(weights @ copies.reshape(-1, _SIDE, _SIDE).astype(np.float64) @ weights.T)


def _correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    left = left - left.mean((1, 2), keepdims=True)
    right = right - right.mean((1, 2), keepdims=True)
    spread = np.sqrt((left**2).sum((1, 2)) * (right**2).sum((1, 2)))
    return np.asarray((left * right).sum((1, 2)) / np.maximum(spread, 1e-9))
