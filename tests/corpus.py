"""Generates the folder of bad input: 40 good images and one of each thing that real folders hold.

Nothing here is a file in the repository; everything is made from seeds and from the formats' definitions.
"""

import io
import os
import socket
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]


def photo(seed: int, width: int = 96, height: int = 72) -> Pixels:
    """[H, W, 3]: something like a photograph, smooth random light with a few shapes in it."""
    rng = np.random.default_rng(seed)
    light = np.zeros((height, width, 3))
    for cells in (3, 6, 12):
        field = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        light += np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)) / cells
    picture = Image.fromarray((light * 255 / light.max()).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 7))):
        x, y = rng.uniform(-0.1, 0.9, 2) * (width, height)
        w, h = rng.uniform(0.1, 0.5, 2) * (width, height)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return np.asarray(picture)


def encoded(pixels: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """A file's bytes."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG whose rows, each with its filter byte, are given; ``extra`` chunks stand before the pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + pixels + chunk(b"IEND", b"")


def black_png(side: int) -> bytes:
    """A good PNG of side x side one-bit pixels."""
    return png(side, side, 1, 0, bytes((1 + (side + 7) // 8) * side))


def tiff(width: int, height: int, after: int = 0, strip: bytes = b"\x80") -> bytes:
    """A grey TIFF of one directory at byte 8, with the offset of the next directory ``after`` it."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (278, 4, height)]
    data_at = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(273, 4, data_at), (279, 4, len(strip))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + struct.pack("<I", after) + strip


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """A JPEG without the header segments of that marker."""
    out, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        out += b"" if jpeg[at + 1] == marker else jpeg[at:end]
        at = end
    return out + jpeg[at:]


def as_cmyk(pixels: Pixels) -> Image.Image:
    """C = 1 - R and so on, with the black that all inks share taken out."""
    inks = 255 - pixels.astype(np.int64)
    black = inks.min(axis=2, keepdims=True)
    rest = np.rint((inks - black) * 255 / np.maximum(255 - black, 1))
    return Image.fromarray(np.concatenate([rest, black], axis=2).astype(np.uint8), "CMYK")


def exif(orientation: int) -> bytes:
    """An EXIF block that tells the orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def ramp(high: float, kind: str) -> NDArray[Any]:
    """[16, 256] from 0 to ``high``."""
    return np.linspace(0, high, 16 * 256).reshape(16, 256).round(0 if high > 1 else 9).astype(kind)


@cache
def bombs() -> dict[str, bytes]:
    """Small files that promise or hold enormous pictures or texts."""
    small = encoded(photo(900, 16, 16), "JPEG")
    frame = small.index(b"\xff\xc0")
    gif, webp = encoded(photo(901, 16, 16), "GIF"), encoded(photo(902, 16, 16), "WEBP")
    avif, bmp = encoded(photo(903, 16, 16), "AVIF"), encoded(photo(904, 16, 16), "BMP")
    box = avif.index(b"ispe") + 8
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + (16383).to_bytes(3, "little") * 2
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": (20_000, 20_000, 3)})
    text = b"Comment\0\0" + zlib.compress(bytes(200 << 20), 1)
    many = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000))) * 90
    return {
        "bomb-100.png": black_png(10_000),
        "bomb-400.png": black_png(20_000),
        "bomb.jpg": small[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + small[frame + 9 :],
        "bomb.gif": gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:],
        "bomb.webp": b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(webp) - 12) + b"WEBP" + canvas + webp[12:],
        "bomb.avif": avif[:box] + struct.pack(">II", 12_000, 12_000) + avif[box + 8 :],
        "bomb.bmp": bmp[:18] + struct.pack("<ii", 20_000, 20_000) + bmp[26:],
        "bomb.ppm": b"P6 20000 20000 255\n" + bytes(100),
        "bomb.tif": tiff(20_000, 20_000),
        "bomb.npy": array.getvalue(),
        "text.png": png(1, 1, 8, 0, bytes(2), chunk(b"zTXt", text)),
        "texts.png": png(1, 1, 8, 0, bytes(2), many),
        "loop.tif": tiff(1, 1, after=8),
    }


def unreadable() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, a word of the reason) of the files that give no pixels, bombs aside."""
    jpeg, good_png = encoded(photo(800), "JPEG"), encoded(photo(801), "PNG")
    broken = bytearray(good_png)
    broken[len(broken) // 2] ^= 0xFF
    objects = io.BytesIO()
    np.save(objects, np.array([print], dtype=object), allow_pickle=True)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    heif = b"\0\0\0\x18ftyp%s\0\0\0\0mif1%s" + bytes(40)
    return {
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "minus-two.jpg": (jpeg[:-2], "truncated"),
        "header.jpg": (jpeg[:20], "truncated"),
        "half.png": (good_png[: len(good_png) // 2], "truncated"),
        "broken.png": (bytes(broken), "broken"),
        "empty.jpg": (b"", "empty"),
        "html.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        "svg.jpg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "zip.jpg": (b"PK\3\4" + bytes(60), "ZIP"),
        "elf.jpg": (b"\x7fELF\2\1\1" + bytes(60), "program"),
        "eps.jpg": (eps, "PostScript"),
        "text.jpg": (b"just words", "not an image"),
        "pickle.jpg": (b"\x80\4cos\nsystem\n(S'touch executed'\ntR.", "pickle"),
        "pickle.npy": (objects.getvalue(), "array of object"),
        "heic.jpg": (heif % (b"heic", b"heic"), "unsupported: HEIC; convert with"),
        "photo.heic": (heif % (b"mif1", b"heic"), "unsupported: HEIC; convert with"),
        "photo.jxl": (b"\xff\x0a" + bytes(40), "unsupported: JPEG XL; convert with"),
        "photo.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported: SVG; convert with"),
        "paper.pdf": (b"%PDF-1.7\n", "unsupported: PDF; convert with"),
        "photo.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "unsupported: RAW; convert with"),
        "photo.nef": (tiff(1, 1), "unsupported: RAW; convert with"),
        "photo.cr3": (heif % (b"crx ", b"isom"), "unsupported: RAW; convert with"),
    }


def accepted() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, a word of the note, "" for none) of odd files that give pixels."""
    colour = [photo(700 + n) for n in range(30)]
    clear = Image.fromarray(np.dstack([colour[0], np.tile(np.linspace(0, 255, 96).astype(np.uint8), (72, 1))]))
    frames: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(photo(790 + n)) for n in range(2)]}
    rows = b"".join(b"\0" + row.tobytes() for row in ramp(65535, ">u2"))
    jpeg = encoded(colour[1], "JPEG")
    broken_exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + 20) + b"Exif\0\0" + b"\x7f" * 20
    return {
        "png.jpg": (encoded(colour[2], "PNG"), "PNG named .jpg"),
        "jpeg.png": (encoded(colour[3], "JPEG"), "JPEG named .png"),
        "UPPER.JPG": (encoded(colour[4], "JPEG"), ""),
        "none": (encoded(colour[5], "JPEG"), "JPEG without an extension"),
        "cmyk.jpg": (encoded(as_cmyk(colour[6]), "JPEG"), ""),
        "ramp.png": (png(256, 16, 16, 0, rows), "16-bit"),
        "ramp16.tif": (encoded(Image.fromarray(ramp(65535, "u2").T), "TIFF"), "16-bit"),
        "ramp32.tif": (encoded(Image.fromarray(np.rot90(ramp(65535, "i4"))), "TIFF"), "16-bit"),
        "float.tif": (encoded(Image.fromarray(np.flipud(ramp(1, "f4"))), "TIFF"), "floats"),
        "palette.png": (encoded(clear.quantize(64), "PNG"), "over white"),
        "la.png": (encoded(clear.convert("LA"), "PNG"), "over white"),
        "rgba.png": (encoded(clear, "PNG"), "over white"),
        "animated.gif": (encoded(colour[7], "GIF", **frames), "first frame"),
        "animated.png": (encoded(colour[8], "PNG", **frames), "first frame"),
        "animated.webp": (encoded(colour[9], "WEBP", lossless=True, **frames), "first frame"),
        "pages.tif": (encoded(colour[10], "TIFF", **frames), "first frame"),
        "turned.jpg": (encoded(colour[11], "JPEG", exif=exif(6)), ""),
        "exif.jpg": (jpeg[:2] + broken_exif + jpeg[2:], "broken EXIF"),
        "photo.webp": (encoded(colour[12], "WEBP"), ""),
        "photo.avif": (encoded(colour[13], "AVIF"), ""),
        "photo.bmp": (encoded(colour[14], "BMP"), ""),
        "photo.ppm": (encoded(colour[15], "PPM"), ""),
    }


NAMES = (
    "\N{CAT FACE}.jpg",
    "caf\u00e9.jpg",
    "cafe\u0301.jpg",
    "\u202egpj.exe.jpg",
    "\u05d7\u05ea\u05d5\u05dc.jpg",
    "two\nlines.jpg",
    "quo'te\"s.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "-rf.jpg",
    "=1+1.jpg",
    "x" * 251 + ".jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
    "\x1b[31mred.jpg",
)
SIDE_FILES = (".DS_Store", "Thumbs.db", "._0.jpg", "__MACOSX/cat/0.jpg", ".ipynb_checkpoints/0.jpg")


def good(folder: Path, count: int = 40) -> None:
    """``count`` photographs in the classes cat and dog."""
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(number), "JPEG", quality=90))


def write(folder: Path) -> dict[str, str]:
    """The whole corpus in ``folder``; what is to be left out: relative path -> a word of the reason."""
    good(folder)
    files = {name: data for name, (data, _) in {**unreadable(), **accepted()}.items()} | bombs()
    files |= {name: encoded(photo(600 + n), "JPEG") for n, name in enumerate(NAMES)}
    for name, data in files.items():
        (folder / "cat" / name).write_bytes(data)
    for name in SIDE_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    left_out = {f"cat/{name}": word for name, (_, word) in unreadable().items()}
    return left_out | {f"cat/{name}": "" for name in bombs()} | _special(folder / "dog")


def _special(folder: Path) -> dict[str, str]:
    """Links, pipes and sockets; returns those that a listing may name, which then must be left out."""
    (folder / "loop").symlink_to(folder)
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket.jpg")
        os.close(here)
    return {f"dog/{name}": "" for name in ("self.jpg", "dangling.jpg", "pipe.jpg", "socket.jpg")}
