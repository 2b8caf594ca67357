"""The audit against a folder of everything that real folders hold, and against planted duplicates."""

import csv
import html
import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import corpus
import numpy as np
import pytest
from PIL import Image

from trickbag.data import decode as decoder
from trickbag.data.audit import Audit, audit
from trickbag.data.facts import Facts
from trickbag.data.reading import read
from trickbag.ground.errors import TrickbagError
from trickbag.ground.text import show, unshow


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICKBAG_CACHE", str(tmp_path_factory.mktemp("cache")))


def found(result: Audit, kind: str) -> list[str]:
    return [path for finding in result.findings if finding.kind == kind for path in finding.paths]


def save(path: Path, pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(corpus.encoded(pixels, kind, **options))


def test_the_corpus_is_left_out_exactly_as_expected(tmp_path: Path) -> None:
    expected = corpus.write(tmp_path)
    result = audit(read(tmp_path))
    ignored = {path for path, _ in result.images.ignored}
    assert {path for path in expected if path not in ignored} == result.left_out.keys()
    assert all(expected[path] in reason for path, reason in result.left_out.items())
    assert result.images.classes == ("cat", "dog")
    assert len(result.images) == 40 + len(corpus.accepted()) + len(corpus.NAMES)
    assert {"dog/pipe.jpg", "dog/socket.jpg", "dog/dangling.jpg"} <= ignored | result.left_out.keys()
    listed = {unshow(path) for finding in result.findings if finding.kind == "left out" for path in finding.paths}
    assert listed == result.left_out.keys()
    assert sorted(found(result, "extension")) == ["cat/jpeg.png", "cat/none", "cat/png.jpg"]
    assert result.errors == []


def test_on_bad_error_names_the_files(tmp_path: Path) -> None:
    corpus.good(tmp_path, 4)
    assert len(audit(read(tmp_path), on_bad="error").images) == 4
    (tmp_path / "cat" / "empty.jpg").touch()
    with pytest.raises(TrickbagError, match=r"1 of 5 files .*cat/empty\.jpg: empty"):
        audit(read(tmp_path), on_bad="error")


def test_names_go_through_json_csv_and_html_and_steer_nothing(tmp_path: Path) -> None:
    for name in corpus.NAMES:
        path = tmp_path / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    corpus.good(tmp_path, 4)
    result = audit(read(tmp_path))
    text = json.dumps(result.as_json())
    assert set(json.loads(text)["left_out"]) == {f"cat/{name}" for name in corpus.NAMES}
    assert {path for finding in json.loads(text)["findings"] for path in finding["paths"]} >= {
        f"cat/{name}" for name in corpus.NAMES
    }
    assert text.isascii()
    assert text.isprintable()
    shown = [show(name) for name in corpus.NAMES]
    assert len(set(shown)) == len(corpus.NAMES)
    file = io.StringIO(newline="")
    csv.writer(file).writerow(shown)
    assert next(csv.reader(io.StringIO(file.getvalue(), newline=""))) == shown
    assert [html.unescape(html.escape(name)) for name in shown] == shown


def test_an_unreadable_file_is_listed() -> None:
    program = """
import os, sys
from pathlib import Path
from trickbag.data.audit import audit
from trickbag.data.reading import read
if os.geteuid() == 0:  # the administrator may read everything
    os.setuid(65534)
print(audit(read(Path(sys.argv[1]))).left_out)
"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        corpus.good(folder, 4)
        (folder / "cat" / "0.jpg").chmod(0)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRICKBAG_CACHE": str(folder / "nowhere")}
        command = [sys.executable, "-c", program, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment)
    assert done.stdout.strip() == "{'cat/0.jpg': 'unreadable: Permission denied'}"


def plant(folder: Path, change: Callable[[int, Image.Image], tuple[Image.Image, str, dict[str, object]]]) -> None:
    """60 training photos and a validation set of 30 others and of 30 changed copies."""
    for number in range(60):
        save(folder / "train" / ("cat", "dog")[number % 2] / f"{number}.png", corpus.photo(number, 128, 96))
        if number < 30:
            save(folder / "val" / ("cat", "dog")[number % 2] / f"{number}.png", corpus.photo(1000 + number, 128, 96))
            image, kind, options = change(number, Image.fromarray(corpus.photo(number, 128, 96)))
            save(folder / "val" / ("cat", "dog")[number % 2] / f"planted{number}.png", image, kind, **options)


PLANTED = {(f"train/{c}/{n}.png", f"val/{c}/planted{n}.png") for n in range(30) for c in [("cat", "dog")[n % 2]]}


def test_all_exact_copies_across_splits_are_found_and_nothing_else(tmp_path: Path) -> None:
    kinds = ({"kind": "PNG"}, {"kind": "PNG", "compress_level": 0}, {"kind": "BMP"}, {"kind": "WEBP", "lossless": True})

    def same_pixels(number: int, image: Image.Image) -> tuple[Image.Image, str, dict[str, object]]:
        options: dict[str, object] = dict(kinds[number % 4])
        return image, str(options.pop("kind")), options

    plant(tmp_path, same_pixels)
    result = audit(read(tmp_path))
    (leak,) = [finding for finding in result.findings if finding.kind == "leak"]
    assert set(leak.pairs) == PLANTED
    assert result.errors == [leak]
    assert found(result, "near duplicate") == []
    group = dict(zip(result.images.paths, result.images.groups.tolist(), strict=True))
    assert all(group[left] == group[right] for left, right in PLANTED)
    assert len(set(group.values())) == 120 - 30
    assert audit(read(tmp_path), on_leak="warning").errors == []
    assert not [finding for finding in result.findings if finding.message.startswith("groups:")]
    clean = result.without_leaks()
    training, judged = ({pair[side] for pair in PLANTED} for side in (0, 1))
    assert not training & set(clean.images.paths)
    assert judged <= set(clean.images.paths)
    assert clean.left_out == {left: f"a copy of {right}" for left, right in PLANTED}
    assert clean.errors == []


def test_near_copies_across_splits_are_found(tmp_path: Path) -> None:
    def nearly(number: int, image: Image.Image) -> tuple[Image.Image, str, dict[str, object]]:
        width, height = image.size
        left, top = round(0.03 * width), round(0.03 * height)
        changed: tuple[tuple[Image.Image, str, dict[str, object]], ...] = (
            (image.resize((round(0.9 * width), round(0.9 * height))), "PNG", {}),
            (image, "JPEG", {"quality": 60}),
            (image.point(lambda value: min(255, int(value * 1.1))), "PNG", {}),
            (image.crop((left, top, width - left, height - top)), "PNG", {}),
        )
        return changed[number % 4]

    plant(tmp_path, nearly)
    result = audit(read(tmp_path))
    (near,) = [finding for finding in result.findings if finding.kind == "near duplicate"]
    assert len(PLANTED & set(near.pairs)) >= 27
    assert set(near.pairs) <= PLANTED
    assert near.severity == "warning"
    assert not found(result, "leak")


def test_a_file_in_two_classes_is_an_error_pair_by_pair(tmp_path: Path) -> None:
    corpus.good(tmp_path, 8)
    for name in ("dog/copy.jpg", "dog/again.jpg"):
        (tmp_path / name).write_bytes((tmp_path / "cat" / "0.jpg").read_bytes())
    result = audit(read(tmp_path))
    (conflict,) = result.errors
    assert conflict.kind == "conflict"
    assert conflict.pairs == [("cat/0.jpg", "dog/again.jpg"), ("cat/0.jpg", "dog/copy.jpg")]
    assert audit(read(tmp_path), on_conflict="note").errors == []


def test_copies_within_a_class_are_kept_together(tmp_path: Path) -> None:
    corpus.good(tmp_path, 8)
    (tmp_path / "cat" / "copy.jpg").write_bytes((tmp_path / "cat" / "0.jpg").read_bytes())
    result = audit(read(tmp_path))
    group = dict(zip(result.images.paths, result.images.groups.tolist(), strict=True))
    assert group["cat/0.jpg"] == group["cat/copy.jpg"]
    assert len(set(group.values())) == 8
    assert len(set(result.images.hashes)) == 8
    assert (found(result, "duplicate"), result.errors) == (["cat/0.jpg", "cat/copy.jpg"], [])


def test_a_second_audit_opens_nothing_and_sees_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = corpus.write(tmp_path)
    opened: list[str] = []

    def counted(path: Path) -> object:
        opened.append(path.name)
        return decoder.opened(path)

    monkeypatch.setattr("trickbag.data.facts.opened", counted)
    told: list[tuple[int, int]] = []
    first = audit(read(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told == [(min(done, len(opened)), len(opened)) for done in range(32, len(opened) + 32, 32)]
    again = [name for name in opened if f"dog/{name}" in expected]
    opened.clear()
    second = audit(read(tmp_path), workers=1)
    assert opened == again
    assert second.as_json() == first.as_json()
    assert second.images.hashes == first.images.hashes
    (tmp_path / "cat" / "0.jpg").write_bytes(b"")
    assert audit(read(tmp_path)).left_out["cat/0.jpg"] == "empty"
    assert opened == [*again, "0.jpg"]


def damaged(memory: Path, damage: str) -> None:
    """The memory as a disk or a person may leave it."""
    if damage.startswith("file"):
        memory.write_bytes({"file empty": b"", "file of text": b"[]" * 5000, "file cut": memory.read_bytes()[:5000]}[damage])
        return
    if damage.startswith("a "):
        memory.unlink()
        {"a folder": memory.mkdir, "a FIFO": lambda: os.mkfifo(memory), "a link": lambda: memory.symlink_to("/dev/zero")}[
            damage
        ]()
        return
    with closing(sqlite3.connect(memory)) as store, store:
        if damage in ("hash", "height"):
            place = {"hash": "$[0]", "height": "$[4]"}[damage]
            store.execute("UPDATE facts SET facts = json_set(facts, ?, json_extract(facts, '$[1]'))", [place])
        elif damage == "columns":
            store.execute("ALTER TABLE facts RENAME COLUMN facts TO others")
        else:
            store.execute("UPDATE facts SET facts = ?", ["[" * 100_000 if damage == "deep" else damage])


DAMAGE = ["file empty", "file of text", "file cut", "", "[]", '{"cat/0.jpg": 3}', "deep", "hash", "height", "columns"]


@pytest.mark.parametrize("damage", [*DAMAGE, "a folder", "a FIFO", "a link"])
def test_a_damaged_memory_is_made_again(damage: str, tmp_path: Path) -> None:
    corpus.good(tmp_path, 4)
    first = audit(read(tmp_path))
    (memory,) = (Path(os.environ["TRICKBAG_CACHE"]) / "facts").iterdir()
    damaged(memory, damage)
    assert audit(read(tmp_path)).as_json() == first.as_json()
    with closing(sqlite3.connect(memory)) as store:
        assert store.execute("SELECT count(*) FROM facts WHERE length(facts) < 1000 AND facts LIKE '[%, %]'").fetchall() == [
            (4,)
        ]


@pytest.mark.parametrize("replaced", [False, True])
def test_content_that_changes_under_the_same_size_and_time_is_seen(replaced: bool, tmp_path: Path) -> None:
    corpus.good(tmp_path, 4)
    first = audit(read(tmp_path)).images
    path = first.path(0)
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-40] ^= 1
    place = path.with_name("other") if replaced else path
    place.write_bytes(content)
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    place.replace(path)
    second = audit(read(tmp_path)).images
    assert first.fingerprint != second.fingerprint
    assert [a == b for a, b in zip(first.hashes, second.hashes, strict=True)] == [False, True, True, True]


def test_a_check_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(70):
        save(tmp_path / "cat" / f"{number}.png", corpus.photo(number, 30, 20))
    monkeypatch.setattr("trickbag.data.facts._AT_ONCE", 32)
    opened: list[str] = []

    def counted(path: Path) -> object:
        opened.append(path.name)
        return decoder.opened(path)

    def stopped(done: int, _: int) -> None:
        if done == 64:
            raise KeyboardInterrupt

    monkeypatch.setattr("trickbag.data.facts.opened", counted)
    with pytest.raises(KeyboardInterrupt):
        audit(read(tmp_path), progress=stopped)
    opened.clear()
    assert len(audit(read(tmp_path)).images) == 70
    assert len(opened) == 70 - 32


def test_counts_sizes_and_imbalance(tmp_path: Path) -> None:
    for number in range(24):
        save(tmp_path / "cat" / f"{number}.png", corpus.photo(number, 30 + number, 20))
    save(tmp_path / "dog" / "grey.png", Image.fromarray(corpus.photo(90, 10, 9)).convert("L"))
    save(tmp_path / "dog" / "other.png", corpus.photo(91, 40, 20))
    result = audit(read(tmp_path))
    assert result.counts == {"cat": {"unassigned": 24}, "dog": {"unassigned": 2}}
    assert result.imbalance == 12
    least_and_most = {"least_height": 9, "greatest_height": 20, "least_width": 10, "greatest_width": 53}
    assert result.sizes == {"height": 20, "width": 40, "channels": 3} | least_and_most
    kinds = {finding.kind: finding for finding in result.findings}
    assert {"imbalance", "few", "tiny", "grey"} <= kinds.keys()
    assert "12 times" in kinds["imbalance"].message
    assert "macro recall" in kinds["imbalance"].suggestion
    assert found(result, "tiny") == found(result, "grey") == ["dog/grey.png"]


def test_arrays_of_another_number_of_bands_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, bands in enumerate((5, 5, 5, 4)):
        (tmp_path / "cat").mkdir(exist_ok=True)
        np.save(tmp_path / "cat" / f"{number}.npy", rng.integers(0, 256, (30, 30, bands), dtype=np.uint8))
    result = audit(read(tmp_path))
    assert result.left_out == {"cat/3.npy": "has 4 channels, not 5"}
    assert result.sizes["channels"] == 5
    assert len(audit(read(tmp_path), channels=4).left_out) == 3


def test_not_one_good_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.jpg").touch()
    assert [finding.kind for finding in audit(read(tmp_path)).errors] == ["nothing"]


def test_a_grey_copy_is_the_same_picture_however_stored(tmp_path: Path) -> None:
    grey = Image.fromarray(corpus.photo(0)).convert("L")
    save(tmp_path / "cat" / "grey.png", grey)
    save(tmp_path / "dog" / "colour.png", grey.convert("RGB"))
    assert audit(read(tmp_path)).errors[0].pairs == [("cat/grey.png", "dog/colour.png")]


def test_facts_without_a_likeness() -> None:
    assert Facts().likeness is None
