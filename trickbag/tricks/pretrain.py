"""Pretraining on one's own images: before the first step the network learns from them without labels.

Formula: two views of each image, cut, mirrored and augmented as training images are, then a square of U(0.2, 1) of the area,
  brightness, contrast and saturation times U(0.6, 1.4) and hue by up to 0.1 turns (with probability 0.8), grey (0.2), blurred
  (0.5). simclr: z = normalise(g(features)), the cross-entropy of z_i z_j / 0.1 over the other 2B - 1 views of a batch, the
  other view of the same image being right. byol: ||normalise(q(g(features))) - normalise(g'(features'))||^2 in both directions,
  g' and the network behind it an average of the weights, a = 1 - 0.01 (1 + cos(pi t)) / 2. g and q are two layers with a norm,
  thrown away at the end; AdamW with a cosine after a warmup of a tenth. Norm statistics are then estimated on training images.
Paper: simclr: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
  arXiv:2002.05709; byol: Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, arXiv:2006.07733.
Helps: few labelled and many unlabelled images; images unlike those that published weights know; training from scratch.
Hurts: few images in all; good weights and short pretraining; classes told apart by colour (simclr and byol).
Costs: for each of its epochs two views of every image, labelled or not, are trained on before the first step, anew in each
  run (mae: one); memory for a whole batch of them.
"""

import copy
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate, normalize, pixel_shuffle, pixel_unshuffle
from torch.optim import AdamW
from torchvision.transforms.v2 import functional

from trickbag.ground.errors import UsageError
from trickbag.ground.norms import batch_norms, estimate_norms
from trickbag.ground.streams import generator, key, seed_layers, uniform
from trickbag.trick import Beside, Fit, Outputs, Stage, Trick

TEMPERATURE = 0.1
WIDTH = 256
"""Of the layer behind the features, and of the vectors that are compared."""
LEAVE = 0.01
"""What a step leaves of the average's old weights less than all, at first."""
HIDDEN = 0.6
"""Share of an image's squares that are blanked."""
SQUARES = 6
"""The fewest to a side of an image."""


def altered(image: Tensor, size: int, rng: Generator) -> Tensor:
    """A uint8 image [C, size, size] as pretraining shows it; without three channels, hue and saturation stay."""
    side = max(1, round(size * math.sqrt(uniform(rng, 0.2, 1))))
    top, left = (int(uniform(rng, 0, size - side + 1)) for _ in range(2))
    image = functional.resized_crop(image, top, left, side, side, [size, size], antialias=True)
    brightness, contrast, saturation = (uniform(rng, 0.6, 1.4) for _ in range(3))
    hue, jittered, grey, blurred = uniform(rng, -0.1, 0.1), uniform(rng) < 0.8, uniform(rng) < 0.2, uniform(rng) < 0.5
    sigma = uniform(rng, 0.1, 2)
    if jittered:
        bands = functional.adjust_contrast(functional.adjust_brightness(image.unsqueeze(1), brightness), contrast)
        image = bands.squeeze(1)
    if jittered and len(image) == 3:
        image = functional.adjust_hue(functional.adjust_saturation(image, saturation), hue)
    if grey and len(image) == 3:
        image = functional.rgb_to_grayscale(image, 3)
    return functional.gaussian_blur(image, [2 * (size // 20) + 1] * 2, [sigma] * 2) if blurred else image


def contrastive(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Vectors [B, D] of two views of each image -> the loss of SimCLR, a scalar; B at least 2.

    >>> round(contrastive(torch.eye(2), torch.eye(2), 1.0).item(), 4)
    0.5514
    """
    z = normalize(torch.cat([a, b]), dim=1)
    alike = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return cross_entropy(alike, torch.arange(len(z), device=z.device).roll(len(a)))


def regression(predicted: Tensor, target: Tensor) -> Tensor:
    """Vectors [B, D] -> the squared distance of their directions, the mean over the batch: a scalar in [0, 4].

    >>> regression(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item()
    2.0
    """
    return (2 - 2 * cosine_similarity(predicted, target)).mean()


def hidden(count: int, squares: int, rng: Generator) -> Tensor:
    """Which squares of each of ``count`` images are blanked [count, 1, squares, squares]: of each the same number.

    >>> hidden(2, 4, torch.Generator()).sum((1, 2, 3)).tolist()
    [10.0, 10.0]
    """
    places = torch.rand(count, squares**2, generator=rng).argsort(1).argsort(1)
    return (places < round(HIDDEN * squares**2)).float().view(count, 1, squares, squares)


def reconstruction(predicted: Tensor, images: Tensor, blanked: Tensor) -> Tensor:
    """The squared error of normalised pixels over blanked squares, a scalar.

    ``predicted`` [B, C u^2, g, g] has the pixels of each square as ``pixel_unshuffle`` orders those of ``images``
    [B, C, g u, g u]; ``blanked`` [B, 1, g, g] is 1 where a square counts.

    >>> reconstruction(torch.zeros(1, 4, 1, 1), torch.tensor([[[[0.0, 2.0], [2.0, 0.0]]]]), torch.ones(1, 1, 1, 1)).item()
    0.9999990463256836
    """
    target = pixel_unshuffle(images, images.shape[-1] // blanked.shape[-1])
    target = (target - target.mean(1, keepdim=True)) / (target.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    error = (predicted - target).square().mean(1, keepdim=True)
    return (error * blanked).sum() / blanked.sum()


def layers(inputs: int) -> nn.Sequential:
    """What stands behind the features for as long as they are learned."""
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


class Body(nn.Module):
    """Images -> the vectors that are compared [B, WIDTH]."""

    def __init__(self, model: Any, features: int) -> None:
        super().__init__()
        self.model, self.projector = model, layers(features)

    def forward(self, x: Tensor) -> Tensor:
        """Through the network and what stands behind it."""
        found: Tensor = self.projector(self.model(x).features)
        return found


class Learner(nn.Module):
    """The network with its loss, and what stands behind it for as long as it learns."""

    def follow(self, t: float) -> None:
        """Let an average follow, where there is one; ``t``: the share of the steps that was done before this one."""


class SimCLR(Learner):
    """The loss is that of telling views of one image from those of others."""

    def __init__(self, model: Any, seen: Outputs, rng: Generator) -> None:
        super().__init__()
        self.body = Body(model, seen.features.shape[1])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of two views [B, C, H, W]."""
        first, second = self.body(torch.cat([a, b])).chunk(2)
        return contrastive(first, second, TEMPERATURE)


class BYOL(Learner):
    """The loss is that of predicting what the network's average says of the other view."""

    def __init__(self, model: Any, seen: Outputs, rng: Generator) -> None:
        super().__init__()
        self.body, self.predictor = Body(model, seen.features.shape[1]), layers(WIDTH)
        self.average = copy.deepcopy(self.body).requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of two views [B, C, H, W], in both directions."""
        with torch.no_grad():
            targets = self.average(a), self.average(b)
        return regression(self.predictor(self.body(a)), targets[1]) + regression(self.predictor(self.body(b)), targets[0])

    @torch.no_grad()
    def follow(self, t: float) -> None:
        """By less and less."""
        for old, new in zip(self.average.parameters(), self.body.parameters(), strict=True):
            old.lerp_(new, LEAVE * (1 + math.cos(math.pi * t)) / 2)


class MAE(Learner):
    """The loss is that of predicting the pixels of blanked squares."""

    def __init__(self, model: Any, seen: Outputs, rng: Generator) -> None:
        super().__init__()
        depth, places = seen.maps.shape[1], seen.maps.shape[-1]
        if places == 1:
            raise UsageError(
                f"pretrain(method='mae') needs a network whose last map has several places: {model.name} has one at "
                f"{model.shape[-1]} pixels. Choose larger images (size), another network or another method."
            )
        self.model, self.rng = model, rng
        self.halves = 2 ** math.ceil(max(0.0, math.log2(SQUARES / places)))
        self.squares = places * self.halves
        self.pixels = max(1, round(model.shape[-1] / self.squares))
        self.predictor = nn.Conv2d(depth, model.shape[0] * (self.pixels * self.halves) ** 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of images [B, C, H, W]."""
        blanked = hidden(len(x), self.squares, self.rng).to(x.device)
        maps = self.model(x * (1 - interpolate(blanked, x.shape[-2:]))).maps
        images = interpolate(x, 2 * [self.squares * self.pixels], mode="bilinear", antialias=True)
        return reconstruction(pixel_shuffle(self.predictor(maps), self.halves), images, blanked)


LEARNERS: dict[str, Callable[[Any, Outputs, Generator], Learner]] = {"simclr": SimCLR, "byol": BYOL, "mae": MAE}


class Pretrain(Trick):
    """Learn features from one's own images, labelled or not, before the first step."""

    stage = Stage.LABEL
    folder, before = "unlabelled", "epochs"
    neutral = {"epochs": 0}
    example = "pretrain(epochs=1)"
    method: Literal["simclr", "byol", "mae"] = "simclr"
    """How: by telling views of one image from those of others (simclr), by predicting one view from another (byol), or by
    predicting what is blanked from the rest (mae)."""
    unlabelled: str = ""
    """A folder with more images, which have no labels; empty: the training images alone."""
    epochs: Annotated[int, Field(ge=0, le=100_000)] = 20
    """Passes over all these images; 0: none."""
    images: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    """Images per step."""
    rate: Annotated[float, Field(gt=0, le=1000)] = 1e-3
    """Learning rate at its largest."""

    def beside(self) -> Beside:
        """None in the steps of training; two views before, of mae one."""
        return Beside(0, ((),) if self.method == "mae" else ((altered,), (altered,)))

    def prepare(self, model: Any, fit: Fit) -> Any:
        """Train, and keep of it the network alone. Raises UsageError where the loss is no finite number."""
        if not self.epochs:
            return model
        device = next(model.parameters()).device
        seed_layers(key(fit.facts.seed, self.name()), device.type)
        with torch.no_grad():
            seen = model.eval()(torch.zeros(1, *model.shape, device=device))
        learner = LEARNERS[self.method](model, seen, generator(fit.facts.seed, self.name())).to(device)
        optimizer = AdamW([p for p in learner.parameters() if p.requires_grad], self.rate)
        for t, x in fit.unlabelled(self.epochs, self.images):
            learner.train()
            for group in optimizer.param_groups:
                group["lr"] = self.rate * min(1.0, 10 * t) * (1 + math.cos(math.pi * t)) / 2
            loss = learner(*x.unbind(1))
            if not loss.isfinite():
                raise UsageError(f"{self}: the loss of pretraining is no finite number. Lower its rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            learner.follow(t)
        model.zero_grad(set_to_none=True)
        estimate_norms(model, batch_norms(model), (batch.x for batch in fit.batches()))
        return model
