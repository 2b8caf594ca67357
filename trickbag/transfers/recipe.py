"""How a classifier becomes a detector or a segmenter, as one frozen value; TOML in and out."""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trickbag.models.card import CARD
from trickbag.recipe import Training
from trickbag.transfers.heads import HEADS, Task

ACTS = frozenset(
    {"window", "mirror", "batch_size", "groups", "optimizer", "lr", "setup", "gradient", "update"}
    | {"after_step", "eval_model"}
)
"""Where tricks act on images with boxes or regions. All else is about classes of images."""


class TransferRecipe(Training):
    """How a detector or a segmenter is trained on the body of a classifier.

    Examples:
        >>> TransferRecipe.load("detection").head
        'faster_rcnn'

    """

    built_in: ClassVar[str] = "trickbag.transfers.recipes"

    task: Task = "detection"
    """detection: boxes; segmentation: the class of each pixel."""
    head: str = "faster_rcnn"
    """What is put on the body: faster_rcnn or fcos; fcn or unet."""
    norms: Literal["auto", "frozen", "trained"] = "auto"
    """Batch norms of the body: auto freezes those that come with weights, and trains those that start from scratch."""
    model: str = "resnet50"
    """A timm network, or the folder of a run of trickbag."""
    size: Annotated[int, Field(ge=32, le=4096)] = 320
    """Pixels of the longer side of the images that the network sees."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 4
    """Images per step over all devices."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the network."""
    keep: Literal["best", "last"] = "last"
    """Which epoch is kept: the best on validation or the last."""

    @property
    def from_run(self) -> bool:
        """Whether the body is that of a run of trickbag."""
        return os.path.isfile(Path(self.model) / CARD)

    def model_post_init(self, _: Any) -> None:
        """Check what spans fields."""
        if self.head not in HEADS[self.task]:
            raise ValueError(f"head={self.head!r} is not one for {self.task}: choose {' or '.join(HEADS[self.task])}")
        for trick in self.tricks:
            if not set(trick.plugs()) <= ACTS:
                raise ValueError(
                    f"{trick} acts on images that have one class each, and these have {MARKS[self.task]}: leave it out. "
                    "Optimisers, schedules, averages of weights, flip and random_resized_crop act here too"
                )


MARKS: dict[Task, str] = {"detection": "boxes", "segmentation": "regions"}
