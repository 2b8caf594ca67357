"""What a file is, by its first bytes: one of the formats that are opened, or the reason why it is not.

Names are never trusted and nothing is handed to a library before it stands on the list here.
"""

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import BinaryIO, Literal

from trickbag.ground.errors import TrickbagError

HEAD = 512
"""How many of a file's first bytes ``sniff`` needs."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "NPY": (".npy",),
}
"""The formats that are opened, each with the endings of its files."""

RAW_SUFFIXES = (".3fr", ".arw", ".cr2", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".pef", ".raw", ".sr2", ".srw")

_OPENED = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x93NUMPY", "NPY"),
)
_TO_CONVERT = (
    (b"\xff\x0a", "JPEG XL", "djxl"),
    (b"\0\0\0\x0cJXL ", "JPEG XL", "djxl"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000", "opj_decompress"),
    (b"\xff\x4f\xff\x51", "JPEG 2000", "opj_decompress"),
    (b"%PDF", "PDF", "pdftoppm"),
    (b"8BPS", "Photoshop", "ImageMagick"),
    (b"\0\0\1\0", "icon", "ImageMagick"),
    (b"FUJIFILMCCD-RAW", "RAW", "dcraw or darktable"),
    (b"IIRO", "RAW", "dcraw or darktable"),
    (b"IIRS", "RAW", "dcraw or darktable"),
    (b"MMOR", "RAW", "dcraw or darktable"),
    (b"IIU\0", "RAW", "dcraw or darktable"),
    (b"II\x1a\0\0\0HEAPCCDR", "RAW", "dcraw or darktable"),
    (b"FOVb", "RAW", "dcraw or darktable"),
)
_REFUSED = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"PK\3\4", "ZIP"),
    (b"PK\5\6", "ZIP"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x1f\x8b", "gzip"),
    (b"\x80\2", "a pickle"),
    (b"\x80\3", "a pickle"),
    (b"\x80\4", "a pickle"),
    (b"\x80\5", "a pickle"),
)
_JPEG_END = b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


class Unreadable(TrickbagError):  # noqa: N818 - what the caller reads is a state of the file
    """A file that gives no pixels; the message is the short reason: ``truncated``, ``empty``, ``not an image: ZIP`` …"""


def sniff(head: bytes) -> str:
    """The format, a key of ``SUFFIXES``, of a file that begins with these (at least ``HEAD``, or all its) bytes.

    Raises ``Unreadable`` for everything else, with the remedy where there is one.

    >>> sniff(b"GIF89a")
    'GIF'
    >>> sniff(b"%PDF-1.7")
    Traceback (most recent call last):
    trickbag.data.sniff.Unreadable: unsupported: PDF; convert with pdftoppm
    """
    if not head:
        raise Unreadable("empty")
    for start, name in _OPENED:
        if head.startswith(start):
            return _tiff(head) if name == "TIFF" else name
    for start, name, tool in _TO_CONVERT:
        if head.startswith(start):
            raise _unsupported(name, tool)
    _check_text(head)
    return _container(head) or _unknown(head)


def webp_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height that the header of a WebP file tells, in pixels; ``Unreadable`` if it ends before."""
    file.seek(12)
    head = file.read(18)
    if len(head) < 18:
        raise Unreadable("truncated")
    if head.startswith(b"VP8X"):
        return int.from_bytes(head[12:15], "little") + 1, int.from_bytes(head[15:18], "little") + 1
    if head.startswith(b"VP8L"):
        bits = int.from_bytes(head[9:13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[14:16], "little") & 0x3FFF, int.from_bytes(head[16:18], "little") & 0x3FFF


def check_jpeg_end(file: BinaryIO, most: int = 1 << 28) -> None:
    """``Unreadable`` unless the end marker follows the picture, within ``most`` bytes; its reader does not miss two bytes.

    Thumbnails before the picture have end markers of their own, and films or more pictures may stand after it.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 2))
    if file.read() == _JPEG_END:
        return
    file.seek(0)
    if _JPEG_END not in _jpeg_markers(file.read(most)):
        raise Unreadable("truncated")


def check_jpeg_scans(file: BinaryIO, most: int = 100) -> None:
    """``Unreadable`` for a picture in more scans: each takes as long as the picture is large, and some bytes of the file."""
    file.seek(0)
    markers = takewhile(lambda marker: marker != _JPEG_END, _jpeg_markers(file.read()))
    if sum(marker == b"\xff\xda" for marker in markers) > most:
        raise Unreadable(f"broken: more than {most} scans")


def _jpeg_markers(data: bytes) -> Iterator[bytes]:
    """Those of a JPEG, without what stands in its segments and pixels."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        yield found.group()
        at = found.end()
        at += int.from_bytes(data[at : at + 2], "big")


def check_directories(file: BinaryIO, most: int = 10_000) -> None:
    """Walk the chain of a TIFF's directories; ``Unreadable`` if it loops, leaves the file, or has more than ``most`` links."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    big = 43 in head[2:4]
    count_bytes, entry_bytes, link_bytes = (8, 20, 8) if big else (2, 12, 4)
    at = int.from_bytes(head[8:16] if big else head[4:8], order)
    seen: set[int] = set()
    while at:
        if at >= size:
            raise Unreadable("truncated")
        if at in seen or len(seen) == most:
            raise Unreadable("broken: the TIFF's directories loop" if at in seen else "broken: too many TIFF directories")
        seen.add(at)
        file.seek(at)
        file.seek(int.from_bytes(file.read(count_bytes), order) * entry_bytes, 1)
        at = int.from_bytes(file.read(link_bytes), order)


def _tiff(head: bytes) -> str:
    if head[8:10] == b"CR":
        raise _unsupported("RAW", "dcraw or darktable")
    return "TIFF"


def _container(head: bytes) -> str | None:
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n" and len(head) > 2:
        return "PPM"
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if b"crx " in brands:
        raise _unsupported("RAW", "dcraw or darktable")
    if brands & _HEIF_BRANDS:
        raise _unsupported("HEIC", "heif-convert")
    raise Unreadable("not an image: a film")


def _check_text(head: bytes) -> None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise Unreadable("not an image: HTML")
    if start.startswith(b"<") and b"<svg" in start:
        raise _unsupported("SVG", "rsvg-convert")


def _unknown(head: bytes) -> str:
    for start, name in _REFUSED:
        if head.startswith(start):
            raise Unreadable(f"not an image: {name}")
    raise Unreadable("not an image")


def _unsupported(name: str, tool: str) -> Unreadable:
    return Unreadable(f"unsupported: {name}; convert with {tool}")
