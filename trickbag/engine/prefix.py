"""What lies below a frozen network is computed once: the features of each training image, as far as its views are finite."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from trickbag.engine.loader import Loader
from trickbag.models.networks import Net
from trickbag.trick import Batch, Outputs, Stage, Trick, having

MOST_BYTES = 1 << 30
"""Features that would take more are computed anew in each epoch."""


def views(loader: Loader, tricks: Sequence[Trick]) -> int:
    """How many views of a training image the network is ever shown; 0 where there is no end of them."""
    drawn = any(having(tricks, point) for point in ("window", "mirror", "augment"))
    mixed = any(trick.stage < Stage.LABEL for trick in having(tricks, "batch"))
    if mixed or any(having(tricks, point) for point in ("views", "size", "forward")):
        return 0
    return loader.versions or (0 if drawn else 1)


def still(model: Net) -> bool:
    """Whether all below the classifier stays as it is in this step: no weight learns, no statistics move, nothing is drawn."""
    heads = model.head_names
    if not model.separable or any(p.requires_grad for name, p in model.named_parameters() if name not in heads):
        return False
    return not any(module.training and _restless(module) for module in model.modules())


def _restless(module: nn.Module) -> bool:
    """By the names that torch and timm give to chances of leaving something out."""
    if isinstance(module, _BatchNorm):
        return module.track_running_stats or module.affine
    chances = ["p"] if isinstance(module, _DropoutNd) else ["drop_prob", "drop_rate", "prob"]
    return any(bool(getattr(module, name, 0)) for name in chances)


class Prefix:
    """The network in training, with the features of its frozen part looked up. Other results differ as rounding does, since
    features are computed in other batches."""

    def __init__(self, loader: Loader, tricks: Sequence[Trick], epochs: int, size: int, batch_size: int) -> None:
        count = views(loader, tricks)
        self.pays = 0 < count < epochs
        self.loader, self.views, self.size, self.batch_size = loader, count, size, batch_size
        self.features: dict[int, Tensor] = {}

    def outputs(self, network: Callable[[Tensor], Outputs], model: Any, batch: Batch) -> Outputs:
        """What the network says of a training batch."""
        if not self.pays or not still(model):
            self.features.clear()
            return network(batch.x)
        if batch.version not in self.features:
            found = self._computed(model, batch.version)
            if found is None:
                self.pays = False
                return network(batch.x)
            self.features[batch.version] = found
        features = self.features[batch.version][batch.rows.to(batch.x.device, non_blocking=True)]
        return Outputs(features[:, :, None, None], features, model.classifier(features))

    @torch.no_grad()
    def _computed(self, model: Net, version: int) -> Tensor | None:
        """The features [N, D] of all training images in order; None where those of all views would take too much memory."""
        parts: list[Tensor] = []
        for batch in self.loader.fixed(version, self.size, self.batch_size):
            parts.append(model.features(batch.x))
            if self.views * len(self.loader.labels) * parts[0][0].nbytes > MOST_BYTES:
                return None
        return torch.cat(parts)
