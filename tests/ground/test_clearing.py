"""The cache is emptied of what can be made again: never of what a process works with, never of what is not trickbag's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from album import fill, recipe_file
from filelock import FileLock

import trickbag as tb
from trickbag.ground import cache as ground
from trickbag.ground import clearing
from trickbag.ground.cache import key_of, made_once


def written(folder: Path) -> None:
    (folder / "inside").mkdir()
    (folder / "inside" / "file").write_bytes(bytes(1000))


@pytest.fixture
def alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, with what a process left that has ended."""
    with monkeypatch.context() as before:
        before.setattr(ground, "use", lambda _: None)
        for name in (f"given/{key_of(1)}", "pixels-0123456789abcdef-3x16-pad", f"answers-{key_of(2)}"):
            made_once(cache / name, written)
    return cache


def test_what_can_be_made_again_goes_and_all_else_stays(alone: Path) -> None:
    theirs = ["mine.txt", "given/notes.txt", "given/photos/a.png", "pixels", "downloads/set.tar", "facts/x.sqlite", "archives"]
    for name in theirs:
        (alone / name).parent.mkdir(parents=True, exist_ok=True)
        (alone / name).write_bytes(bytes(10))
    (alone / "speed").mkdir()
    ground.remember(alone / "speed" / f"{key_of(3)}.json", [1, 2])
    (alone / "named").symlink_to(alone.parent)
    (alone.parent / key_of(4)).mkdir()
    before = clearing.sizes()
    assert before["given"] > 1000
    found = clearing.clear()
    assert found.in_use == ()
    assert found.freed == sum(before.values()) - sum(clearing.sizes().values()) > 3000
    assert all((alone / name).stat().st_size == 10 for name in theirs)
    assert (alone.parent / key_of(4)).is_dir()
    assert clearing.sizes().keys() == {"given", "pixels", "downloads", "facts", "archives"}
    assert made_once(alone / "given" / key_of(1), written).is_dir()


def test_what_a_killed_builder_left_goes_too(alone: Path) -> None:
    (alone / "given" / f"{key_of(5)}.part").mkdir()
    written(alone / "given" / f"{key_of(5)}.part")
    assert clearing.clear().freed > 4000
    assert not clearing.sizes()


def test_what_is_being_made_stays(alone: Path) -> None:
    target = alone / "given" / key_of(1)
    with FileLock(f"{target}.lock"):
        assert clearing.clear().in_use == (target,)
        assert (target / "inside" / "file").is_file()
    assert clearing.clear().in_use == ()
    assert not target.exists()


def test_what_another_process_works_with_stays_until_it_ends(alone: Path) -> None:
    target = alone / "given" / key_of(1)
    code = (
        "import sys; from pathlib import Path; from trickbag.ground.cache import made_once\n"
        "made_once(Path(sys.argv[1]), None); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline()
        assert clearing.clear().in_use == (target,)
        assert (target / "inside" / "file").is_file()
        other.kill()
    assert clearing.clear().in_use == ()
    assert not target.exists()


def test_a_training_keeps_its_images_and_is_the_same_without(cache: Path, tmp_path: Path) -> None:
    fill(tmp_path / "photos", {"a": 0, "b": 1}, 8)
    asked = {"recipe": recipe_file(tmp_path / "tiny.toml"), "set_": {"epochs": 1}}
    first = tb.train(tmp_path / "photos", **asked, out=tmp_path / "first")
    assert clearing.sizes()["pixels"] > 0
    (kept,) = clearing.clear().in_use
    assert kept.name.startswith("pixels-")
    assert clearing.sizes().keys() == {"pixels"}
    os.close(ground._used.pop(kept))
    assert clearing.clear().freed > 0
    assert not clearing.sizes()
    again = tb.train(tmp_path / "photos", **asked, out=tmp_path / "again")
    assert again.record["test"] == first.record["test"]


def test_a_process_keeps_few_files_open(cache: Path) -> None:
    for number in range(ground.MOST_USED + 5):
        made_once(cache / "given" / key_of(number), written)
    assert len(ground._used) == ground.MOST_USED
    kept = set(clearing.clear().in_use)
    assert kept == {cache / "given" / key_of(number) for number in range(5, ground.MOST_USED + 5)}
