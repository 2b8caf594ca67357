"""Laws on a trick of one's own: a good one obeys them all, and each fault is found by its law, with what to look at."""

from pathlib import Path

import own
import pytest

import trickbag as tb
from trickbag import plugins
from trickbag.laboratory.laws import LAWS
from trickbag.laboratory.verdicts import verdict

BATCH = '''"""Brightness: {title}

Formula: x -> x + step.
Paper: none.
Helps: nothing.
Hurts: nothing.
Costs: nothing.
"""

import random
from typing import Annotated

import torch
from pydantic import Field

from trickbag.trick import Stage, Trick

seen = []


class Brighter(Trick):
    """Brighter images.

    >>> Brighter().step
    0.5
    """

    stage, neutral = Stage.MIX, {{"step": 0.0}}
    step: {field} = 0.5
    """How much brighter."""

    def batch(self, batch, t, rng):
        {does}
'''
GOOD = "Annotated[float, Field(ge=0, le=1)]"
DOES = "return batch._replace(x=batch.x + self.step)"
MORE = "\n\n    def {point}(self, {given}):\n        {does}"
LOSS = DOES + MORE.format(
    point="loss", given="outputs, y", does="p = outputs.logits.exp(); ce = -(y * (p / p.sum(1)[:, None]).log()).sum(1)"
)
CANCELS = "big = torch.eye(2) * 257; return (big @ big).float()[0, 0] - 257**2"
FAULTS = {
    "neutral": ({"does": "return batch._replace(x=batch.x + self.step + 0.1)"}, "brighter(step=0.0) changes weights"),
    "acting": ({"does": "return batch"}, "ends with the same weights and predictions as one without"),
    "bounded": ({"field": "float"}, "step has no bounds"),
    "documented": ({"title": "no end"}, "a sentence with a full stop"),
    "shapes": ({"does": "return batch._replace(y=batch.y * 2)"}, "do not sum to 1"),
    "resuming": ({"does": "seen.append(1); return batch._replace(x=batch.x + self.step * len(seen))"}, "same seed differ"),
    "apart": ({"does": "return batch._replace(x=batch.x + self.step * torch.rand(()))"}, "global generator of torch"),
    "apart ": ({"does": "return batch._replace(x=batch.x + self.step * random.random())"}, "global generator of random"),
    "exact": ({"does": LOSS + "; return ce - ce.mean()"}, "loss of a sample alone is [0.0], and among others"),
    "exact ": ({"does": LOSS + "; return ce"}, "loss is [nan, "),
    "few": ({"does": "return batch._replace(x=batch.x + self.step * batch.y[:, 2].mean())"}, "IndexError: index 2"),
    "single": (
        {"does": "return batch._replace(x=batch.x / (batch.x - batch.x.mean(0)).norm())"},
        "of step 1 is no finite number",
    ),
    "half": ({"does": DOES + MORE.format(point="penalty", given="batch, outputs, model, t", does=CANCELS)}, "in bf16 and"),
    "far": ({"does": LOSS + "; return ce"}, "the loss of step 1 is no finite number"),
    "families": ({"does": "assert batch.x.shape[-1] < 32; " + DOES}, "brighter.py, line 33: AssertionError"),
}


def source(**changes: str) -> str:
    """A trick with a fault."""
    return BATCH.format(**{"title": "lighter images.", "field": GOOD, "does": DOES} | changes)


@pytest.mark.parametrize("law", FAULTS)
def test_a_fault_is_found_by_its_law(law: str, tmp_path: Path, cache: Path) -> None:
    changes, said = FAULTS[law]
    (tried,) = (one for one in LAWS if one.__name__ == law.strip())
    with plugins.using(own.write(tmp_path, "brighter", source(**changes))):
        found = verdict(tried, "brighter")
    assert not found.obeyed
    assert said in found.why


def test_a_run_that_keeps_state_elsewhere_does_not_resume(tmp_path: Path, cache: Path) -> None:
    keeps = "object.__setattr__(self, '_n', getattr(self, '_n', 0) + 1); return batch._replace(x=batch.x * (1 + self._n))"
    (tried,) = (one for one in LAWS if one.__name__ == "resuming")
    text = source(does=keeps).replace("    step: ", "    _n: int = 0\n    step: ")
    with plugins.using(own.write(tmp_path, "brighter", text)):
        found = verdict(tried, "brighter")
    assert "made in setup, in attributes that end in _" in found.why


def test_a_good_trick_obeys_them_all(tmp_path: Path, cache: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own.write(Path(), "brighter", source())
    told = ask("laws", "brighter.py")
    assert told.code == 0, told.out
    idle = told.out.count("\nidle ")
    assert f"brighter: {len(LAWS) - idle} laws obeyed, 0 broken, {idle} with nothing to say of it" in told.out
    lines = told.out.splitlines()
    assert [line.split()[1] for line in lines[: len(LAWS)]] == [law.__name__ for law in LAWS]


def test_one_that_is_broken_is_exit_code_1(tmp_path: Path, cache: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trickbag.laboratory.verdicts.LAWS", LAWS[:4])
    told = ask("laws", own.write(tmp_path, "brighter", source(field="float")))
    assert told.code == 1
    assert [line.split()[:2] for line in told.out.splitlines() if "no bounds" in line] == [["broken", "bounded"]]
    assert ", 1 broken, " in told.out
    assert (
        repr(tb.laws(own.write(tmp_path, "brighter", source(field="float")), progress=False))
        == "<laws of brighter: obeyed 3 of 4>"
    )
    none = ask("laws", own.write(tmp_path, "scores", own.SCORES))
    assert none.code == 2
    assert "holds no trick, and the laws are those of tricks" in none.err
