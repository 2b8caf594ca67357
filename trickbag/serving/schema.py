"""The shapes of requests and answers, as ``/openapi.json`` tells them."""

from typing import Any

from pydantic import BaseModel

FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
SENTENCES = {
    400: "The form cannot be read",
    401: "The token is missing",
    403: "A page of another site asked",
    404: "There is no such run",
    405: "The address takes another method",
    408: "The request arrived too slowly",
    413: "Too many bytes or images",
    415: "The body is no image",
    421: "Another host was meant",
    422: "No image could be read, or an option is unknown or out of range",
    503: "Too much waits, or the answer took too long: ask again after Retry-After seconds",
}


class Said(BaseModel):
    """Why a request has no answer."""

    error: str


class Class(BaseModel):
    """A class with its probability, 0 to 1."""

    class_: str
    probability: float

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class Box(BaseModel):
    """A box, its class and its score, 0 to 1; in pixels of the upright image, from its left upper corner."""

    class_: str
    score: float
    left: float
    top: float
    right: float
    bottom: float

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class Share(BaseModel):
    """A class with its share of an image's pixels, 0 to 1."""

    class_: str
    share: float

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class Image(BaseModel):
    """An image of the request: its classes, its boxes, or the shares of its regions, or why it could not be read.

    ``predictions`` by a classifier, the most probable first, and ``set`` where it makes sets of classes: all that the image
    may be of. ``boxes`` by a detector, the highest score first; ``shares`` by a segmenter. ``width`` and ``height`` in pixels,
    and ``picture`` where it was asked for, by the last two.
    """

    name: str
    predictions: list[Class] | None = None
    unsure: bool | None = None
    set: list[str] | None = None
    boxes: list[Box] | None = None
    shares: list[Share] | None = None
    width: int | None = None
    height: int | None = None
    picture: str | None = None
    error: str | None = None


class Predicted(BaseModel):
    """The images of a request, in order."""

    run: str
    images: list[Image]


class Explained(BaseModel):
    """Where the network sees a class: ``picture`` is the part of the photo that it sees as a PNG in a data: address."""

    run: str
    name: str
    class_: str
    probability: float
    picture: str

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class Run(BaseModel):
    """A run that is served."""

    name: str
    task: str
    """classification, detection or segmentation."""
    model: str
    pixels: int
    classes: list[str]


class Served(BaseModel):
    """The runs, and what a request may ask for."""

    runs: list[Run]
    threshold: float
    limits: dict[str, float]


REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": Said, "description": text} for status, text in SENTENCES.items()}
