"""Whatever stands in label files, lists, names and label images: a table, or a refusal in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import marked
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trickbag.ground.errors import UsageError
from trickbag.scenes.audit import audit
from trickbag.scenes.findings import KINDS
from trickbag.scenes.reading import read
from trickbag.scenes.splits import divide
from trickbag.scenes.table import Scenes

FILES: dict[str, tuple[Callable[..., Path], list[str]]] = {
    "voc": (marked.voc, ["Annotations/a.xml", "ImageSets/Main/train.txt"]),
    "coco": (marked.coco, ["annotations/instances_train2017.json"]),
    "yolo": (marked.yolo, ["labels/train/a.txt", "data.yaml"]),
    "regions": (marked.regions, ["train/labels/a.png", "classes.json"]),
}
PIECES = [b"", b"\0", b"\xff", b"<", b"&", b"-1", b"nan", b"1e999", b"9" * 400, b"[", b"{", b'"', b"null", b"true"]
PIECES += [b"\n", b" ", b"*a", b"!!"]
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=5)


def damaged(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Pieces of a file taken out and others put in."""
    for share, length, piece in edits:
        at = int(share * len(content))
        content = content[:at] + piece + content[at + length :]
    return content


def looked_at(scenes: Scenes) -> str:
    """Whether a table keeps its promises; what its audit says."""
    found = audit(scenes)
    assert {fault.kind for fault in scenes.faults} <= {*KINDS, "unreadable"}
    assert {kind for kind, *_ in scenes.faults} - {"unreadable"} <= {finding.kind for finding in found.findings}
    assert len(divide(scenes, 0).splits) == len(scenes) == len(scenes.hashes)
    for boxes, (height, width) in zip(scenes.boxes, scenes.sizes.tolist(), strict=False):
        assert np.isfinite(boxes.xyxy).all()
        assert (boxes.xyxy >= 0).all()
        assert (boxes.xyxy[:, 2:] <= [width, height]).all()
        assert (boxes.xyxy[:, :2] < boxes.xyxy[:, 2:]).all()
    assert json.dumps(found.as_json())
    assert repr(found)
    return " ".join(f"{finding.message} {finding.suggestion or '.'}" for finding in found.findings)


@pytest.mark.parametrize("form", FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits, cut=st.booleans(), which=st.integers(0, 1))
def test_damaged_files_give_a_table_or_a_sentence(
    form: str, edits: list[tuple[float, int, bytes]], cut: bool, which: int, tmp_path: Path, cache: Path
) -> None:
    writer, names = FILES[form]
    root = tmp_path / "set"
    if not root.exists():
        writer(root)
        (root / "classes.json").write_text('["cat", "dog", "void", "sky", "ground"]')
    file = root / names[which % len(names)]
    before = file.read_bytes()
    try:
        file.write_bytes(damaged(before, edits)[: len(before) // 2 if cut else None])
        try:
            scenes = read(root, "segmentation" if form == "regions" else "detection")
        except UsageError as error:
            said = str(error)
        else:
            said = looked_at(scenes)
        assert said.endswith(".")
        assert "\n" not in said
    finally:
        file.write_bytes(before)
