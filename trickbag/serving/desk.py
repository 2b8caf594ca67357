"""A run at work: its classifier in a thread of its own, which answers one request after another."""

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Event
from typing import Any, TypeVar

import torch
from torch import Tensor

from trickbag.data.decode import Unreadable, decode
from trickbag.engine.pixels import ahead, fitted
from trickbag.ground.errors import TrickbagError
from trickbag.report import figures
from trickbag.runs.classifier import Classifier
from trickbag.serving.limits import Limits, Refused, busy
from trickbag.serving.uploads import Upload

BATCH = 8
"""Images looked at together."""
READERS = 2
"""Threads that decode the next images meanwhile."""
A = TypeVar("A")


class Desk:
    """One run. At most ``limits.queue`` requests are with it, waiting or being answered."""

    def __init__(self, name: str, classifier: Classifier, limits: Limits) -> None:
        self.name, self.classifier, self.limits = name, classifier, limits
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(torch.get_num_threads).result()  # settles the number for the network, before decoding has any
        self._places = BoundedSemaphore(limits.queue)
        self._closed = Event()

    def card(self) -> dict[str, Any]:
        """What a client needs to know of the run."""
        card = self.classifier.card
        return {"name": self.name, "model": card.model, "pixels": card.size, "classes": self.classifier.classes}

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

    async def predict(self, images: Sequence[Upload], top: int, threshold: float) -> list[dict[str, Any]]:
        """An entry for each image, in order: its classes, or why it has none."""

        def work(look: Callable[[], None]) -> list[dict[str, Any]]:
            found, batch = list[dict[str, Any]](), list[tuple[dict[str, Any], Tensor]]()
            for entry, pixels in ahead(self._read, images, READERS, BATCH):
                look()
                found.append(entry)
                if pixels is not None:
                    batch.append((entry, pixels))
                if len(batch) == BATCH:
                    self._judge(batch, top, threshold)
                    batch = []
            self._judge(batch, top, threshold)
            return found

        return await self.turn(work)

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

    def _read(self, image: Upload) -> tuple[dict[str, Any], Tensor | None]:
        """The entry of an image to be, and its pixels; without those it holds the reason."""
        try:
            return {"name": image.name}, self._pixels(image)
        except Unreadable as error:
            return {"name": image.name, "error": f"{image.name} cannot be read: {error}."}, None

    def _judge(self, batch: Sequence[tuple[dict[str, Any], Tensor]], top: int, threshold: float) -> None:
        """Complete the entries of a batch."""
        try:
            made = list(self.classifier.best([(entry["name"], pixels) for entry, pixels in batch], top, threshold))
        except TrickbagError as error:
            for entry, _ in batch:
                entry["error"] = str(error)
            return
        for (entry, _), found in zip(batch, made, strict=True):
            pairs = zip(found.classes, found.probabilities, strict=True)
            entry["predictions"] = [{"class": name, "probability": round(value, 6)} for name, value in pairs]
            entry["unsure"] = found.unsure

    def _pixels(self, image: Upload) -> Tensor:
        """As the network keeps it: of a large image no more stays in memory. Raises Unreadable."""
        card, most = self.classifier.card, round(self.limits.megapixels * 1e6)
        return fitted(decode(image.content, card.channels, most, card.kept).pixels, self.classifier.fit, card.kept)
