"""A folder that timm loads, without trickbag: its own network with the run's weights, and how images are prepared for it."""

from math import isclose, prod
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models import save_for_hf
from torch import Tensor, nn

from trickbag.engine.cutting import cut
from trickbag.engine.pixels import fitted
from trickbag.exports.graph import quiet
from trickbag.exports.parity import Program
from trickbag.ground.errors import UsageError
from trickbag.models import networks
from trickbag.runs.classifier import Classifier
from trickbag.trick import Outputs, Trick, having

CROP_MODES = {"crop": "center", "squash": "squash", "pad": "border"}
"""How timm says what becomes of images that are no squares."""
OTHER = "Choose --to onnx or --to torch, which hold the whole classifier."


def scale(trick: Trick, like: Outputs) -> float | None:
    """The factor by which a trick multiplies logits, 1.0 where it leaves them alone; None where it does anything else.

    Found by asking it about two pretended networks, whose outputs have the shapes of ``like``: an answer that depends on
    features is more than a factor, and so is one for which the network is asked twice, or about another image.

    >>> from trickbag import tricks
    >>> like = Outputs(torch.zeros(2, 5, 2, 2), torch.zeros(2, 5), torch.zeros(2, 3))
    >>> scale(tricks.parse("temperature(value=2.0)"), like), scale(tricks.parse("flip_tta"), like)
    (0.5, None)
    """
    factors: list[float] = []
    for seed in (1, 2):
        rng = torch.Generator().manual_seed(seed)
        asked: list[bool] = []
        x, *said = (torch.randn(shape, generator=rng) for shape in ((2, 3, 8, 8), *(part.shape for part in like)))
        pretended = Outputs(*said)

        def network(given: Tensor, asked: list[bool] = asked, x: Tensor = x, pretended: Outputs = pretended) -> Outputs:
            asked.append(given is x)
            return pretended

        try:
            found = trick.predict(network)(x).logits
        except (RuntimeError, ValueError, IndexError):
            return None
        factors.append(float((found * pretended.logits).sum() / pretended.logits.square().sum()))
        if asked != [True] or not torch.allclose(found, factors[-1] * pretended.logits, rtol=1e-5, atol=1e-5):
            return None
    return factors[0] if isclose(factors[0], factors[1], rel_tol=1e-5) else None


def network(classifier: Classifier) -> nn.Module:
    """Timm's own network whose logits are the run's; what multiplies these is put into its classifier.

    Raises UsageError, by name, for what such a network cannot hold: tricks that judge, a network that was rebuilt, one of
    trickbag's own.
    """
    held, card = classifier.model, classifier.card
    if not type(held.net).__module__.startswith("timm."):
        raise UsageError(f"{card.model} is no model of timm's: its code is not part of timm. {OTHER}")
    noise = torch.randn(2, card.channels, card.size, card.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = held.cpu().to(memory_format=torch.contiguous_format)(noise)
    factors = {trick: scale(trick, before) for trick in having(classifier.tricks, "predict")}
    if more := ", ".join(str(trick) for trick, factor in factors.items() if factor is None):
        raise UsageError(f"a folder of timm holds a network alone, without {more}, with which this run judges. {OTHER}")
    plain = networks.build(card.model, len(card.classes), card.channels, card.size).eval()
    surgery = ", ".join(map(str, having(classifier.tricks, "model"))) or "what was done to it"
    other = UsageError(f"{card.model} with {surgery} is another network than timm's own {card.model}. {OTHER}")
    try:
        plain.net.load_state_dict(held.net.state_dict())
    except RuntimeError:
        raise other from None
    with torch.inference_mode():
        if not torch.allclose(before.logits, plain(noise).logits, rtol=1e-4, atol=1e-5 * float(before.logits.abs().max())):
            raise other
    factor = prod(factor for factor in factors.values() if factor is not None)
    if factor != 1.0:
        if not isinstance(plain.classifier, nn.Linear):
            raise UsageError(f"{card.model} has no linear classifier to take up {', '.join(map(str, factors))}. {OTHER}")
        with torch.no_grad():
            for parameter in plain.classifier.parameters():
                parameter.mul_(factor)
    return plain.net


def save(classifier: Classifier, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``. Raises UsageError as ``network`` does."""
    card, view = classifier.card, classifier.view
    prepared = {
        "input_size": (card.channels, view.crop, view.crop),
        "interpolation": "bilinear",
        "mean": tuple(card.mean),
        "std": tuple(card.std),
        "crop_pct": view.crop / view.resize,
        "crop_mode": CROP_MODES[classifier.fit],
    }
    with quiet():
        save_for_hf(
            network(classifier),
            str(folder),
            model_config={"label_names": list(card.classes)},
            safe_serialization=True,
            data_config=prepared,
        )


def program(folder: Path, classifier: Classifier) -> Program:
    """A shipped folder -> what it says of the squares that the run's classifier cuts, since a network of timm cuts none."""
    with quiet():
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(values).mul(255)[:, None, None] for values in (classifier.card.mean, classifier.card.std))

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        squares = torch.stack(
            [cut(fitted(image, classifier.fit, classifier.card.kept), classifier.view) for image in torch.from_numpy(images)]
        ).float()
        with torch.inference_mode():
            return model((squares - mean) / std).softmax(1).numpy(), squares.numpy()

    return run
