"""Grad-CAM: where in an image a network sees what it says."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trickbag.ground.errors import UsageError
from trickbag.trick import Outputs


def grad_cam(model: Any, x: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Outputs]:
    """Images [B, C, H, W] and a class each [B] (None: the predicted one) -> maps [B, H, W] in 0..1, and what the network says.

    A map is the last feature maps weighed by the mean gradient of the class's logit, where that is positive, enlarged to the
    image and divided by its maximum; 0 everywhere where nothing speaks for the class. With a mean over places and a linear
    classifier on top it is the class activation map of Zhou et al. (CVPR 2016). Selvaraju et al., "Grad-CAM", ICCV 2017,
    arXiv:1610.02391, eq. 1 and 2. Raises UsageError where the network has no maps that its logits come from.
    """
    model.eval()
    with torch.enable_grad():
        outputs: Outputs = model(x.detach().requires_grad_())
        chosen = outputs.logits.argmax(1) if classes is None else classes
        told = outputs.logits.gather(1, chosen[:, None]).sum()
        (slope,) = torch.autograd.grad(told, outputs.maps, allow_unused=True)
    if slope is None or outputs.maps.shape[-1] * outputs.maps.shape[-2] == 1:
        raise UsageError(f"{model.name} has no feature maps to look at. Explain a convolutional network, or larger images.")
    maps = (slope.mean((2, 3), keepdim=True) * outputs.maps).sum(1).relu().detach()
    peaks = maps.amax((1, 2), keepdim=True)
    maps = maps / torch.where(peaks > 0, peaks, 1)
    return interpolate(maps[:, None], x.shape[-2:], mode="bilinear", align_corners=False)[:, 0], outputs
