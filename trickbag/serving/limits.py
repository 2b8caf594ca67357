"""What a server takes, and how it says no."""

from typing import NamedTuple

from trickbag.ground.errors import UsageError


class Limits(NamedTuple):
    """How much one request may ask for."""

    images: int
    """Images of a request."""
    megabytes: float
    """Of a request's body, 1e6 bytes each."""
    megapixels: float
    """Of an image, 1e6 pixels each."""
    seconds: float
    """For a request to arrive, and again for its answer."""
    queue: int
    """Requests that wait for a run or are being answered by it."""

    @property
    def bytes(self) -> int:
        """Of a request's body."""
        return round(self.megabytes * 1e6)

    def checked(self) -> "Limits":
        """The limits themselves. Raises UsageError where one lets nothing through."""
        for name, value in self._asdict().items():
            if not 0 < value < 1e9:
                raise UsageError(f"{name} {value}: write a number above 0.")
        return self


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered with a status of 400 to 503 and one sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def busy(sentence: str) -> Refused:
    """A refusal that holds for the moment."""
    return Refused(503, sentence, retry_after="1")
