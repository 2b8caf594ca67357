"""A run at work: its network in a thread of its own, which answers one request after another."""

import asyncio
import base64
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Event
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from trickbag.data.decode import Unreadable, decode
from trickbag.engine.pixels import ahead, fitted
from trickbag.ground.errors import TrickbagError
from trickbag.report import figures, marked
from trickbag.runs.classifier import Classifier
from trickbag.serving.limits import Limits, Refused, busy
from trickbag.serving.uploads import Upload
from trickbag.transfers.predictor import SURE, Box, Detection, Photo, Predictor

BATCH = 8
"""Images looked at together."""
READERS = 2
"""Threads that decode the next images meanwhile."""
DRAWN = 600
"""Pixels of the shorter side of a picture with boxes or regions, at most."""
A = TypeVar("A")
P = TypeVar("P")


class Wish(NamedTuple):
    """What a request wants to know of its images."""

    top: int
    """Classes of each image."""
    threshold: float | None
    """None for what the run takes by itself."""
    picture: bool
    """Whether boxes and regions are drawn, too."""


class Desk(ABC, Generic[P]):
    """One run. At most ``limits.queue`` requests are with it, waiting or being answered."""

    task: str

    def __init__(self, name: str, limits: Limits) -> None:
        self.name, self.limits = name, limits
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(torch.get_num_threads).result()  # settles the number for the network, before decoding has any
        self._places = BoundedSemaphore(limits.queue)
        self._closed = Event()

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What a client needs to know of the run."""

    def _named(self, model: str, pixels: int, classes: Sequence[str]) -> dict[str, Any]:
        return {"name": self.name, "task": self.task, "model": model, "pixels": pixels, "classes": classes}

    @abstractmethod
    def _pixels(self, image: Upload) -> P:
        """An image as the network keeps it: of a large one no more stays in memory. Raises Unreadable."""

    @abstractmethod
    def _judge(self, batch: Sequence[tuple[dict[str, Any], P]], wish: Wish) -> None:
        """Complete the entries of a batch."""

    @abstractmethod
    async def explain(self, image: Upload, name: str) -> dict[str, Any]:
        """The class that is looked for in an image, and a picture of where. Raises Refused where there is none to make."""

    async def turn(self, work: Callable[[Callable[[], None]], A]) -> A:
        """What ``work`` returns, called in the run's thread when its turn has come; it is handed what it calls between images.

        Raises Refused where too many wait, and where it takes too long: the answer does not wait for the thread.
        """
        if not self._places.acquire(blocking=False):
            raise busy(f"{self.limits.queue} requests are with {self.name} already. Ask again in a moment.")
        end = time.monotonic() + self.limits.seconds

        def look() -> None:
            if time.monotonic() > end or self._closed.is_set():
                raise self._late()

        task = self._thread.submit(work, look)
        task.add_done_callback(lambda _: self._places.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(task), self.limits.seconds)
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> Refused:
        return busy(f"{self.name} had no answer within {self.limits.seconds:g} s. Send fewer images, or ask again in a moment.")

    def close(self) -> None:
        """End the thread after the batch that it is at."""
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)

    async def predict(self, images: Sequence[Upload], wish: Wish) -> list[dict[str, Any]]:
        """An entry for each image, in order: what is in it, or why that is not known."""

        def work(look: Callable[[], None]) -> list[dict[str, Any]]:
            found, batch = list[dict[str, Any]](), list[tuple[dict[str, Any], P]]()
            for entry, pixels in ahead(self._read, images, READERS, BATCH):
                look()
                found.append(entry)
                if pixels is not None:
                    batch.append((entry, pixels))
                if len(batch) == BATCH:
                    self._judge(batch, wish)
                    batch = []
            self._judge(batch, wish)
            return found

        return await self.turn(work)

    def _read(self, image: Upload) -> tuple[dict[str, Any], P | None]:
        """The entry of an image to be, and its pixels; without those it holds the reason."""
        try:
            return {"name": image.name}, self._pixels(image)
        except Unreadable as error:
            return {"name": image.name, "error": f"{image.name} cannot be read: {error}."}, None


class ClassifierDesk(Desk[Tensor]):
    """A classifier."""

    task = "classification"

    def __init__(self, name: str, classifier: Classifier, limits: Limits) -> None:
        classifier.check_apart()
        super().__init__(name, limits)
        self.classifier = classifier

    def card(self) -> dict[str, Any]:
        """What a client needs to know of the run."""
        card = self.classifier.card
        return self._named(card.model, card.size, self.classifier.classes)

    async def explain(self, image: Upload, name: str) -> dict[str, Any]:
        """The class that is looked for in an image, and a picture of where. Raises Refused where there is none to make."""

        def work(look: Callable[[], None]) -> dict[str, Any]:
            look()
            try:
                found = self.classifier.look(image.name, self._pixels(image), name)
            except Unreadable as error:
                raise Refused(422, f"{image.name} cannot be read: {error}.") from None
            except TrickbagError as error:
                raise Refused(422, str(error)) from None
            picture = base64.b64encode(figures.glow(found.image, found.map)).decode()
            address = f"data:image/png;base64,{picture}"
            return {"name": image.name, "class": found.name, "probability": round(found.probability, 6), "picture": address}

        return await self.turn(work)

    def _judge(self, batch: Sequence[tuple[dict[str, Any], Tensor]], wish: Wish) -> None:
        try:
            named = [(entry["name"], pixels) for entry, pixels in batch]
            made = list(self.classifier.best(named, wish.top, wish.threshold or 0.0))
        except TrickbagError as error:
            for entry, _ in batch:
                entry["error"] = str(error)
            return
        for (entry, _), found in zip(batch, made, strict=True):
            pairs = zip(found.classes, found.probabilities, strict=True)
            entry["predictions"] = [{"class": name, "probability": round(value, 6)} for name, value in pairs]
            entry["unsure"] = found.unsure
            if found.set is not None:
                entry["set"] = found.set

    def _pixels(self, image: Upload) -> Tensor:
        card, most = self.classifier.card, round(self.limits.megapixels * 1e6)
        return fitted(decode(image.content, card.channels, most, card.kept).pixels, self.classifier.fit, card.kept)


class MarksDesk(Desk[Photo]):
    """A detector or a segmenter."""

    def __init__(self, name: str, model: Predictor, limits: Limits) -> None:
        super().__init__(name, limits)
        self.model, self.task, self.most = model, model.task, round(limits.megapixels * 1e6)

    def card(self) -> dict[str, Any]:
        """What a client needs to know of it."""
        card = self.model.card
        return self._named(card.head, card.size, self.model.classes)

    async def explain(self, image: Upload, name: str) -> dict[str, Any]:
        """There is nothing to explain: a place is what it answers."""
        raise Refused(422, f"{self.name} is no classifier. POST /predict?picture=true says where things are.")

    def _pixels(self, image: Upload) -> Photo:
        return self.model.as_seen(image.content, self.most)

    def _judge(self, batch: Sequence[tuple[dict[str, Any], Photo]], wish: Wish) -> None:
        least = SURE if wish.threshold is None else wish.threshold
        found = self.model.look([photo for _, photo in batch])
        for (entry, photo), one in zip(batch, found, strict=True):
            said = self.model.said(entry["name"], one, least)
            entry["height"], entry["width"] = photo.size
            if isinstance(said, Detection):
                entry["boxes"] = [rounded(box) for box in said.boxes]
            else:
                entry["shares"] = [{"class": name, "share": round(share, 6)} for name, share in said.shares.items()]
            if wish.picture:
                pixels = fitted(decode(photo.content, len(self.model.card.mean), self.most, DRAWN).pixels, "crop", DRAWN)
                entry["picture"] = marked.address(self.model.drawn(pixels, photo.size, said))


def rounded(box: Box) -> dict[str, Any]:
    """A box in JSON."""
    sides = {side: round(getattr(box, side), 2) for side in ("left", "top", "right", "bottom")}
    return {"class": box.name, "score": round(box.score, 6), **sides}
