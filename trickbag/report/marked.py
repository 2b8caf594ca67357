"""Photos with what was found in them drawn over: boxes with names, regions in colours with a legend."""

import base64
import colorsys
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trickbag.report.wording import shorten

FIRST = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Colours that those tell apart who see few: Okabe and Ito, "Color Universal Design", 2008."""
TURN = 0.618034
"""Of the circle of hues, from one class to the next: the golden section repeats none."""
COVER = 0.55
"""How much of the photo a region's colour hides."""
SMALLEST = 320
"""Pixels of the longer side of a picture: a smaller photo is enlarged, so that names can be read."""
LENGTH = 40
"""Characters of a name."""


def colour(k: int) -> str:
    """Of a class, as #rrggbb.

    >>> colour(0), colour(7) != colour(8)
    ('#e69f00', True)
    """
    if k < len(FIRST):
        return FIRST[k]
    rgb = colorsys.hsv_to_rgb(TURN * k % 1, 0.6 + 0.3 * (k % 2), 0.95 - 0.3 * (k // 2 % 2))
    return "#" + "".join(f"{round(255 * one):02x}" for one in rgb)


def with_boxes(image: Any, boxes: Sequence[Sequence[float]], names: Sequence[str], colours: Sequence[str]) -> Image.Image:
    """An image uint8 [C, h, w] with boxes (left, top, right, bottom, in its pixels), a name and a colour for each."""
    photo, scale = _photo(image)
    draw, font = ImageDraw.Draw(photo), _font(max(photo.size))
    width = max(2, max(photo.size) // 300)
    placed = [[side * scale for side in box] for box in boxes]
    for (left, top, right, bottom), ink in zip(placed, colours, strict=True):
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=ink, width=width)
    for (left, top, *_), name, ink in zip(placed, names, colours, strict=True):  # above all boxes
        text = shorten(name, LENGTH)
        long, high = font.getbbox(text)[2:]
        x = max(0, min(left, photo.width - long - 4))
        y = top - high - 4 if top >= high + 4 else top
        draw.rectangle((x, y, x + long + 4, y + high + 4), fill=ink)
        draw.text((x + 2, y + 1), text, font=font, fill=_on(ink))
    return photo


def with_regions(image: Any, regions: NDArray[np.uint8], names: Sequence[str], colours: Sequence[str]) -> Image.Image:
    """An image uint8 [C, h, w] with its regions [H, W] in the colours of their classes, and below it a legend of those seen.

    A region of no class, 255, stays as it is.
    """
    photo, _ = _photo(image)
    places = np.asarray(Image.fromarray(regions).resize(photo.size, Image.Resampling.NEAREST))
    table = np.zeros((256, 3))
    table[: len(colours)] = [_rgb(ink) for ink in colours]
    hidden = np.where(places < len(colours), COVER, 0.0)[..., None]
    mixed = np.asarray(photo) * (1 - hidden) + table[places] * hidden
    counts = np.bincount(regions.ravel(), minlength=256)[: len(names)]
    seen = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    return _below(Image.fromarray(mixed.round().astype(np.uint8)), [(names[k], colours[k]) for k in seen])


def _photo(image: Any) -> tuple[Image.Image, float]:
    """The image in colours, and how much larger it is than it was."""
    pixels = np.asarray(image).transpose(1, 2, 0)
    photo = Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]).convert("RGB")
    scale = max(1.0, SMALLEST / max(photo.size))
    return photo.resize((round(photo.width * scale), round(photo.height * scale))) if scale > 1 else photo, scale


def _below(photo: Image.Image, legend: Sequence[tuple[str, str]]) -> Image.Image:
    """The photo on a sheet with a legend, in as many columns as there is room for."""
    font = _font(max(photo.size))
    texts = [shorten(name, LENGTH) for name, _ in legend]
    line = round(font.getbbox("Ág")[3]) + 6
    column = max((round(font.getlength(text)) for text in texts), default=0) + 2 * line
    columns = max(1, photo.width // column)
    sheet = Image.new("RGB", (max(photo.width, column), photo.height + line * -(-len(legend) // columns) + 6), "white")
    sheet.paste(photo)
    draw = ImageDraw.Draw(sheet)
    for n, (text, (_, ink)) in enumerate(zip(texts, legend, strict=True)):
        x, y = n % columns * column + 4, photo.height + 4 + n // columns * line
        draw.rectangle((x, y, x + line - 8, y + line - 8), fill=ink, outline="#1f2933")
        draw.text((x + line, y - 1), text, font=font, fill="#1f2933")
    return sheet


@cache
def _font(side: int) -> ImageFont.FreeTypeFont:
    """For a picture of so many pixels: matplotlib's own, which has most alphabets and is there wherever matplotlib is."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), max(11, min(28, side // 45)))


def _rgb(ink: str) -> tuple[int, int, int]:
    return int(ink[1:3], 16), int(ink[3:5], 16), int(ink[5:7], 16)


def _on(ink: str) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = _rgb(ink)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def address(image: Image.Image) -> str:
    """The image in an address of its own, as a page takes it: a JPEG."""
    image.save(file := io.BytesIO(), "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
