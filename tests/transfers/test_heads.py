"""Heads find what was planted, and their losses behave."""

import pytest
import torch
from torch import Tensor

from trickbag.ground.errors import UsageError
from trickbag.transfers.detectors import Target
from trickbag.transfers.heads import HEADS, build

SIZE = (64, 96)
EVERY = [(task, head) for task in HEADS for head in HEADS[task]]


def scenes(task: str, count: int = 4) -> tuple[Tensor, list]:
    """Noise with a bright square of class 0 and a dark one of class 1, at different places."""
    draw = torch.Generator().manual_seed(1)
    x = 0.2 * torch.randn(count, 3, *SIZE, generator=draw)
    boxes, regions = [], torch.full((count, *SIZE), 2)
    for i in range(count):
        places = torch.tensor([[4, 8, 32, 36], [52, 20, 84, 52]]) + torch.tensor([4, 3, 4, 3]) * (i % 3)
        for label, (left, top, right, bottom) in enumerate(places.tolist()):
            x[i, :, top:bottom, left:right] += 2 - 4 * label
            regions[i, top:bottom, left:right] = label
        boxes.append(Target(places.float(), torch.tensor([0, 1])))
    return x, boxes if task == "detection" else regions


def head(task: str, name: str, model: str = "test_resnet", classes: int = 3, **options):
    torch.manual_seed(0)
    return build(task, name, model, classes, size=SIZE, **options)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_every_parameter_learns_and_a_second_pass_with_the_same_seed_is_the_same(task, name):
    x, y = scenes(task)
    grads = []
    for _ in range(2):
        net = head(task, name, norms="trained")
        torch.manual_seed(7)
        net.loss(x, y).backward()
        grads.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert all(g is not None for g in grads[0].values())
    assert all(torch.equal(g, grads[1][n]) for n, g in grads[0].items())


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_unknown_heads_and_sizes_are_refused(task, name):
    with pytest.raises(UsageError, match=f"no head 'yolo' for {task}. Choose"):
        build(task, "yolo", "test_resnet", 2)
    with pytest.raises(UsageError, match="96 x 100 pixels do not fit: give multiples of 32"):
        build(task, name, "test_resnet", 2, size=(96, 100))
