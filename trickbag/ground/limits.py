"""Ranges that draws are made from."""

Range = tuple[float, float]
"""A smallest and a largest value."""


def rising(limits: Range) -> Range:
    """The same range. Raises ValueError where the first value is above the second.

    >>> rising((0.1, 0.8))
    (0.1, 0.8)
    """
    if limits[0] > limits[1]:
        raise ValueError(f"the first value, {limits[0]}, must be at most the second, {limits[1]}")
    return limits
