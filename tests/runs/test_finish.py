"""A run that was stopped is scored and sealed with the best epoch that it has kept."""

from pathlib import Path
from typing import Any

import album
import pytest

import trickbag as tb
from trickbag.engine.speed import Timing
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, EpochDone, Event, Note
from trickbag.runs import auto, under_way

ASKED: dict[str, Any] = {
    "model": "cifar_resnet8", "with_": ["ema"], "set_": {"size": 16, "epochs": 5, "batch_size": 8}, "seed": 3, "out": "run",
}  # fmt: skip


class Stopped(BaseException):
    """In place of a signal."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of images, and a machine of known speed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(under_way, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(
        auto,
        "fastest",
        lambda recipe, *_: (recipe.edit(precision="fp32", channels_last=False), Timing(0.002, 0.001, 10, 1.0), "it is fast"),
    )
    album.fill(tmp_path / "photos", {"a": 0, "b": 1}, 16)
    return tmp_path


def begin(epoch: int, **changes: Any) -> None:
    """Train until an epoch is judged and the next one has begun; for epoch 0 until the first step."""
    seen = 0

    def tell(event: Event) -> None:
        nonlocal seen
        seen = max(seen, event.epoch if isinstance(event, EpochDone) else 0)
        if isinstance(event, Doing) and event.task.startswith("epoch") and seen == epoch:
            raise Stopped

    with pytest.raises(Stopped):
        tb.train("photos", progress=tell, **ASKED | changes)


def test_a_stopped_run_is_scored_with_the_best_epoch_so_far(folder: Path) -> None:
    begin(2)
    told: list[str] = []
    result = tb.finish("run", progress=lambda event: told.append(event.text if isinstance(event, Note) else ""))
    assert not store.verify(Path("run"))
    assert not Path("run/.work").exists()
    epochs = [line for line in store.lines(Path("run/log.jsonl")) if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2]
    (best,) = [line for line in epochs if line["kept"]][-1:]
    assert result.record["kept_epoch"] == best["epoch"]
    assert result.record["val"]["top1"] == pytest.approx(best["val"]["top1"])
    assert result.record["epochs"] == 5
    assert 0.4 <= result.record["trained"] < 0.6
    assert any("step 6 of 15" in text and f"best epoch is {best['epoch']} of 5" in text for text in told), told
    assert len(list(result.classifier.predict(["photos/a"]))) == 16
    trained = (Path("run") / "model.safetensors").read_bytes()
    assert tb.train("photos", **ASKED).record == result.record
    assert (Path("run") / "model.safetensors").read_bytes() == trained


def test_a_finished_run_stays_as_it_is(folder: Path) -> None:
    begin(1)
    first = tb.finish("run")
    files = {path: path.read_bytes() for path in Path("run").iterdir()}
    told: list[str] = []
    again = tb.finish("run", progress=lambda event: told.append(event.text if isinstance(event, Note) else ""))
    assert again.record == first.record
    assert told == ["run is finished already and stays as it is"]
    assert files == {path: path.read_bytes() for path in Path("run").iterdir()}


def test_a_run_without_an_epoch_says_so_and_can_go_on(folder: Path) -> None:
    begin(0)
    with pytest.raises(UsageError, match=r"run was stopped before its first epoch\. Continue it with the command"):
        tb.finish("run")
    begin(3)
    assert tb.finish("run").record["trained"] >= 0.6


def test_a_run_whose_photos_are_others_by_now_is_not_scored(folder: Path) -> None:
    begin(1)
    gone = min(Path("photos/a").iterdir())
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(UsageError, match=rf"1 image is gone \(a/{gone.name}\).*put back"):
        tb.finish("run")
    assert store.verify(Path("run"))
    gone.write_bytes(kept)
    assert tb.finish("run").record["kept_epoch"] == 1


def test_it_is_found_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(1)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert tb.finish("../run").record["kept_epoch"] == 1
    assert str(folder) not in "".join(path.read_text("utf-8", "replace") for path in (folder / "run").iterdir())


@pytest.mark.parametrize("change", ["labels", "gone"])
def test_a_run_whose_corrections_are_others_by_now_is_not_scored(folder: Path, ask, change: str) -> None:
    file = folder / "fixes.csv"
    file.write_text("path,old,new\na/00.png,a,b\n")
    begin(1, corrections=file)
    text = file.read_text()
    file.unlink() if change == "gone" else file.write_text("path,old,new\na/00.png,a,b\na/01.png,a,b\n")
    told = ask("finish", "run")
    assert told.code == 2
    assert ("there is no such file" if change == "gone" else "1 image is of another class (a/01.png)") in told.err
    assert told.err.endswith("To finish this run, put back what it began with; or train anew into another folder.\n")
    assert "--out" not in told.err
    file.write_text(text)
    assert ask("finish", "run").code == 0


def test_what_is_no_run_is_refused(folder: Path) -> None:
    for place, said in (("photos", "holds no run that was stopped"), ("none", "There is no folder none")):
        with pytest.raises(UsageError, match=said):
            tb.finish(place)
    assert not Path("none").exists()
