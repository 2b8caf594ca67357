"""Label images as they are stored: a grey value or a place in the palette for every pixel, which no colour may change."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from trickbag.data.decode import Unreadable, opened, stored
from trickbag.data.sniff import HEAD, sniff

IGNORED = 255
"""The class number of pixels that are neither trained on nor judged, and their usual value in label images."""
_KINDS = ("PNG", "BMP", "GIF", "TIFF")
"""Formats that keep every value."""


def raw(path: Path) -> npt.NDArray[np.uint8]:
    """The values [H, W] of a label image, upright: grey values as in the file, or places in the palette.

    Raises ``Unreadable`` for what is no image, has colours or values above 255, or comes in a format that alters values.
    """
    with opened(path) as file:
        kind = sniff(file.read(HEAD))
        if kind not in _KINDS:
            raise Unreadable(f"{kind} alters the values of label images; save them as PNG")
        image = stored(file, kind)
        file.seek(24)
        bits = file.read(1)[0] if kind == "PNG" else 8
    values = np.asarray(image)
    if image.mode in ("RGB", "RGBA") and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    elif image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise Unreadable("has colours, not class numbers; save it with a palette or in grey")
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > IGNORED:
        raise Unreadable(f"has values from {least:,} to {most:,}; class numbers go from 0 to 254, and 255 is ignored")
    if image.mode == "L" and bits < 8:  # Pillow spreads fewer bits over 0 to 255
        values = values // (IGNORED // (2**bits - 1))
    return values.astype(np.uint8)
