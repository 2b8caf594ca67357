"""Small data sets on disk: PNG files of textures that a tiny network tells apart after some steps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

TINY = """\
model = "cifar_resnet8"
size = 16
crop_share = 1.0
epochs = 2
batch_size = 16
lr = 0.05
precision = "fp32"
channels_last = false
mean = [0.5]
std = [0.25]
tricks = ["flip", "warmup", "cosine"]
"""


def texture(kind: int, rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """uint8 [30, 36, channels]: waves along x, along y, or across, and noise; the phase is random."""
    y, x = np.mgrid[:30, :36]
    wave = np.sin((x, y, x + y)[kind] * 0.6 + rng.uniform(0, 6))
    return (128 + 70 * wave[..., None] + rng.normal(0, 25, (30, 36, channels))).clip(0, 255).astype(np.uint8)


def fill(root: Path, kinds: Mapping[str, int], count: int, seed: int = 0, channels: int = 3) -> Path:
    """``count`` images of each class below a folder; ``kinds`` maps a class path to its texture."""
    rng = np.random.default_rng(seed)
    for name, kind in kinds.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = texture(kind, rng, channels)
            if channels > 3:
                np.save(root / name / f"{number:02d}.npy", pixels)
            else:
                Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(root / name / f"{number:02d}.png")
    return root


def recipe_file(path: Path, text: str = TINY) -> Path:
    """A recipe of a few steps."""
    path.write_text(text)
    return path
