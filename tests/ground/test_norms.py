"""Running statistics that are estimated anew, against the formula in float64."""

import copy

import pytest
import timm
import torch
from reference import norm_statistics
from torch import nn

from trickbag.ground.norms import batch_norms, estimate_norms


@pytest.mark.parametrize("sizes", [(16, 16, 2), (2, 16, 16), (5,), (7, 1)])
@pytest.mark.parametrize("model", ["resnet10t", "efficientnet_lite0"])
def test_statistics_are_means_over_images_whatever_the_batches(model: str, sizes: tuple[int, ...]) -> None:
    """A last batch of two images counts as two images; timm's own norms count as torch's."""
    net = timm.create_model(model, num_classes=2)
    batches = list((torch.randn(sum(sizes), 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 3 + 1).split(sizes))
    momenta = [norm.momentum for norm in batch_norms(net)]
    expected = norm_statistics(copy.deepcopy(net), batches)
    estimate_norms(net, batch_norms(net), batches)
    for name, norm in net.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            torch.testing.assert_close(norm.running_mean.double(), expected[name][0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var.double(), expected[name][1], rtol=1e-4, atol=1e-5)
    assert [norm.momentum for norm in batch_norms(net)] == momenta
    assert not any(module.training for module in net.modules())
