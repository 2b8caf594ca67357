"""DATA that is nothing, or no data: a sentence at once, whatever lies under the name."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import corpus
import pytest
from tables import fill

from trickbag.data.audit import audit
from trickbag.data.images import gaps
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError
from trickbag.runs.request import called

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize(
    "text",
    ["", "x" * 5_000, "x/" * 2_500, "~nobody-of-that-name/photos", "a\0b", "{a}" * 1_666, "*" * 5_000],
    ids=["empty", "long", "deep", "user", "nul", "braces", "stars"],
)
def test_data_that_no_file_can_be_called_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read(text)


def test_a_pattern_may_be_longer_than_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no shard"):
        read(f"{tmp_path}/{{" + ",".join(f"shard-{n:06d}" for n in range(300)) + "}.tar")
    assert called(f"{tmp_path}/{{" + ",".join(f"shard-{n:06d}" for n in range(300)) + "}.tar") == tmp_path.name


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.tar", "d.zip", "d"])
@pytest.mark.parametrize("kind", ["pipe", "device", "stream", "zeros"])
def test_what_waits_or_never_ends_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    place = tmp_path / name
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "zeros":
        with place.open("wb") as file:
            file.truncate(30 << 30)
    else:
        target = "/dev/zero" if kind == "device" else "/proc/kmsg"
        if kind == "stream" and not os.access(target, os.R_OK):
            target = "/dev/zero"
        place.symlink_to(target)
    with pytest.raises(UsageError):
        read(place)


def test_a_file_of_names_that_waits_is_refused(tmp_path: Path) -> None:
    from test_shards import shard

    shard(tmp_path / "0.tar", {"a.jpg": "x", "a.cls": "0"})
    os.mkfifo(tmp_path / "classes.txt")
    with pytest.raises(UsageError, match=r"classes.txt' cannot be read: it is a named pipe"):
        read(tmp_path / "0.tar")


def test_a_closed_folder_above_the_data_is_named() -> None:
    program = """
import os, sys
from trickbag.data.reading import read
from trickbag.ground.errors import UsageError
if os.geteuid() == 0:  # the administrator may read everything
    os.setuid(65534)
try:
    read(sys.argv[1])
except UsageError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name) / "closed/d", "cat/1.jpg")
        Path(name).chmod(0o755)
        (Path(name) / "closed").chmod(0)
        done = subprocess.run([sys.executable, "-c", program, f"{name}/closed/d"], capture_output=True, text=True, check=True)
        (Path(name) / "closed").chmod(0o755)
    assert "closed/d' cannot be read: Permission denied" in done.stdout


def test_one_class_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    corpus.good(tmp_path / "one" / "photos", 4)
    (tmp_path / "one/photos/dog").rename(tmp_path / "dog")
    (error,) = audit(read(tmp_path / "one")).errors
    assert (error.kind, "Put each class into a folder of its own" in error.suggestion) == ("one class", True)
    corpus.good(tmp_path / "split/val", 4)
    (tmp_path / "split/train").mkdir()
    (tmp_path / "split/val/cat").rename(tmp_path / "split/train/cat")
    assert "one class" in [finding.kind for finding in audit(read(tmp_path / "split")).errors]


def test_names_that_people_take_for_one_are_one_finding(tmp_path: Path) -> None:
    kinds = ("Cat", "cat", "Cat ", "hot dog", "hot_dog", "Hot-Dog", "hotdog")
    images = read(fill(tmp_path / "d", *(f"{kind}/{number}.jpg" for kind in kinds for number in "12")))
    assert images.classes == ("Cat", "Hot-Dog", "cat", "hot dog", "hot_dog", "hotdog")
    (twins,) = (sentence for sentence in gaps(images) if "differ only in case" in sentence)
    assert twins.startswith(
        "5 classes that differ only in case, spaces or hyphens: 'Cat', 'Hot-Dog', 'cat', 'hot dog', 'hot_dog'."
    )
