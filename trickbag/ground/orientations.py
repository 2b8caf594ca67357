"""The eight ways to lay a square."""

from itertools import product

from torch import Tensor

Way = tuple[bool, bool, bool]
"""Whether an image is transposed, then turned upside down, then left to right."""


def ways(left_right: bool, up_down: bool, turns: bool) -> list[Way]:
    """All that mirroring and quarter turns, as far as allowed, make of a square; the first leaves it as it is.

    >>> ways(False, False, True)
    [(False, False, False), (False, True, True), (True, False, True), (True, True, False)]
    """
    every = list(product((False, True), repeat=3))
    if turns:
        return [(t, v, h) for t, v, h in every if left_right or up_down or t == (v != h)]
    return [(t, v, h) for t, v, h in every if not t and v <= up_down and h <= left_right]


def laid(x: Tensor, way: Way) -> Tensor:
    """Images [..., H, W] laid another way [..., H, W], or [..., W, H] where they are transposed.

    >>> import torch
    >>> laid(torch.tensor([[1, 2], [3, 4]]), (True, True, False))
    tensor([[2, 4],
            [1, 3]])
    """
    transposed, up_down, left_right = way
    x = x.transpose(-2, -1) if transposed else x
    x = x.flip(-2) if up_down else x
    return x.flip(-1) if left_right else x
