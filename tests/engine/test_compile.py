"""Compiled steps are the eager ones but for rounding, whatever the length of a batch."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from trickbag.laboratory.lab import Trained, train

pytestmark = [
    pytest.mark.skipif(
        not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU"
    ),
    pytest.mark.skipif(
        os.environ.get("ATEN_CPU_CAPABILITY") == "default", reason="torch.compile writes code for vector units on a CPU"
    ),
]


def six_steps(compiled: bool) -> Trained:
    """The laboratory's 41 images in batches of 32 and 9, three times. The rate is small, since in such a network rounding
    may switch a ReLU, and one switch moves the gradient by a thousandth."""
    return train("flip", epochs=3, batch_size=32, lr=0.002, compile=compiled)


def test_compiled_steps_agree_with_eager_ones_and_so_do_those_of_a_short_last_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # torch takes kernels of another processor for its own
    torch._dynamo.reset()
    counters.clear()
    eager = six_steps(compiled=False)
    assert not counters["stats"]
    compiled = six_steps(compiled=True)
    assert counters["stats"]["unique_graphs"] == 2
    assert eager.losses[-1] < 0.95 * eager.losses[0]
    torch.testing.assert_close(compiled.losses, eager.losses, rtol=2e-6, atol=0)
    torch.testing.assert_close(compiled.live, eager.live, rtol=1e-5, atol=1e-5)
