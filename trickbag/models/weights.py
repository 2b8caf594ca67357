"""Files of weights whose network is not named, and tensors that lie under other names there."""

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open

from trickbag.ground.errors import UsageError
from trickbag.models.networks import Shapes, body_of, heads_of, local, prefix_of, shapes_of

KNOWN = (
    *(f"cifar_resnet{depth}" for depth in (8, 20, 32, 56)),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet18d", "resnet26d", "resnet34d", "resnet50d"),
    *("resnext50_32x4d", "wide_resnet50_2", "seresnet50", "densenet121", "vgg16", "vgg16_bn", "inception_v3"),
    *("mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "regnety_008", "regnety_016", "regnety_032"),
    *(f"efficientnet_b{n}" for n in range(5)),
    *("tf_efficientnetv2_s", "ghostnet_100", "convnext_atto", "convnext_tiny", "convnext_small", "convnext_base"),
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"),
)
"""Networks that are tried by their tensors."""
OTHERS = 2
"""Tensors that may have another shape: the first layer by the channels, position embeddings by the size of the images."""


def network(weights: str) -> str:
    """The name of the network in a .safetensors file or a run's folder: where the file says it, or by its tensors.

    Raises UsageError where there is no such file, or none of the networks that are known here fits.
    """
    file = local(weights)
    shapes = shapes_of(file)
    for name in [*_named(file), *KNOWN]:
        if timm.is_model(name) and fits(name, shapes):
            return name
    names = sorted(shapes)
    count = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
    raise UsageError(
        f"{weights} does not say which model it is for, and its {len(names)} tensors ({count:,} numbers, {names[0]} to "
        f"{names[-1]}) match none of the common ones. Name the model in that file with --model."
    )


def prefix(weights: str, name: str) -> str:
    """What stands before the names of a network's tensors in a file; empty where nothing does."""
    own, heads = _tensors(name)
    return prefix_of(shapes_of(local(weights)), body_of(own, heads))


def fits(name: str, shapes: Shapes) -> bool:
    """Whether a file's tensors are those of a network but for the classifier."""
    own, heads = _tensors(name)
    body = body_of(own, heads)
    before = prefix_of(shapes, body)
    there = {n.removeprefix(before): shape for n, shape in shapes.items() if n.startswith(before)}
    there = {n: there[n] for n in body_of(there, heads) if not n.startswith("tricks/")}
    return there.keys() == body and sum(list(there[n]) != list(own[n]) for n in body) <= OTHERS


def _named(file: Path) -> list[str]:
    """What a file, those beside it and its name say of its network."""
    found: list[Any] = []
    for beside, key in (("model.json", "model"), ("config.json", "architecture")):
        with suppress(OSError, ValueError, AttributeError):
            found.append(json.loads((file.parent / beside).read_text("utf-8")).get(key))
    with suppress(SafetensorError, OSError), safe_open(file, "pt") as tensors:
        held = tensors.metadata() or {}
        found += [held.get(key) for key in ("model", "architecture", "arch")]
    return [name.partition(".")[0] for name in [*found, file.stem] if isinstance(name, str)]  # without timm's tag of weights


@cache
def _tensors(name: str) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """The shapes of a network's tensors by name, and the names of its classifiers."""
    with torch.device("meta"):
        net = timm.create_model(name)
    return {n: list(t.shape) for n, t in net.state_dict().items()}, heads_of(net)
