"""Images in any form, a few at a time and in order, with what could not be read told."""

from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

from trickbag.data.sniff import Unreadable
from trickbag.data.sources import Source, sources
from trickbag.engine.pixels import ahead
from trickbag.ground import signals
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import Note, Tell
from trickbag.ground.text import counted

T = TypeVar("T")


def batches(
    images: Any,
    read: Callable[[Source], T],
    size: int,
    *,
    on_bad: Literal["skip", "error"] = "error",
    without: Container[str] = (),
    tell: Tell,
) -> Iterator[list[tuple[str, T]]]:
    """Names of images, and what is ``read`` of each, ``size`` at a time; no more than a few batches are held.

    ``images`` as ``trickbag.data.sources.sources`` takes them. What cannot be read is an error after those before it, or with
    ``on_bad="skip"`` left out and told; names in ``without`` are left out. Raises TrickbagError at what cannot be read, and
    UsageError for what is no image at all.
    """
    attempted = ahead(partial(_attempt, read), _ended(sources(images, tell), without), 2, size)
    batch, bad, failed = list[tuple[str, T]](), 0, None
    for name, found, why in attempted:
        signals.look()
        if why is None:
            batch.append((name, found[0]))
        elif isinstance(why, TrickbagError) or on_bad == "error":
            failed = why if isinstance(why, TrickbagError) else unreadable(name, why)
            break
        else:
            bad += 1
            tell(Note(f"{name} is left out: {why}"))
        if len(batch) == size:
            made, batch = batch, []
            yield made
    if batch:
        yield batch
    if failed:
        raise failed
    if bad:
        tell(Note(f"{counted(bad, 'image')} could not be read and {'has' if bad == 1 else 'have'} no prediction"))


def _attempt(read: Callable[[Source], T], source: Source | TrickbagError) -> tuple[str, list[T], TrickbagError | str | None]:
    """The name of an image, and what is read of it or why nothing is; what ended the images as it is."""
    if isinstance(source, TrickbagError):
        return "", [], source
    try:
        return source.name, [read(source)], None
    except (Unreadable, OSError) as error:
        return source.name, [], str(error)


def unreadable(name: str, why: object) -> TrickbagError:
    """An image that nothing can be said of."""
    return TrickbagError(f"{name} cannot be predicted: {why}.")


def _ended(images: Iterator[Source], without: Container[str]) -> Iterator[Source | TrickbagError]:
    """The images, and last the error that ended them: those before it are being read when it comes."""
    try:
        yield from (image for image in images if image.name not in without)
    except TrickbagError as error:
        yield error
