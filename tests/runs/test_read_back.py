"""A classifier that is read from its files answers as the training did that wrote them, whatever its tricks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from trickbag.engine.assemble import kept_pixels
from trickbag.engine.sets import sets_of
from trickbag.ground import store
from trickbag.laboratory.lab import CLASSES, dataset, example, train
from trickbag.models.card import CARD, WEIGHTS
from trickbag.runs.classifier import Classifier, export
from trickbag.runs.outcome import finish
from trickbag.tricks import bag

LASTING = {"model", "view", "adapt", "predict", "sets"}
"""What is asked for a trained network too."""
NAMES = [name for name, trick in bag().items() if LASTING & set(trick.plugs()) and name != "ensemble"]  # of other folders


def written(place: Path, made: Any) -> Classifier:
    """The classifier of a training, from its files."""
    done = finish(made, made.recipe)
    tensors, card = export(done.model, done.tricks, made.recipe, CLASSES, made.loader.normal, kept_pixels(made.recipe))
    store.write(place / WEIGHTS, save({name: value.contiguous() for name, value in tensors.items()}))
    store.write(place / CARD, store.to_json(card.plain()))
    store.seal(place)
    return Classifier.load(place)


@pytest.mark.parametrize("tricks", [*((name,) for name in NAMES), ("ghost_norm", "adabn"), ("lora", "adabn")], ids=" ".join)
def test_the_answers_are_those_of_the_training(tricks: tuple[str, ...], tmp_path: Path) -> None:
    trained = train(*map(example, tricks), epochs=1)
    data, pixels = dataset()
    shown = [image for image, split in zip(pixels, data.images.splits, strict=True) if split == "test"]
    known = written(tmp_path, trained.loop)
    known = known.adapted(len(shown), lambda order: (shown[place] for place in order))
    logits = torch.cat([outputs.logits for outputs in known.outputs(shown)])
    torch.testing.assert_close(logits, trained.logits, rtol=1e-4, atol=1e-4)
    found = sets_of(known.tricks, logits)
    assert found is trained.sets is None or torch.equal(found, trained.sets)
