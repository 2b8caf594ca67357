"""Heads find what was planted, their losses behave, and torchvision's own detectors say the same."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from trickbag.engine.loop import param_groups
from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, estimate_norms
from trickbag.transfers.detectors import Detector, Target
from trickbag.transfers.heads import HEADS, Task, build
from trickbag.transfers.segmenters import Segmenter
from trickbag.tricks import parse

SIZE = (64, 96)
EVERY = [(task, head) for task in HEADS for head in HEADS[task]]
DETECTORS = list(HEADS["detection"])
SEGMENTERS = list(HEADS["segmentation"])


def scenes(task: Task, count: int = 4) -> tuple[Tensor, Any]:
    """Noise with a bright square of class 0 and a dark one of class 1, at different places; all else is class 2."""
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


def head(task: Task, name: str, classes: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    return build(task, name, "test_resnet", classes, size=SIZE, **options)


def trained(net: Any, x: Tensor, y: Any, lr: float, steps: int) -> list[float]:
    """The losses of some steps on one batch; then norms whose statistics are of the last weights."""
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=lr), []
    for step in range(steps):
        net.train()
        torch.manual_seed(step)
        loss = net.loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    estimate_norms(net, batch_norms(net), [x])
    return losses


@pytest.mark.parametrize(("name", "lr", "steps"), [("faster_rcnn", 1e-3, 40), ("fcos", 2e-3, 60)])
def test_a_detector_finds_the_boxes_that_it_was_shown(name: str, lr: float, steps: int) -> None:
    x, y = scenes("detection", 2)
    net: Detector = head("detection", name, norms="trained")
    losses = trained(net, x, y, lr, steps)
    assert losses[-1] < losses[0] / 2
    for (xyxy, labels, scores), target in zip(net.predict(x), y, strict=True):
        assert len(xyxy) == len(labels) == len(scores) <= 100
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        assert set(labels[:2].tolist()) == {0, 1}
        best = xyxy[[labels[:2].tolist().index(k) for k in target.labels.tolist()]]
        assert box_iou(best, target.xyxy).diagonal().min() > 0.5


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_finds_the_regions_that_it_was_shown(name: str) -> None:
    x, y = scenes("segmentation")
    net: Segmenter = head("segmentation", name, norms="trained")
    losses = trained(net, x, y, 1e-2, 20)
    assert losses[-1] < losses[0] / 4
    with torch.no_grad():
        logits = net.predict(x)
    assert logits.shape == (4, 3, *SIZE)
    assert (logits.argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_every_parameter_learns_and_a_second_pass_with_the_same_seed_is_the_same(task: Task, name: str) -> None:
    x, y = scenes(task)
    grads = []
    for _ in range(2):
        net = head(task, name, norms="trained")
        torch.manual_seed(7)
        net.loss(x, y).backward()
        grads.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert [n for n, g in grads[0].items() if g is None] == []
    assert [n for n, g in grads[0].items() if not torch.equal(g, grads[1][n])] == []


@pytest.mark.parametrize(("name", "first"), [("faster_rcnn", 1), ("fcos", 0)])
def test_torchvisions_own_way_through_a_detector_says_the_same(name: str, first: int) -> None:
    x, y = scenes("detection")
    net: Detector = head("detection", name)
    theirs = copy.deepcopy(net.core)
    theirs.transform = GeneralizedRCNNTransform(*SIZE, [0.0] * 3, [1.0] * 3, _skip_resize=True)
    torch.manual_seed(3)
    parts = theirs(list(x), [{"boxes": target.xyxy, "labels": target.labels + first} for target in y])
    torch.manual_seed(3)
    assert torch.allclose(net.loss(x, y), sum(parts.values()), atol=1e-5)
    net.eval()
    with torch.no_grad():
        for (xyxy, labels, scores), found in zip(net.predict(x), theirs.eval()(list(x)), strict=True):
            assert torch.allclose(xyxy, found["boxes"], atol=1e-4)
            assert torch.equal(labels + first, found["labels"])
            assert torch.allclose(scores, found["scores"], atol=1e-5)


def test_fcos_is_the_one_that_torchvision_assembles() -> None:
    net: Detector = head("detection", "fcos", classes=2)
    strides = net.core.backbone.strides
    assert strides == [8, 16, 32, 64]
    anchors = detection.anchor_utils.AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * len(strides))
    theirs = detection.FCOS(net.core.backbone, 2, *SIZE, [0.0] * 3, [1.0] * 3, anchors, score_thresh=0.01)
    theirs.load_state_dict(net.core.state_dict())
    x, y = scenes("detection")
    parts = theirs(list(x), [{"boxes": target.xyxy, "labels": target.labels} for target in y])
    assert torch.allclose(net.loss(x, y), sum(parts.values()), atol=1e-5)


@pytest.mark.parametrize("name", DETECTORS)
def test_images_without_boxes_teach_that_there_are_none(name: str) -> None:
    x, y = scenes("detection")
    none = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for targets in ([none] * 4, [none, *y[1:]]):
        net: Detector = head("detection", name)
        net.loss(x, targets).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
        assert any(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("name", SEGMENTERS)
def test_the_loss_is_the_mean_of_the_pixels_that_count_and_0_where_none_does(name: str) -> None:
    x, y = scenes("segmentation")
    net: Segmenter = head("segmentation", name)
    y[0], y[1, :40] = 255, 255
    torch.manual_seed(4)
    logits = net.predict(x)
    torch.manual_seed(4)
    assert torch.allclose(net.loss(x, y), cross_entropy(logits.permute(0, 2, 3, 1)[y != 255], y[y != 255]))
    nothing = net.loss(x, torch.full_like(y, 255))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not any(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_bf16_says_nearly_the_same_even_of_a_box_of_a_tenth_of_a_pixel(task: Task, name: str) -> None:
    x, y = scenes(task)
    if task == "detection":
        y[0] = Target(torch.tensor([[90.1, 44.1, 90.2, 44.2]]), torch.tensor([1]))
    net = head(task, name)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = net.loss(x, y)
        loss.backward()
        losses.append(loss.detach())
    assert losses[1].dtype is torch.float32
    assert torch.allclose(losses[0], losses[1], rtol=0.05)
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found = net.eval().predict(x)
    assert {part.dtype for part in (found if task == "segmentation" else [b for b, _, _ in found])} == {torch.float32}


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_a_state_is_read_back_and_one_class_is_enough(task: Task, name: str) -> None:
    x, y = scenes(task)
    net = head(task, name, classes=1)
    one = [Target(t.xyxy[:1], t.labels[:1]) for t in y] if task == "detection" else y.where(y == 0, 255)
    assert net.loss(x, one).isfinite()
    torch.manual_seed(9)
    again = build(task, name, "test_resnet", 1, size=SIZE)
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        before, after = net.eval().predict(x[:2]), again.eval().predict(x[:2])
    for one_image, same in zip(before, after, strict=True):
        for ours, theirs in zip(one_image, same, strict=True):
            assert torch.equal(ours, theirs)
    if task == "detection":
        assert {k for _, labels, _ in before for k in labels.tolist()} <= {0}


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_a_network_of_three_fine_strides_carries_every_head(task: Task, name: str) -> None:
    x, y = scenes(task, 1)
    net = build(task, name, "cifar_resnet8", 3, size=SIZE)
    net.loss(x, y).backward()
    with torch.no_grad():
        assert len(net.eval().predict(x)) == 1


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_the_head_is_what_is_not_the_body(task: Task, name: str) -> None:
    net = head(task, name)
    own = {id(parameter) for parameter in net.body.parameters()}
    names = {n for n, p in net.named_parameters() if id(p) not in own}
    assert names
    assert net.head_names == names
    assert {id(p) for p in net.classifier.parameters()} == {id(p) for n, p in net.named_parameters() if n in names}
    assert {n for n, layer in net.layers.items() if layer == max(net.layers.values())} == names
    assert net.depths.keys() == dict(net.named_parameters()).keys()


def test_tricks_tell_the_body_from_the_head() -> None:
    x, y = scenes("segmentation", 2)
    net: Segmenter = head("segmentation", "fcn")

    def scales(spelling: str) -> dict[str, float]:
        groups = param_groups(net, [parse(spelling)], 0.01)
        return {name: group["lr_scale"] for group in groups for name in group["names"]}

    by_depth, by_part = scales("layer_decay(rate=0.5)"), scales("head_lr(times=10)")
    assert {by_depth[name] for name in net.head_names} == {1.0}
    assert by_depth["body.net.conv1.0.weight"] < by_depth["body.net.layer4.0.conv1.weight"] < 1
    assert {name for name, scale in by_part.items() if scale == 10} == net.head_names

    def compute() -> Tensor:
        loss: Tensor = net.loss(x, y)
        loss.backward()
        return loss.detach()

    parse("freeze").gradient(compute, net, 0.0)()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == net.head_names


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_unknown_heads_and_sizes_are_refused(task: Task, name: str) -> None:
    with pytest.raises(UsageError, match=f"no head 'yolo' for {task}. Choose"):
        build(task, "yolo", "test_resnet", 2)
    with pytest.raises(UsageError, match="96 x 100 pixels do not fit: give multiples of 32"):
        build(task, name, "test_resnet", 2, size=(96, 100))
