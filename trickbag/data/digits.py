"""The embedded data set: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, as a folder of PNG files.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from trickbag.ground.errors import UsageError


def write(folder: str | Path) -> Path:
    """The folder with the digits as grayscale PNG files in class folders 0 … 9; values 0..16 are scaled to 0..255.

    It appears whole or not at all; a folder that has them already is left as it is.
    Raises UsageError where the folder holds something else.
    """
    from sklearn.datasets import load_digits

    target, digits = Path(folder).absolute(), load_digits()
    names = [f"{label}/{row:04d}.png" for row, label in enumerate(digits.target)]
    if _complete(target, names):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".digits-", dir=target.parent))
    try:
        part.chmod(0o755)
        for label in range(10):
            (part / str(label)).mkdir()
        for name, pixels in zip(names, np.rint(digits.images * (255 / 16)).astype(np.uint8), strict=True):
            Image.fromarray(pixels).save(part / name)
        part.rename(target)
    except OSError:
        # Another process may have been first; the rename onto its full folder fails.
        if not _complete(target, names):
            raise UsageError(f"{str(target)!r} cannot be written or holds other files. Choose a new folder.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _complete(target: Path, names: list[str]) -> bool:
    return all((target / name).is_file() for name in names)
