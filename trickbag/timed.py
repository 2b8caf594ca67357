"""Tricks that let another trick act for a part of training; all else that they are asked, that one answers."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, InstanceOf, SerializeAsAny

from trickbag.trick import PLUG_POINTS, Trick

IN_STEPS = frozenset(
    {"window", "mirror", "augment", "views", "versions", "setup", "order", "size", "batch_size", "lr", "batch", "forward"}
    | {"loss", "weights", "select", "penalty", "gradient", "update"}
)
"""Plug points that are asked anew in each step or epoch; ``setup``, which all have, changes nothing by itself."""
OF_HELD = frozenset(PLUG_POINTS) | {
    *("name", "plugs", "state", "others", "place", "stage", "slot", "stilled", "begins", "networks", "folder"),
    *("keeps", "before", "needs", "undone", "rebuilds", "brings", "alters"),
    "reads_features",
}
"""What the trick that is held says in place of the one that holds it."""


def _in_steps(trick: Any) -> Any:
    if not isinstance(trick, Trick):
        raise ValueError("give a trick, such as mixup or label_smoothing(eps=0.1)")
    lasting = [point for point in trick.plugs() if point not in IN_STEPS]
    if lasting:
        raise ValueError(
            f"{trick} acts at {' and '.join(map(repr, lasting))}, once for all of training, and so cannot begin or end within "
            "it. What acts in each step can, such as mixup, flip or label_smoothing"
        )
    if "versions" in trick.plugs() and trick.versions():
        raise ValueError(f"{trick} fixes the images of all epochs, and so cannot begin or end within them. Write cached=False")
    return trick


class Timed(Trick):
    """Lets a trick act in a part of training; elsewhere training is as without it, and draws of others are the same."""

    positional: ClassVar[tuple[str, ...]] = ("trick", "share")
    trick: Annotated[SerializeAsAny[InstanceOf[Trick]], BeforeValidator(_in_steps)]
    """A trick that acts in steps of training."""
    share: Annotated[float, Field(ge=0, le=1)]
    """Share of training at which the trick ends or begins to act."""

    def model_post_init(self, _: Any) -> None:
        """Refuse what would never act."""
        if 0 < self.share < 1 and self.trick.begin() < 1 and self.begin() >= self.span[1]:
            begin, end = max(self.span[0], self.trick.begin()), self.span[1]
            raise ValueError(f"it would never act, from {begin:g} of training to {end:g}. Choose another share")

    @property
    def core(self) -> Trick:
        """The trick that is held, at any depth."""
        return self.trick.core

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Any:
            return getattr(self.trick, name) if name in OF_HELD else super().__getattribute__(name)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name in type(self).model_fields:
                return super().__getattr__(name)
            return getattr(self.trick, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Run state is that of the trick that is held."""
        setattr(self.trick, name, value)


def phases(tricks: Sequence[Trick]) -> Iterator[tuple[float, tuple[Trick, ...]]]:
    """The parts of training in which the same tricks act: each one's share of training, and its tricks as if they always did.

    >>> from trickbag.tricks import parse
    >>> [(share, [*map(str, own)]) for share, own in phases([parse("flip"), parse("until(mixup, 0.75)")])]
    [(0.75, ['flip', 'mixup']), (0.25, ['flip'])]
    """
    moments = sorted({moment for trick in tricks for moment in trick.span} | {0.0, 1.0})
    for begin, end in pairwise(moments):
        yield end - begin, tuple(trick.core for trick in tricks if trick.acts(begin))


def edited(trick: Trick, **fields: Any) -> Trick:
    """The trick with other values of some fields, each its own or that of a trick that it holds.

    >>> from trickbag.tricks import parse
    >>> str(edited(parse("until(mixup, 0.9)"), alpha=0.4, share=0.5))
    'until(mixup(alpha=0.4), 0.5)'
    """
    values = {name: getattr(trick, name) for name in type(trick).model_fields}
    if isinstance(trick, Timed):
        own = {n: v for n, v in fields.items() if n in values and n not in type(trick.core).model_fields}
        inner = {n: v for n, v in fields.items() if n not in own}
        return type(trick)(**values | {"trick": edited(trick.trick, **inner)} | own)
    return type(trick)(**values | fields)
