"""Patch dropout: in training, a vision transformer sees a random part of each image's patches.

Formula: of L patches each image keeps max(1, floor(L * (1 - rate))), drawn uniformly in each pass, after position embeddings
  are added; class and register tokens stay. Judged images keep all. The layer is timm's PatchDropout.
Paper: Liu et al., "PatchDropout: Economizing Vision Transformers Using Patch Dropout", WACV 2023, arXiv:2208.07220; Li et al.,
  "Scaling Language-Image Pre-training via Masking", CVPR 2023, arXiv:2212.00794.
Helps: vision transformers on large images: a step takes about the kept share of its time and memory, and training is
  regularised.
Hurts: small images, of few patches, and objects that fill few of them.
Costs: less than nothing.
"""

from typing import Annotated, Any

from pydantic import Field
from timm.layers.patch_dropout import PatchDropout
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick


class DropPatches(Trick):
    """Leave out a share of the patches in training.

    >>> import torch
    >>> PatchDropout(0.5, num_prefix_tokens=1)(torch.zeros(2, 197, 8)).shape
    torch.Size([2, 99, 8])
    """

    stage = Stage.SHAPE
    neutral = {"rate": 0.0}
    alters = "training"
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the patches that are left out."""

    def model(self, model: Any) -> Any:
        """Put timm's layer in its place. Raises UsageError where timm's network has none, or drops patches already."""
        if not self.rate:
            return model
        place, prefix = (getattr(model.net, name, None) for name in ("patch_drop", "num_prefix_tokens"))
        if not isinstance(place, nn.Identity) or prefix is None:  # without prefix tokens timm's place is one of rows of maps
            raise UsageError(
                f"{self}: {model.name} has no place where timm drops patches. Choose a plain vision transformer, such as "
                "vit_small_patch16_224, or remove drop_patches."
            )
        model.net.patch_drop = PatchDropout(self.rate, prefix)
        return model
