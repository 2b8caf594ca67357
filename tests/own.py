"""Plugins as a user would write them."""

from pathlib import Path

INVERT = '''"""Inversion: the negative of some images.

Formula: x -> 255 - x with probability share.
Paper: none.
Helps: where light and dark say nothing.
Hurts: where they do.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field

from trickbag.trick import Stage, Trick


def negative(image):
    """A uint8 image -> its negative.

    >>> negative(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    [255, 0]
    """
    return 255 - image


class Invert(Trick):
    """The negative of some images."""

    stage, neutral = Stage.PIXEL, {"share": 0.0}
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the images."""

    def augment(self):
        def transform(image, size, rng):
            return negative(image) if torch.rand((), generator=rng) < self.share else image

        return [transform]
'''

THIN = '''"""A network of two layers."""

import timm
from torch import nn


class Thin(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_chans, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU())
        self.head = nn.Linear(16, num_classes)

    def get_classifier(self):
        return self.head

    def forward_features(self, x):
        return self.body(x)

    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


@timm.models.register_model
def thin(num_classes=10, in_chans=3, **_):
    return Thin(num_classes, in_chans)
'''

MAPS = '''"""A small residual network, which has maps of several strides."""

import timm
from timm.models.resnet import BasicBlock, ResNet


@timm.models.register_model
def maps(num_classes=10, in_chans=3, **_):
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes, in_chans, channels=(8, 16, 32, 64), stem_width=8)
'''

SIGNS = '''"""Steps of one length: only the sign of the gradient counts.

Formula: w -> w - rate sign(g).
Paper: none.
Helps: where gradients differ in size.
Hurts: near the minimum.
Costs: nothing.
"""

import torch

from trickbag.trick import Stage, Trick


class Signs(Trick):
    """Only the sign of the gradient counts."""

    stage = Stage.GRADIENT

    def optimizer(self, groups, lr):
        return torch.optim.Rprop(groups, lr=1e-3, step_sizes=(1e-6, 1e-2))
'''

TOP2 = '''"""Metrics of one's own."""

import trickbag


@trickbag.metric
def top2(labels, probabilities):
    return (probabilities.argsort(1)[:, -2:] == labels[:, None]).any(1)
'''

SCORES = f"""{TOP2}

@trickbag.metric(better="lower")
def doubt(labels, probabilities):
    return 1 - probabilities.max(1).mean()
"""

KILLS = '''"""Kills its process once, after a checkpoint."""

import os
import signal
from pathlib import Path

from trickbag.trick import Stage, Trick


class Kills(Trick):
    stage = Stage.MIX

    def batch(self, batch, t, rng):
        flag = Path(__file__).with_suffix(".killed")
        if any(Path("run/.work").glob("step-*")) and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch._replace(x=batch.x * (1 + t))
'''


def write(place: Path, name: str, source: str) -> str:
    """A plugin's file."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{name}.py"
    file.write_text(source, "utf-8")
    return str(file)


def install(place: Path, name: str, source: str) -> Path:
    """A tiny package that enters one trick, as pip would leave it."""
    write(place / "extras", "__init__", "")
    write(place / "extras", name, source)
    info = place / "extras-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[trickbag.tricks]\n{name} = extras.{name}\n")
    return place
