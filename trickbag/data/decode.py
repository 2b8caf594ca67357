"""Bytes -> uint8 pixels: the only place that opens an image.

The format is told from the first bytes and only its own reader of Pillow is asked; the size is judged before any pixel is
decoded. The picture comes upright (EXIF), in 8 bits, without transparency (over white), in RGB or luminance.
Safe to call from many threads at once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from trickbag.data.guards import quiet, strict
from trickbag.data.members import followed
from trickbag.data.sniff import (
    HEAD,
    RAW_SUFFIXES,
    SUFFIXES,
    Unreadable,
    check_directories,
    check_jpeg_end,
    check_jpeg_scans,
    sniff,
    webp_size,
)
from trickbag.ground import files

__all__ = ["Decoded", "Unreadable", "decode", "opened", "stored", "upright"]

# Pillow's readers are called by themselves: Image.open would try others, and warns about sizes that are judged here.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
TWELVE_BITS = 4095
"""The largest value of cameras that write twelve bits into sixteen."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _BITS, _SUBFILE, _SUBDIRECTORIES, _DNG = 0x0112, 258, 254, 330, 50706


class Decoded(NamedTuple):
    """The pixels of one image, and what was done to get them."""

    pixels: Tensor
    """uint8 [C, H, W], contiguous."""
    notes: tuple[str, ...]
    """Such as ``PNG named .jpg``, ``first frame of several``, ``transparency over white``."""
    size: tuple[int, int]
    """Height and width of the upright picture in the file, which may be larger than the pixels."""


def decode(
    source: Path | bytes | BinaryIO, channels: int | None = 3, limit_pixels: int = 50_000_000, shorter: int = 0
) -> Decoded:
    r"""The picture in a file, in bytes, or in an open binary file that can seek.

    ``channels`` 1 gives luminance, 3 RGB; more are the bands of a TIFF or of a ``.npy`` array [H, W, C], as they are;
    None means as the file has them, 1 where it is grey. Images of more than ``limit_pixels`` pixels are refused from the
    header. With ``shorter`` > 0 a JPEG may come scaled down by 2, 4 or 8, its shorter side still at least ``shorter`` pixels.

    Raises ``Unreadable`` with a short reason, and nothing else, for whatever the file holds.

    >>> decode(b"P5 2 1 255 \x00\xff", channels=1).pixels
    tensor([[[  0, 255]]], dtype=torch.uint8)
    """
    if isinstance(source, Path):
        with opened(source) as file:
            return decode(file, channels, limit_pixels, shorter)
    file = BytesIO(source) if isinstance(source, bytes) else source
    file.seek(0)
    kind = sniff(file.read(HEAD))
    name = getattr(file, "name", None)
    suffix = Path(name).suffix.lower() if isinstance(name, str | os.PathLike) else None
    if kind == "TIFF" and suffix in RAW_SUFFIXES:
        raise Unreadable("unsupported: RAW; convert with dcraw or darktable")
    notes = []
    if suffix is not None and suffix not in SUFFIXES[kind]:
        notes.append(f"{kind} named {suffix}" if suffix else f"{kind} without an extension")
    with _guarded(file, kind):
        if kind == "NPY":
            values = _array(file, limit_pixels, notes)
            return Decoded(_to_tensor(values, channels), tuple(notes), (values.shape[0], values.shape[1]))
        return _picture(file, kind, channels, limit_pixels, shorter, notes)


def stored(file: BinaryIO, kind: str, limit_pixels: int = 50_000_000) -> Image.Image:
    """The picture of a file of this kind (``sniff``; no array) with its values as they stand there, upright.

    Raises ``Unreadable`` as ``decode`` does.
    """
    with _guarded(file, kind):
        return upright(_loaded(file, kind, limit_pixels, 0, [])[0], [])


@contextmanager
def _guarded(file: BinaryIO, kind: str) -> Iterator[None]:
    """Whatever a reader raises inside is ``Unreadable``, with a reason."""
    try:
        with quiet(), strict():
            yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(_reason(error, file, kind)) from error


def opened(path: Path) -> BinaryIO:
    """The file, open for reading in bytes, or the member of a tar for which it stands; ``Unreadable`` unless it is a regular
    file that may be read.

    A FIFO, socket, device or folder is never opened, so nothing can hang here.
    """
    try:
        return followed(files.regular(path))
    except OSError as error:
        raise Unreadable(f"unreadable: {files.reason(error)}") from error


def _picture(file: BinaryIO, kind: str, channels: int | None, limit_pixels: int, shorter: int, notes: list[str]) -> Decoded:
    image, (width, height) = _loaded(file, kind, limit_pixels, shorter, notes)
    top = 2 ** image.tag_v2.get(_BITS, (16,))[0] - 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else 65535
    picture = upright(image, notes)
    size = (height, width) if picture.size == image.size else (width, height)
    if kind == "JPEG" and picture.mode == "CMYK" and "adobe" not in image.info:
        picture = ImageChops.invert(picture)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    if channels is not None and channels > 3:
        return Decoded(_to_tensor(np.asarray(picture), channels), tuple(notes), size)
    pixels = _plain(picture, top, notes, image.info.get("transparency"))
    return Decoded(_to_tensor(pixels, channels), tuple(notes), size)


def _loaded(
    file: BinaryIO, kind: str, limit_pixels: int, shorter: int, notes: list[str]
) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """The picture as it is stored, and its width and height in the file, which are judged before its pixels are decoded."""
    if kind == "WEBP":  # its reader makes room for the whole canvas before it tells the size
        _check_size(webp_size(file), limit_pixels)
    elif kind == "TIFF":
        check_directories(file)
    elif kind == "JPEG":
        check_jpeg_end(file)
    file.seek(0)
    image = _READERS[kind](file, "")
    _check_size(image.size, limit_pixels)
    if "progressive" in image.info:
        check_jpeg_scans(file)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and _is_raw(image):
        raise Unreadable("unsupported: RAW; convert with dcraw or darktable")
    if getattr(image, "is_animated", False):
        notes.append("first frame of several")
    size = image.size
    if shorter > 0 and kind == "JPEG":
        image.draft(None, (shorter, shorter))
    image.load()
    return image, size


def _check_size(size: tuple[int, int], limit_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise Unreadable("broken: no pixels")
    if width * height > limit_pixels:
        raise Unreadable(f"too large: {width} x {height} pixels; the limit is {limit_pixels / 1e6:g} million")


def _is_raw(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Camera files are TIFFs that open with a small preview and keep the picture in a sub-directory."""
    tags = image.tag_v2
    return _DNG in tags or (_SUBDIRECTORIES in tags and bool(tags.get(_SUBFILE, 0) & 1))


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """The picture as the camera says that it was held; a broken note is left and told."""
    try:
        block = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
        orientation = None if block and block[:4] not in (b"II*\0", b"MM\0*") else image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - whatever a broken block makes its parser raise, the pixels are good
        orientation = None
    if orientation not in (1, *_UPRIGHT):
        notes.append("broken EXIF ignored")
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _plain(picture: Image.Image, top: int, notes: list[str], transparent: Any) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3] in 8 bits, over white."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        grey = _eight_bits(values, top, notes)
        if isinstance(transparent, int):
            notes.append("transparency over white")
            grey = np.where(values == transparent, np.uint8(255), grey)
        return grey
    if picture.mode == "LAB":
        raise Unreadable("unsupported: LAB colours; convert with ImageMagick")
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        notes.append("transparency over white")
        picture = picture.convert("LA").convert("RGBA") if picture.mode == "La" else picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def _eight_bits(values: NDArray[Any], top: int, notes: list[str]) -> NDArray[np.uint8]:
    """Values of any type by their range: integers from 0 to ``top``, floats from 0 to 1, else from lowest to highest."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise Unreadable("broken: NaN or infinite values")
    if values.dtype.kind == "f":
        low, high, note = (0.0, 1.0, "") if low >= 0 and high <= 1 else (low, high, " from lowest to highest")
        notes.append(f"floats scaled{note}")
    elif values.dtype.itemsize > 2 and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    elif low >= 0 and high <= 65535:
        notes.append("16-bit scaled" if high > TWELVE_BITS else "16-bit scaled, though no value takes more than 12 bits")
        low, high = 0.0, float(top if values.dtype.itemsize == 2 else 65535)
    else:
        notes.append("integers scaled from lowest to highest")
    scaled = (values.astype(np.float64) - low) * (255 / (high - low or 1))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _array(file: BinaryIO, limit_pixels: int, notes: list[str]) -> NDArray[np.uint8]:
    """The array [H, W] or [H, W, C] of a ``.npy`` file; objects, that is pickles, are refused."""
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "uf" or dtype.itemsize > 8:
        raise Unreadable(f"unsupported: array of {dtype.name}; convert with astype to uint8, uint16 or float32")
    if len(shape) not in (2, 3) or 0 in shape:
        raise Unreadable(f"broken: an array of shape {shape} is not an image [H, W, C]")
    _check_size((shape[1], shape[0]), limit_pixels)
    start = file.tell()
    if file.seek(0, os.SEEK_END) - start < dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise Unreadable("truncated")
    file.seek(0)
    return _eight_bits(np.load(file, allow_pickle=False), 65535, notes)


def _to_tensor(pixels: NDArray[np.uint8], channels: int | None) -> Tensor:
    bands = pixels[..., None] if pixels.ndim == 2 else pixels
    have = bands.shape[2]
    if channels is None and have == 3 and (bands == bands[..., :1]).all():
        bands = bands[..., :1]
    elif channels == 3 and have == 1:
        bands = np.repeat(bands, 3, axis=2)
    elif channels == 1 and have == 3:
        bands = np.asarray(Image.fromarray(bands).convert("L"))[..., None]
    elif channels not in (None, have):
        raise Unreadable(f"has {have} channels, not {channels}")
    return torch.from_numpy(np.array(bands.transpose(2, 0, 1), dtype=np.uint8, order="C"))


def _reason(error: Exception, file: BinaryIO, kind: str) -> str:
    """Truncated, if the end that the format demands is missing, else what the reader said."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1024))
    tail = file.read()
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
    said = " ".join(str(error).split())[:100]
    if (kind in ends and ends[kind] not in tail) or "truncat" in said.lower() or "eof" in said.lower():
        return "truncated"
    file.seek(4)
    if kind == "WEBP" and int.from_bytes(file.read(4), "little") + 8 > size:
        return "truncated"
    return f"broken: {said or type(error).__name__}"
