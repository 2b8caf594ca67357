"""Errors that were written for the command line, as Python code reads them."""

import pytest

from trickbag.ground.spoken import in_python

PARAMETERS = {
    "with_",
    "without",
    "set_",
    "plugins",
    "out",
    "depth",
    "open_set",
    "rotate",
    "to",
    "weights",
    "reference",
    "ray",
    "recipe",
}
SENTENCES = [
    ("Name a file of your own with --plugin.", "Name a file of your own with plugins."),
    ("--out 'x y' is a file. Choose another --out.", "out='x y' is a file. Choose another out."),
    ("--out runs/a is a run.", 'out="runs/a" is a run.'),
    ("--without flip: the recipe has it not.", 'without="flip": the recipe has it not.'),
    ("Add --with 'box_crop(a=1)'.", "Add with_='box_crop(a=1)'."),
    ("or add --with warmup or --with ema.", 'or add with_="warmup" or with_="ema".'),
    ("Lower the rate (--set lr=…), or", 'Lower the rate (set_="lr=…"), or'),
    ("Add images, or give --no-rotate.", "Add images, or give rotate=False."),
    ("--open-set counts its images as unknown.", "open_set counts its images as unknown."),
    ("Choose --to onnx or --to torch, which", 'Choose to="onnx" or to="torch", which'),
    ("Choose another --recipe, or --to detection.", 'Choose another recipe, or to="detection".'),
    ("Give --weights FILE, or --weights none.", 'Give weights=FILE, or weights="none".'),
    ("--reference 'D': there is no such method.", "reference='D': there is no such method."),
    ("--ray ray://a:10: not reached. No --num-cpus=0.", 'ray="ray://a:10": not reached. No --num-cpus=0.'),
    ("Give --depth 1 if the top folder is it.", "Give depth=1 if the top folder is it."),
    ("See trickbag check 'a b.tar' --depth 1. Remove --depth.", "See trickbag check 'a b.tar' --depth 1. Remove depth."),
    ("(list them: trickbag check a --depth 1)", "(list them: trickbag check a --depth 1)"),
]


@pytest.mark.parametrize(("typed", "read"), SENTENCES)
def test_options_become_parameters_and_commands_stay(typed: str, read: str) -> None:
    assert in_python(typed, PARAMETERS) == read
    assert in_python(read, PARAMETERS) == read
