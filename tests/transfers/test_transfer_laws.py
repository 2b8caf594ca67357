"""The laws of the bag, where its tricks train detectors and segmenters: neutral values, other draws, resuming."""

from collections.abc import Iterator
from typing import Any

import marked
import pytest
import torch

from trickbag.engine.loop import Loop, Step
from trickbag.engine.precision import fabric_for
from trickbag.laboratory.lab import example
from trickbag.scenes.reading import read
from trickbag.scenes.table import Scenes
from trickbag.transfers.assemble import assemble
from trickbag.transfers.recipe import ACTS, TransferRecipe
from trickbag.tricks import bag, parse

HERE = sorted(name for name in bag() if set(example(name).plugs()) <= ACTS and not example(name).networks)
NEUTRAL = [name for name in HERE if bag()[name].neutral is not None]
WRITERS = {"detection": marked.voc, "segmentation": marked.regions}
HEADS = {"detection": "fcos", "segmentation": "fcn"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scenes]]:
    """A data set for each task, and a cache for their pixels."""
    place = tmp_path_factory.mktemp("scenes")
    (place / "cache").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(place / "cache"))
        yield {task: read(write(place / task), task) for task, write in WRITERS.items()}


def loop(scenes: dict[str, Scenes], task: str, *tricks: Any) -> Loop:
    """Two epochs of a tiny network."""
    fields = {"model": "cifar_resnet8", "size": 32, "epochs": 2, "batch_size": 2, "lr": 1e-3, "norms": "trained"}
    recipe = TransferRecipe(task=task, head=HEADS[task], tricks=tricks, **fields)
    return assemble(recipe, scenes[task], 0, fabric_for("fp32"))


def trained(made: Loop) -> dict[str, torch.Tensor]:
    """The weights at the end."""
    list(made.train())
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_bag_has_tricks_of_every_kind_that_act_here() -> None:
    assert {"adamw", "cosine", "warmup", "ema", "swa", "sam", "flip", "random_resized_crop", "clip_gradient"} <= set(HERE)
    assert not {"mixup", "label_smoothing", "knn", "distill"} & set(HERE)


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_value_changes_no_bit(scenes: dict[str, Scenes], name: str) -> None:
    trick = bag()[name]
    plain, neutral = loop(scenes, "detection"), loop(scenes, "detection", trick(**trick.neutral))
    assert same(trained(plain), trained(neutral))


@pytest.mark.parametrize("name", HERE)
def test_a_trick_that_acts_here_trains_and_stops_and_goes_on(scenes: dict[str, Scenes], name: str) -> None:
    """Stopped after the first step and continued from its state in another loop, it ends with the same weights."""
    task = "segmentation"
    whole, stopped = loop(scenes, task, example(name)), loop(scenes, task, example(name))
    for event in stopped.train():
        if isinstance(event, Step):
            break
    resumed = loop(scenes, task, example(name))
    resumed.load(stopped.state())
    ends = trained(whole), trained(resumed)
    assert same(*ends)
    assert all(value.isfinite().all() for value in ends[0].values())


def test_a_trick_moves_no_other_draw(scenes: dict[str, Scenes]) -> None:
    """With mirror images beside them, the windows are those that they were."""
    both = loop(scenes, "detection", parse("random_resized_crop"), parse("flip(p=0.5)"))
    one = loop(scenes, "detection", parse("random_resized_crop"))
    windows = [
        [frame.window for frame in made.loader.drawn(torch.arange(2), _keys(made))]  # type: ignore[attr-defined]
        for made in (both, one)
    ]
    assert windows[0] == windows[1]


def _keys(made: Loop) -> Any:
    from trickbag.engine.loader import Keys

    return Keys(0, 0, torch.arange(2), torch.zeros(2, dtype=torch.int64))
