"""Keyed randomness: every draw comes from a generator named by (seed, stream, keys), so there is no state to save.

The number of loader workers or ranks changes no draw, a resumed run needs no generator state, and switching one
trick on moves no other trick's draws. The idea: ``fold_in`` of JAX; here a BLAKE2b hash of the whole key.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_SEED = 2_000_000_000
"""What is added to a seed for folds and proofs must still fit 32 bits, the most that other libraries take."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key(seed: int, stream: str, *keys: int) -> int:
    """The 63-bit number that names one point of one stream.

    >>> key(0, "mixup", 3) == key(0, "mixup", 3), key(0, "mixup", 3) == key(0, "cutmix", 3)
    (True, False)
    """
    text = "/".join((str(seed), stream, *map(str, keys)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, *keys: int) -> torch.Generator:
    """A fresh CPU generator at that point.

    >>> torch.equal(torch.rand(2, generator=generator(0, "flip", 1)), torch.rand(2, generator=generator(0, "flip", 1)))
    True
    """
    return torch.Generator().manual_seed(key(seed, stream, *keys))


def seed_layers(number: int, device: str = "cpu") -> None:
    """Seed what layers on a kind of device draw from, which take no generator.

    >>> seed_layers(key(0, "model", 7))
    """
    if device == "cpu":  # torch.manual_seed also notes, each time with a traceback, what absent accelerators are to do
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


def uniforms(point: int, places: Tensor, count: int) -> Tensor:
    """[B, count] floats drawn uniformly from [0, 1), float64: row b's are those of the integers ``places[b]``, places [B, n],
    at a point of a stream (``key``).

    One call for a whole batch, and still a generator for each image: a row is the output of SplitMix64, begun at a hash of
    its place (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 13).

    >>> drawn = uniforms(key(0, "flip", 1), torch.tensor([[5, 0], [7, 0]]), 3)
    >>> torch.equal(drawn[1:], uniforms(key(0, "flip", 1), torch.tensor([[7, 0]]), 3))
    True
    """
    states = np.full(len(places), point, np.uint64)
    for column in places.numpy().astype(np.uint64).T:
        states = _mixed(states + (column + np.uint64(1)) * _GOLDEN)
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return torch.from_numpy((_mixed(states[:, None] + steps) >> np.uint64(11)) * 2.0**-53)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """One float drawn uniformly from [low, high).

    >>> 2 <= uniform(generator(0, "size"), 2, 3) < 3
    True
    """
    return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))


def beta(rng: torch.Generator, a: float, b: float) -> float:
    """One float drawn from Beta(a, b), a and b positive.

    Two gamma draws in log space, G(a) = G(a + 1) U^(1/a), since draws for small parameters underflow
    (Devroye, "Non-Uniform Random Variate Generation", 1986, section IX.3).

    >>> 0 <= beta(generator(0, "mixup"), 0.2, 0.2) <= 1
    True
    """
    shapes = torch.tensor([a, b], dtype=torch.float64)
    gammas = torch._standard_gamma(shapes + 1, generator=rng)
    uniforms = 1 - torch.rand(2, generator=rng, dtype=torch.float64)
    x, y = gammas.log() + uniforms.log() / shapes
    return float(torch.sigmoid(x - y))
