"""What a command answered."""

import sys
from typing import NamedTuple

import pytest

from trickbag.terminal import cli


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Here(NamedTuple):
    """The command line in this process."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *words: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["trickbag", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = int(left.code or 0)
        return Answer(code, *self.capsys.readouterr())
