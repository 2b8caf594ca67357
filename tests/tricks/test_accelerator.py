"""Laws of devices, on a pretended accelerator: nothing mixes two of them, and no step makes the host wait."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended import CUDA, OnAccelerator, accelerator
from torch import Tensor

from trickbag.engine.loop import Loop, Step
from trickbag.ground import store
from trickbag.ground.state import pack, unpack
from trickbag.laboratory import lab
from trickbag.recipe import Recipe
from trickbag.runs import classifier
from trickbag.runs.outcome import finish
from trickbag.tricks import bag

NAMES = list(bag())


def loop(made: Recipe) -> Loop:
    """A loop whose device is the accelerator."""
    return lab.loop(made, fabric=OnAccelerator(accelerator="cpu"))


def steps(made: Loop, count: int) -> list[Step]:
    """Its next steps."""
    return list(itertools.islice((event for event in made.train() if isinstance(event, Step)), count))


def from_a_file(state: object) -> Any:
    """A state as a file gives it back: all of its tensors lie on the CPU."""
    tensors, values = pack(state)
    return unpack({name: tensor.cpu().clone() for name, tensor in tensors.items()}, values)


@pytest.mark.parametrize("name", ["none", *NAMES])
def test_a_trick_keeps_to_the_device_and_its_steps_never_wait(name: str) -> None:
    """Trained, resumed, judged and finished. What is made once may wait in the first step."""
    recipe = lab.recipe(*([lab.example(name)] if name in NAMES else []))
    with accelerator() as device:
        made = loop(recipe)
        list(made.prepare())
        steps(made, 1)
        device.waits.clear()
        steps(made, 1)
        assert not device.waits, f"{name} makes the host wait"
        made.load(from_a_file(made.state()))
        (step,) = steps(made, 1)
        assert step.loss.device == CUDA
        made.judged()
        model, tricks = finish(made, recipe)
        assert {p.device for p in model.parameters()} == {CUDA}
        logits = made.judge.outputs(model, "test", tricks)[1]
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("name", [name for name in NAMES if "predict" in bag()[name].plugs()])
def test_a_run_that_is_loaded_predicts_on_the_device_what_was_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lab.recipe(lab.example(name), epochs=1)
    with accelerator():
        trained = loop(made)
        list(trained.prepare())
        list(trained.train())
        model, tricks = finish(trained, made)
        measured = trained.judge.outputs(model, "test", tricks)[1]
        tensors, card = classifier.export(model, tricks, made, lab.CLASSES, trained.loader.normal, 64)
        store.save_tensors(tmp_path / "model.safetensors", tensors)
        store.write(tmp_path / "model.json", store.to_json(card.plain()))
        store.seal(tmp_path)
        monkeypatch.setattr(classifier, "fabric_for", lambda _: OnAccelerator(accelerator="cpu"))
        monkeypatch.setattr(classifier, "teacher", lambda run, *_: trained.judge.network(str(run)))
        pixels = trained.judge.loaders["test"].seen
        loaded = classifier.Classifier.load(tmp_path)
        predicted = torch.cat([outputs.logits.cpu() for outputs in loaded.outputs(pixels[row] for row in range(len(pixels)))])
    torch.testing.assert_close(predicted, measured)


def test_validation_waits_once() -> None:
    with accelerator() as device:
        made = loop(lab.recipe())
        device.waits.clear()
        made.judge.batch_size = 3
        made.judge.score(made.model)
        assert device.waits.total() == 1


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (lambda loss: loss + torch.zeros(16), "add.Tensor of tensors on cuda:0 and the CPU"),
        (lambda loss: loss + torch.rand(16, generator=torch.Generator(), device=loss.device), "generator of the CPU"),
    ],
)
def test_what_fails_on_an_accelerator_fails_here(does: Callable[[Tensor], Tensor], said: str) -> None:
    with accelerator(), pytest.raises(RuntimeError, match=said):
        does(torch.ones(16, device=CUDA))


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x[torch.tensor([0, 2])],
        lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
        lambda x: torch.zeros(3).copy_(x),
        lambda x: x.repeat_interleave(torch.ones(3, dtype=torch.int64, device=x.device)),
    ],
)
def test_each_way_to_wait_is_counted(waits: Callable[[Tensor], Any]) -> None:
    with accelerator() as device:
        x = torch.ones(3).to(CUDA, non_blocking=True)
        assert not device.waits
        waits(x)
        assert device.waits.total() == 1


def test_its_numbers_are_those_of_the_cpu_and_outside_of_it_there_is_no_accelerator() -> None:
    pinned = Tensor.pin_memory
    with accelerator():
        far = [step.loss.item() for step in steps(loop(lab.recipe("sam", "ema")), 2)]
        left = torch.ones(3, device=CUDA)
    assert far == pytest.approx([step.loss.item() for step in steps(lab.loop(lab.recipe("sam", "ema")), 2)], rel=1e-5)
    assert Tensor.pin_memory is pinned
    with pytest.raises(RuntimeError, match="outside of it"):
        left + 1
