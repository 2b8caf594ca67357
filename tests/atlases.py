"""Studies as an atlas reads them, made up: what each found of its tricks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from findings import effect

from trickbag.report.atlas import Regime, Source
from trickbag.report.findings import Effect
from trickbag.studies.atlas import Found

GAINS: dict[str, tuple[float, ...]] = {
    "ema": (0.008, 0.006, 0.011, 0.005),
    "mixup(alpha=0.2)": (0.002, -0.011, 0.015, 0.001),
    "sam": (0.012, 0.009, 0.016, 0.013),
    "random_erasing": (-0.009, -0.006, -0.011, -0.008),
}
"""By trick and data set."""
PRICES = {"sam": 2.0}
ERROR = 0.003


def measured(name: str, difference: float, error: float | None = ERROR, **fields: Any) -> Effect:
    """An effect with a difference and a standard error."""
    known = {"difference": difference, "error": error, "seconds_ratio": PRICES.get(name, 1.0)} | fields
    return effect(name, np.full(3, difference) + 1e-4 * np.arange(3), **known)


def found(data: str, effects: Mapping[str, Effect], regime: Regime = "fine-tuning", timed: bool = True, **fields: Any) -> Found:
    """A study of a data set."""
    about = {"folder": f"studies/{data}", "fingerprint": f"of {data}", "model": "resnet50", "epochs": 12, "images": 900}
    return Found(Source(**(about | {"data": data, "seeds": 3} | fields)), regime, dict(effects), timed)


def sets(count: int = 4, regime: Regime = "fine-tuning", prefix: str = "set ") -> list[Found]:
    """Studies of as many data sets, which all measured the tricks of GAINS."""
    return [
        found(f"{prefix}{k}", {name: measured(name, gains[k]) for name, gains in GAINS.items()}, regime) for k in range(count)
    ]
