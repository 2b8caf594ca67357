"""A request's body as images nobody has looked at: names are labels to show, and never those of files to open."""

from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from trickbag.ground.text import clipped, show
from trickbag.serving.limits import Limits, Refused

FIELDS = 16
TYPES = "Send photos as multipart/form-data, or one photo as image/jpeg, image/png … or application/octet-stream"


class Upload(NamedTuple):
    """An image as it came."""

    name: str
    content: bytes


class _Form(MultiPartParser):
    """Parts that stay in memory, up to a number of them."""

    def __init__(self, request: Request, limits: Limits) -> None:
        super().__init__(request.headers, request.stream(), max_files=limits.images, max_fields=FIELDS, max_part_size=1024)
        self.spool_max_size = limits.bytes
        self.most, self.parts = limits.images, 0

    def on_part_begin(self) -> None:
        self.parts += 1
        if self.parts > self.most:
            raise Refused(413, f"One request may bring {self.most:,} images. Send them in several.")
        super().on_part_begin()


async def uploads(request: Request, limits: Limits) -> list[Upload]:
    """The images of a request, in order. Raises Refused for a body of another kind, of no image or of too many."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = [await _upload(name, part) for name, part in await _parts(request, limits)]
    elif kind.startswith("image/") or kind == "application/octet-stream":
        content = await request.body()
        found = [Upload("image", content)] if content else []
    else:
        raise Refused(415, f"The content type {clipped(show(kind)) or '(none)'} is no image. {TYPES}.")
    if not found:
        raise Refused(422, f"The request brings no image. {TYPES}.")
    return found


async def _parts(request: Request, limits: Limits) -> list[tuple[str, Any]]:
    try:
        return (await _Form(request, limits).parse()).multi_items()
    except (MultiPartException, ValueError, LookupError):  # also of text codecs that a hostile form names
        raise Refused(400, "The form cannot be read: it breaks off, or is not as multipart/form-data has it.") from None


async def _upload(name: str, part: Any) -> Upload:
    if not isinstance(part, UploadFile):
        raise Refused(422, f"The field {clipped(show(name))} holds text, not a file. Options go into the address.")
    return Upload(show(clipped(part.filename or "image", 200)), await part.read())
