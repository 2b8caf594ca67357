"""One of timm's families with every trick that rebuilds networks; ``python -m benchmarks.families`` asks all of them."""

import pytest

from benchmarks.families import ALONE, LARGEST, Family, outcomes, surgeons
from trickbag.laboratory.lab import example

SAMPLED = ("dla46_c", "efficientvit_b0", "lowformer_b0", "gmlp_ti16_224")


@pytest.mark.parametrize("name", SAMPLED)
def test_a_family_trains_and_predicts_with_every_surgeon_or_refuses_in_a_sentence(name: str) -> None:
    found = dict(outcomes(Family(name, name, 0), surgeons()))
    assert found.keys() == {ALONE, *surgeons()}
    assert found[ALONE].startswith("ok")
    assert [f"{arm}: {said}" for arm, said in found.items() if said.startswith("fault")] == []
    assert all(said.endswith(".") for said in found.values() if said.startswith("refused"))


def test_a_network_that_is_too_large_is_left_out_with_the_reason() -> None:
    assert dict(outcomes(Family("resnet152", "ResNet", LARGEST + 1), [])) == {ALONE: "left out: 40 million parameters"}


def test_surgeons_are_the_tricks_that_rebuild() -> None:
    assert all("model" in example(name).plugs() for name in surgeons())
    assert len(surgeons()) >= 12
