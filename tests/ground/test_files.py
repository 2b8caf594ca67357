"""Files that users name: whatever lies under the name, nothing waits and nothing fills the memory."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from trickbag.data.decode import Unreadable, decode
from trickbag.ground import files
from trickbag.ground.errors import UsageError
from trickbag.recipe import Recipe
from trickbag.studies.options import Options

STREAMS = [name for name in ("/proc/kmsg",) if os.access(name, os.R_OK)]
"""Regular files by their kind that wait for their content, where the system has one that may be read."""


@pytest.fixture(params=["pipe", "socket", "device", "folder", "sparse", "dangling", "latin", "nul", "long", *STREAMS])
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A name under which no text lies."""
    place = tmp_path / "it.toml"
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        match request.param:
            case "pipe":
                os.mkfifo(place)
            case "socket":
                bound.bind(str(place))
            case "device":
                place.symlink_to("/dev/zero")
            case "folder":
                place.mkdir()
            case "sparse":
                with place.open("wb") as file:
                    file.truncate(1 << 40)
            case "dangling":
                place.symlink_to("nowhere")
            case "latin":
                place.write_bytes(b"# caf\xe9\n")
            case "nul":
                place = Path("a\0b")
            case "long":
                place = Path("n" * 5_000)
            case name:
                place.symlink_to(name)
        yield place


READERS: dict[str, Callable[[Path], object]] = {"recipe": Recipe.load, "study": Options.load}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_text_of_ours_is_refused_in_a_sentence(reader: str, strange: Path) -> None:
    with pytest.raises(UsageError) as refused:
        READERS[reader](strange)
    assert "Errno" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_an_image_that_is_a_stream_is_unreadable(strange: Path) -> None:
    with pytest.raises(Unreadable):
        decode(strange)


def test_a_text_is_read_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "it").write_bytes(mark + "épochs".encode())
        assert files.text(tmp_path / "it") == "épochs"


def test_the_most_bytes_are_read_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"1234")
    assert files.content(tmp_path / "it", 4) == b"1234"
    with pytest.raises(OSError, match="is larger than"):
        files.content(tmp_path / "it", 3)
