"""Photos as small pictures: decoded, made small and encoded anew, so that nothing else of the file goes along."""

import base64
import io
from pathlib import Path

from torchvision.transforms.v2 import functional as F

from trickbag.data.decode import Unreadable, decode, opened
from trickbag.data.facts import content_of

SIDE = 128
"""Pixels of the longer side."""


def thumbnail(path: Path, content: str) -> str:
    """The whole image as a small JPEG's data URI; empty where the file is not there or no longer has this content."""
    try:
        with opened(path) as file:
            if content_of(file) != content:
                return ""
            pixels = decode(file, None, shorter=2 * SIDE).pixels
    except (Unreadable, OSError):
        return ""
    colours = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    height, width = colours.shape[-2:]
    scale = min(1, SIDE / max(height, width))
    small = F.resize(colours, [max(1, round(scale * height)), max(1, round(scale * width))], antialias=True)
    F.to_pil_image(small).save(jpeg := io.BytesIO(), "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
