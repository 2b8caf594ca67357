"""What is listed without importing it, against what importing it gives; and what a list or a help text may import."""

import subprocess
import sys

import pytest

from trickbag.ground import glance
from trickbag.terminal.cli import app
from trickbag.trick import card
from trickbag.tricks import bag


def test_the_list_says_what_the_tricks_themselves_say() -> None:
    listed = glance.shelf()
    assert list(listed) == list(bag())
    for name, trick in bag().items():
        assert listed[name] == (card(trick), trick.plugs(), "")


LISTS = ("torch", "torchvision", "timm", "lightning_fabric", "torchmetrics", "sklearn", "matplotlib", "pyarrow", "PIL")
"""What nothing waits for that only lists."""
HEAVY = (*LISTS, "numpy", "scipy", "rich", "jinja2", "safetensors", "filelock", "huggingface_hub")
"""What no help waits for."""
HELPS = [[command.name or str(command.callback.__name__), "--help"] for command in app.registered_commands if command.callback]


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (["--help"], (*HEAVY, "pydantic")),
        *((words, HEAVY) for words in HELPS),
        (["tricks"], LISTS),
        (["tricks", "--for", "speed"], LISTS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_only_lists_imports_nothing_heavy(words: list[str], without: tuple[str, ...]) -> None:
    code = (
        "import sys, trickbag.terminal.cli\n"
        f"sys.argv[1:] = {words!r}\n"
        "try:\n    trickbag.terminal.cli.main()\nexcept SystemExit:\n    pass\n"
        "imported = {name for name, module in sys.modules.items() if module}\n"  # typer keeps pydantic's place free
        f"sys.exit(', '.join(imported & set({without!r})) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert not done.stderr
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5
