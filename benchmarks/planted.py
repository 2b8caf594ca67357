"""A planted harm, found: a tenth of the training labels are those of random images.

    OMP_NUM_THREADS=1 python -m benchmarks.planted

cifar_resnet8 for eight epochs on scikit-learn's digits, with and without the harm, 25 seeds. Prints a Markdown table.
"""

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import origin
from trickbag.data import digits
from trickbag.report.tables import markdown
from trickbag.studies.conduct import study

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from shelves import more_tricks

SEEDS = 25


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, more_tricks():
        os.environ["TRICKBAG_CACHE"] = str(Path(folder) / "cache")
        data = digits.write(Path(folder) / "digits")
        small = {"model": "cifar_resnet8", "set": {"epochs": 8, "batch_size": 64}}
        harm = ["shuffled_labels(share=0.1)"]
        made = study(data, recipe="cifar", tricks=harm, design="add-one", seeds=SEEDS, out=Path(folder) / "study", **small)
    print(origin(), markdown(made.findings), sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
