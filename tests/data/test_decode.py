"""Decoding against upright, sRGB and formula references, and against files made to do harm."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from trickbag.data.decode import Unreadable, decode


def array(data: bytes, channels: int = 3) -> NDArray[np.int64]:
    """[H, W, C]"""
    return decode(data, channels).pixels.permute(1, 2, 0).numpy().astype(np.int64)


def distance(left: NDArray[np.int64], right: NDArray[np.generic]) -> float:
    return float(np.abs(left - right.astype(np.int64)).mean())


@pytest.mark.parametrize(("name", "item"), corpus.unreadable().items())
def test_unreadable_with_its_reason(name: str, item: tuple[bytes, str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(item[0])
    with pytest.raises(Unreadable, match=item[1]):
        decode(tmp_path / name)


@pytest.mark.parametrize(("name", "item"), corpus.accepted().items())
def test_accepted_with_its_note(name: str, item: tuple[bytes, str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(item[0])
    pixels, notes, size = decode(tmp_path / name)
    assert size == tuple(pixels.shape[1:])
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert pixels.shape[0] == 3
    assert [item[1] in note for note in notes] == [True] * bool(item[1])


@pytest.mark.parametrize("seed", range(12))  # about one picture in thirty is whole for the reader without its end marker
def test_a_jpeg_needs_its_own_end_marker(seed: int) -> None:
    data = corpus.encoded(corpus.photo(seed, 96, 64), "JPEG")
    thumbnail = b"\xff\xe2" + struct.pack(">H", 2 + len(data)) + data
    for cut in (1, 2):
        with pytest.raises(Unreadable, match="truncated"):
            decode(data[:2] + thumbnail + data[2:-cut])
    assert torch.equal(decode(data[:2] + thumbnail + data[2:] + b"more").pixels, decode(data).pixels)


def test_a_picture_in_hundreds_of_scans_is_refused() -> None:
    """Each scan of a few bytes takes as long to read as the picture is large."""
    file = io.BytesIO()
    Image.new("RGB", (400, 300), (9, 99, 200)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    usual, film = data[:-2] + scan * 80 + b"\xff\xd9", data + b"\xff\xda" * 500
    assert decode(usual).pixels.shape == decode(film + b"\xff\xd9").pixels.shape == (3, 300, 400)
    with pytest.raises(Unreadable, match="broken: more than 100 scans"):
        decode(data[:-2] + scan * 100 + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_equal_the_upright_picture(kind: str, orientation: int) -> None:
    # What a camera stores so that the viewer's turn brings the picture upright: the inverse of EXIF's table.
    stored: Callable[[Any], Any] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    upright = corpus.photo(1)
    turned = np.ascontiguousarray(stored(upright))
    best: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    found = array(corpus.encoded(turned, kind, exif=corpus.exif(orientation), **best.get(kind, {})))
    assert found.shape == upright.shape
    assert distance(found, upright) <= (1.0 if kind == "JPEG" else 0.0)


def test_inks_of_every_kind_of_jpeg_become_the_right_colours() -> None:
    picture = corpus.photo(2)
    inks = corpus.as_cmyk(picture)
    adobe = corpus.encoded(inks, "JPEG", quality=95)  # inverted, with Adobe's marker
    plain = corpus.without_segment(corpus.encoded(Image.fromarray(255 - np.asarray(inks), "CMYK"), "JPEG", quality=95), 0xEE)
    assert b"Adobe" in adobe
    assert b"Adobe" not in plain
    assert distance(array(adobe), picture) <= 3
    assert distance(array(plain), picture) <= 3
    assert distance(array(ycck(np.asarray(inks))), picture) <= 3
    assert distance(array(corpus.encoded(inks, "TIFF")), picture) <= 3


def ycck(inks: NDArray[np.uint8]) -> bytes:
    """An inverted CMYK picture whose first three inks are stored as YCbCr, as Adobe's marker tells with a 2."""
    ycc = Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr")
    bands = np.dstack([np.asarray(ycc), 255 - inks[..., 3]])
    data = bytearray(corpus.encoded(Image.fromarray(255 - bands, "CMYK"), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


@pytest.mark.parametrize("name", ["ramp.png", "ramp16.tif", "ramp32.tif", "float.tif"])
def test_ramps_fill_the_eight_bit_range(name: str) -> None:
    found = array(corpus.accepted()[name][0])
    assert abs(found.mean() - 127.5) < 0.6
    assert np.array_equal(np.unique(found), np.arange(256))


def test_sixteen_bit_ramps_are_rounded_not_cut() -> None:
    values = corpus.ramp(65535, "u2")
    assert np.array_equal(array(corpus.encoded(Image.fromarray(values), "TIFF"), 1)[..., 0], np.rint(values / 257))
    big_endian = corpus.tiff(256, 16, strip=values.tobytes())
    assert decode(big_endian).notes == ()


@pytest.mark.parametrize(("low", "high"), [(0, 1000), (-5, 5), (7, 7)])
def test_other_floats_span_their_own_range(low: float, high: float) -> None:
    values = np.linspace(low, high, 256, dtype="f4").reshape(16, 16)
    found = array(corpus.encoded(Image.fromarray(values), "TIFF"))
    assert (found.min(), found.max()) == ((0, 255) if low < high else (0, 0))


def test_nan_is_told() -> None:
    values = np.full((4, 4), np.nan, dtype="f4")
    with pytest.raises(Unreadable, match="NaN"):
        decode(corpus.encoded(Image.fromarray(values), "TIFF"))


def test_transparency_is_white_paper() -> None:
    colour, alpha = corpus.photo(3), np.tile(np.linspace(0, 255, 96), (72, 1)).round().astype(np.uint8)
    share = alpha[..., None] / 255
    clear = Image.fromarray(np.dstack([colour, alpha]))
    assert np.abs(array(corpus.encoded(clear, "PNG")) - (colour * share + 255 * (1 - share))).max() <= 1
    grey = colour[..., :1]
    la = Image.fromarray(np.dstack([grey, alpha]), "LA")
    assert np.abs(array(corpus.encoded(la, "PNG"), 1) - (grey * share + 255 * (1 - share))).max() <= 1


def test_transparent_palette_entries_and_key_colours_are_white() -> None:
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [255, 255, 255]]]
    for kind in ("PNG", "GIF"):
        assert array(corpus.encoded(palette, kind, transparency=1)).tolist() == expected
    key = Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], dtype=np.uint8))
    assert array(corpus.encoded(key, "PNG", transparency=(1, 2, 3))).tolist() == [[[9, 9, 9], [255, 255, 255]]]
    grey16 = corpus.png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 257, 514), corpus.chunk(b"tRNS", struct.pack(">H", 514)))
    assert array(grey16, 1).tolist() == [[[1], [255]]]


def test_the_first_frame_is_the_one_that_is_taken() -> None:
    frames = [Image.fromarray(corpus.photo(n)) for n in (5, 6)]
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(
            array(corpus.encoded(frames[0], kind, save_all=True, append_images=frames[1:])), np.asarray(frames[0])
        )


def test_luminance_bands_and_arrays() -> None:
    picture = corpus.photo(7)
    found = array(corpus.encoded(picture, "PNG"), 1)
    assert np.abs(found[..., 0] - picture @ [0.299, 0.587, 0.114]).max() <= 1
    bands = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
    file = io.BytesIO()
    np.save(file, bands)
    assert np.array_equal(array(file.getvalue(), 6), bands)
    with pytest.raises(Unreadable, match="has 6 channels, not 3"):
        decode(file.getvalue())
    with pytest.raises(Unreadable, match="truncated"):
        decode(file.getvalue()[:-1], 6)
    clear = Image.fromarray(np.dstack([picture, picture[..., 0]]))
    assert np.array_equal(array(corpus.encoded(clear, "TIFF"), 4), np.asarray(clear))
    assert decode(corpus.encoded(picture, "PNG"), None).pixels.shape[0] == 3
    assert decode(corpus.encoded(np.dstack([picture[..., 0]] * 3), "PNG"), None).pixels.shape[0] == 1


@pytest.mark.parametrize(("shorter", "side"), [(0, 480), (480, 480), (241, 480), (240, 240), (100, 120), (1, 60)])
def test_a_scaled_jpeg_is_never_smaller_than_asked(shorter: int, side: int) -> None:
    data = corpus.encoded(corpus.photo(8, 640, 480), "JPEG")
    assert decode(data, shorter=shorter).pixels.shape[1:] == (side, side * 4 // 3)


def test_the_limit_counts_pixels() -> None:
    data = corpus.encoded(corpus.photo(8, 20, 10), "PNG")
    assert decode(data, limit_pixels=200).pixels.shape == (3, 10, 20)
    with pytest.raises(Unreadable, match="20 x 10"):
        decode(data, limit_pixels=199)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"])
def test_whatever_bytes_break_nothing_but_unreadable_is_raised(kind: str) -> None:
    data = corpus.encoded(corpus.photo(9, 24, 16), kind, **({"exif": corpus.exif(3)} if kind in ("JPEG", "TIFF") else {}))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] = rng.integers(0, 256)
        try:
            decode(bytes(broken[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else broken), limit_pixels=100_000)
        except Unreadable:
            refused += 1
    assert 0 < refused < 150


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    left_out = {tmp_path / "dog" / path.split("/")[1] for path in corpus.write(tmp_path) if path.startswith("dog/")}
    for path in left_out | {tmp_path / "dog"}:
        with pytest.raises(Unreadable, match=r"not a regular file|unreadable: "):
            decode(path)


def test_other_libraries_wishes_are_neither_followed_nor_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("half.jpg", "half.png"):
        with pytest.raises(Unreadable, match="truncated"):
            decode(corpus.unreadable()[name][0])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def warning_tiff() -> bytes:
    """A good picture with a tag whose data lies far outside the file: Pillow warns."""
    data = corpus.tiff(1, 1)
    entry = data.index(struct.pack("<HHII", 259, 3, 1, 1))
    return (
        data[:entry]
        + struct.pack("<HHII", 259, 3, 1, 1)[:12]
        + data[entry + 12 :].replace(struct.pack("<HHII", 278, 4, 1, 1), struct.pack("<HHII", 270, 2, 900, 9_000))
    )


def test_warnings_are_silent_here_and_heard_elsewhere() -> None:
    data = warning_tiff()
    with pytest.warns(UserWarning, match="Tag data"), Image.open(io.BytesIO(data)) as image:
        image.load()
    heard: list[str] = []
    stop = threading.Event()

    def elsewhere() -> None:
        while not stop.is_set():
            try:
                warnings.warn("mine", UserWarning, stacklevel=1)
            except UserWarning:
                heard.append("mine")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    for _ in range(300):
        assert decode(data).pixels.shape == (3, 1, 1)
    count = len(heard)
    stop.set()
    thread.join()
    assert count > 0
    with pytest.raises(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)


def test_threads_give_equal_pixels() -> None:
    items = [data for data, _ in corpus.accepted().values()]
    expected = [decode(data).pixels for data in items]
    found: list[list[torch.Tensor]] = []
    threads = [threading.Thread(target=lambda: found.append([decode(data).pixels for data in items])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(one, other) for run in found for one, other in zip(run, expected, strict=True))


HARM = """
import resource, sys
from pathlib import Path
started = []
sys.addaudithook(lambda event, _: started.append(event) if event.startswith(
    ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "pickle.")) else None)
from trickbag.data.decode import Unreadable, decode
folder = Path(sys.argv[1])
decode(folder / "good.jpg")
started.clear()
for path in sorted(folder.iterdir()):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(path)
        reason = ""
    except Unreadable as error:
        reason = str(error)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(path.name, f"{megabytes:.0f}", len(started), reason, sep="|")
if sys.argv[2:]:
    from PIL import Image
    try:
        Image.open(folder / "eps.jpg").load()
    except OSError:
        pass
    print(len(started))
"""


def in_subprocess(folder: Path, *arguments: str) -> list[list[str]]:
    (folder / "good.jpg").write_bytes(corpus.encoded(corpus.photo(0), "JPEG"))
    command = [sys.executable, "-W", "error", "-c", HARM, str(folder), *arguments]
    one_core = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=one_core)
    return [line.split("|") for line in done.stdout.splitlines()]


def test_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    for name, data in corpus.bombs().items():
        (tmp_path / name).write_bytes(data)
    found = {name: (int(megabytes), reason) for name, megabytes, _, reason in in_subprocess(tmp_path)}
    assert found.pop("good.jpg")[1] == ""
    assert found.keys() == corpus.bombs().keys()
    for name, (megabytes, reason) in found.items():
        assert megabytes < 200, name
        assert reason.startswith("too large" if name.startswith("bomb") else "broken"), name


def test_no_disguise_starts_a_program_or_reads_a_pickle(tmp_path: Path) -> None:
    for name, (data, _) in corpus.unreadable().items():
        (tmp_path / name).write_bytes(data)
    *lines, (control,) = in_subprocess(tmp_path, "control")
    assert len(lines) == len(corpus.unreadable()) + 1
    assert {line[2] for line in lines} == {"0"}
    assert int(control) > 0, "the hook must see what stock Pillow does with the same file"
