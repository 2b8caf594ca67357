"""A folder that holds another run: what differs is named, and what can be done; nobody is told to remove anything."""

import re
import shutil
from pathlib import Path
from typing import Any

import album
import numpy as np
import pytest
from PIL import Image

from trickbag.engine.speed import Timing
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.events import silent
from trickbag.models import networks
from trickbag.recipe import Recipe
from trickbag.runs import auto, provenance, run
from trickbag.runs.request import Request, request
from trickbag.studies.conduct import Conductor, Means
from trickbag.studies.planning import Planner

KINDS = {"a": 0, "b": 1}
ASKED: dict[str, Any] = {"model": "cifar_resnet8", "budget": 120.0, "set_": {"size": 16, "epochs": 3}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of images, a machine of known speed, and the folder of a run that was begun on them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(auto, "fastest", lambda recipe, *_: (decided(recipe), Timing(0.002, 0.001, 10, 1.0), "it is fast"))
    album.fill(tmp_path / "photos", KINDS, 12)
    run.concrete(asked(), Path("run"), silent)
    return tmp_path / "photos"


def decided(recipe: Recipe) -> Recipe:
    return recipe.edit(precision="fp32", channels_last=False)


def asked(**changes: Any) -> Request:
    return request("photos", **{**ASKED, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(UsageError) as caught:
        run.finished(asked(**changes), Path("run"))
    said = str(caught.value)
    assert "remove" not in said
    assert said.startswith("run holds another run: ")
    assert "Choose another --out" in said
    return said


def first(photos: Path) -> Path:
    return min((photos / "a").iterdir())


def test_the_same_request_is_no_other_run(folder: Path) -> None:
    assert not run.finished(asked(), Path("run"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": 300.0}, "budget was 2 min 0 s and is now 5 min 0 s"),
        ({"budget": 0}, "budget was 2 min 0 s and is now without limit"),
        ({"set_": {"size": 16, "epochs": 30}}, "epochs was 3 and is now 30"),
        ({"set_": {"size": 24, "epochs": 3}}, "size was 16 and is now 24"),
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"with_": ["mixup(alpha=0.4)"]}, r"tricks: without mixup\(alpha=0.4\)"),
        ({"without": ["warmup"]}, r"tricks: with warmup\(share=0.1\)"),
        ({"recipe": "cifar"}, "recipe was auto and is now as given"),
    ],
)
def test_what_was_asked_otherwise_is_named(folder: Path, changes: dict[str, Any], said: str) -> None:
    told = refusal(**changes)
    assert re.search(said, told)
    assert "image" not in told


def test_only_what_differs_is_named(folder: Path) -> None:
    assert refusal(seed=7) == "run holds another run: seed was 0 and is now 7. Choose another --out."


def test_a_longer_training_is_offered_the_weights(folder: Path) -> None:
    told = refusal(set_={"size": 16, "epochs": 30}, budget=600)
    assert "--weights run" in told
    assert "trickbag finish run" in told
    assert "--weights" not in refusal(set_={"size": 24, "epochs": 30})


def test_other_weights_under_the_same_name_are_named(folder: Path) -> None:
    for seed in (0, 1):
        state = networks.build("cifar_resnet8", 3, size=32).net.state_dict()
        state["conv1.weight"] = state["conv1.weight"] + seed
        store.save_tensors(Path("w.safetensors"), state)
        if not seed:
            shutil.rmtree("run")
            run.concrete(asked(weights="w.safetensors"), Path("run"), silent)
    assert "the content of w.safetensors has changed" in refusal(weights="w.safetensors")


def test_a_photo_that_is_gone_new_renamed_or_changed_is_named(folder: Path) -> None:
    gone = first(folder)
    gone.rename(folder / "b.png")
    kept = (folder / "b.png").read_bytes()
    (folder / "b.png").unlink()
    told = refusal()
    assert told.startswith(f"run holds another run: 1 image is gone (a/{gone.name}). Choose another --out, or put back")
    gone.with_name("new.png").write_bytes(kept)
    assert f"1 image is renamed (a/{gone.name} is now a/new.png)" in refusal()
    gone.write_bytes(kept)
    told = refusal()
    assert "1 image is new (a/new.png)" in told
    assert "put back" not in told
    gone.with_name("new.png").unlink()
    assert not run.finished(asked(), Path("run"))
    Image.fromarray(album.texture(0, np.random.default_rng(99))).save(gone)
    assert f"1 image has another content (a/{gone.name})" in refusal()


def test_names_that_cannot_be_printed_are_kept_and_shown(folder: Path) -> None:
    odd = first(folder).rename(folder / "a" / "line\nbreak,\udcff.png")
    shutil.rmtree("run")
    run.concrete(asked(), Path("run"), silent)
    assert not run.finished(asked(), Path("run"))
    odd.unlink()
    assert r"1 image is gone (a/line\x0abreak,\xff.png)" in refusal()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", None])
@pytest.mark.parametrize("name", [provenance.ASKED, provenance.IMAGES])
def test_where_it_is_not_known_that_is_said(folder: Path, name: str, damage: bytes | None) -> None:
    file = Path("run", name)
    file.unlink() if damage is None else file.write_bytes(damage)
    assert "what it was asked for is not known" in refusal(seed=3)


def test_another_version_of_the_code_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ENGINE", 1)
    shutil.rmtree("run")
    run.concrete(asked(), Path("run"), silent)
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(Request, "key", "another key")
    assert re.search(r"made by was trickbag [\d.]+, engine 1 and is now trickbag [\d.]+, engine \d", refusal())


def test_a_folder_of_other_things_is_not_to_be_removed(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"photos is not empty and holds no run that can be continued. Choose another --out\.$"
    ):
        run.finished(asked(), Path("photos"))


def test_a_study_says_what_differs_too(folder: Path) -> None:
    asked: dict[str, Any] = {"recipe": "cifar", "model": "cifar_resnet8", "tricks": ["mixup"], "set": {"size": 16, "epochs": 1}}
    planner = Planner("photos", None, "study", None, silent, asked)
    Conductor(planner, Means()).write(planner.planned())

    def refused(**changes: Any) -> str:
        with pytest.raises(UsageError) as caught:
            Planner("photos", None, "study", None, silent, asked | changes).reference()
        assert "remove" not in str(caught.value)
        return str(caught.value)

    assert refused(seed=3) == "study holds another study: seed was 0 and is now 3. Choose another --out."
    assert "on was val and is now test" in refused(on="test")
    assert "lr was" in refused(set={"size": 16, "epochs": 1, "lr": 0.3})
    gone = first(folder)
    gone.unlink()
    assert f"1 image is gone (a/{gone.name})" in refused()
