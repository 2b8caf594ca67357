"""Dihedral: mirror images and quarter turns, the eight ways to lay a square.

Formula: one of the ways that the fields allow, all equally likely: transposed or not, then turned upside down or not, then left
  to right or not. Turns alone make 4 ways, left_right or up_down alone 2, both 4, turns with either of them all 8.
Paper: Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016, arXiv:1602.07576, section 4.3 (the group p4m);
  Veeling et al., "Rotation Equivariant CNNs for Digital Pathology", MICCAI 2018, arXiv:1806.03962, with p4m augmentation.
Helps: photographs without an up, such as cells, satellites, textures; few images.
Hurts: whatever has an up: faces, rooms, writing, landscapes.
Costs: nothing; but images are then turned one by one, and no longer cut a batch at once in a GPU's memory. Where mirror images
  will do, flip(vertical=0.5) keeps that, and moves boxes and regions too.
"""

import torch
from torch import Generator, Tensor

from trickbag.ground.orientations import laid, ways
from trickbag.trick import Stage, Transform, Trick


class Dihedral(Trick):
    """Lay each image one of eight ways; any number of channels.

    >>> import torch
    >>> (transform,) = Dihedral(left_right=False, up_down=False, turns=False).augment()
    >>> transform(torch.tensor([[[1, 2], [3, 4]]]), 2, Generator())
    tensor([[[1, 2],
             [3, 4]]])
    """

    stage = Stage.PIXEL
    neutral = {"left_right": False, "up_down": False, "turns": False}
    left_right: bool = True
    """Whether left and right may change places."""
    up_down: bool = True
    """Whether up and down may change places."""
    turns: bool = True
    """Whether images may be turned by quarters."""

    def augment(self) -> list[Transform]:
        """One way per image."""
        allowed = ways(self.left_right, self.up_down, self.turns)

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            return laid(image, allowed[int(torch.randint(len(allowed), (), generator=rng))])

        return [apply]
