"""Fine-tuning with fastai as its quick start has it: Resize, aug_transforms, a batch of 64, ``fine_tune(epochs)``.

Trains on all of ``train``, validates nowhere on the way, and scores ``test`` after the clock has stopped. Prints JSON.
"""

import argparse
import json
import time
from pathlib import Path

began = time.monotonic()

from fastai.vision.all import (  # noqa: E402 - the clock of a user begins before the imports
    Callback,
    CancelValidException,
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("data", type=Path, help="a folder with train and test, class folders in each")
parser.add_argument("--model", default="mobilenetv2_100")
parser.add_argument("--weights", type=Path, required=True)
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


class Unjudged(Callback):
    """Leaves out the validation of every epoch."""

    def before_validate(self):
        raise CancelValidException


set_seed(args.seed)
loaders = ImageDataLoaders.from_folder(
    args.data, train="train", valid="test", item_tfms=Resize(args.size), batch_tfms=aug_transforms()
)
learner = vision_learner(
    loaders, args.model, metrics=accuracy, pretrained=True, pretrained_cfg_overlay={"file": str(args.weights)}
)
with learner.no_bar(), learner.no_logging():
    learner.fine_tune(args.epochs, cbs=Unjudged())
    seconds = time.monotonic() - began
    top1 = learner.validate()[1]
print(json.dumps({"top1": top1, "seconds": round(seconds, 1), "epochs": args.epochs}))
