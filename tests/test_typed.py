"""Types as a user's own ``mypy --strict`` sees them, over every public name."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import trickbag as tb
from trickbag.tricks import bag

HOUSE = Path(__file__).parent.parent
TYPED = HOUSE / "tests" / "typed"
STUB = HOUSE / "trickbag" / "__init__.pyi"
"""What type checkers and editors read of trickbag's names, which are imported when they are asked for."""
COMMAND = f"python {Path(__file__).relative_to(HOUSE)}"


def stub() -> str:
    """The public names and all tricks, each from where it is."""
    names = [(tb._ROOM_OF[name], name) for name in tb.__all__] + [(one.__module__, one.__name__) for one in bag().values()]
    names = [("trickbag", "tricks"), *sorted(names, key=lambda one: (one[0], one[1].islower(), one[1]))]
    return "\n".join([f"# Written by: {COMMAND}", *(f"from {room} import {name} as {name}" for room, name in names), ""])


def test_type_checkers_know_every_public_name_and_trick() -> None:
    assert STUB.read_text("utf-8") == stub(), f"a public name or a trick is new, or gone: run {COMMAND}"


def used(script: Path) -> set[str]:
    """The names of trickbag that a script uses."""
    found = (node for node in ast.walk(ast.parse(script.read_text("utf-8"))) if isinstance(node, ast.Attribute))
    return {node.attr for node in found if isinstance(node.value, ast.Name) and node.value.id == "tb"}


def test_the_script_of_a_user_is_rightly_typed_and_mistakes_are_found() -> None:
    assert used(TYPED / "user.py") >= {*tb.__all__}, "a public name is missing from tests/typed/user.py"
    scripts = [str(TYPED / name) for name in ("user.py", "wrong.py")]
    options = ["--config-file", str(TYPED / "mypy.ini"), "--cache-dir", str(HOUSE / ".mypy_cache" / "user")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--no-error-summary", "--hide-error-context", *scripts],
        cwd=TYPED,
        env=os.environ | {"MYPYPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert not done.stderr
    lines = (TYPED / "wrong.py").read_text("utf-8").splitlines()
    planted = [f"wrong.py:{number}" for number, line in enumerate(lines, 1) if line.startswith("    ")]
    found = [line for line in done.stdout.splitlines() if " error: " in line]
    assert sorted({line.rpartition(": error:")[0] for line in found}) == sorted(planted), done.stdout


if __name__ == "__main__":
    STUB.write_text(stub(), "utf-8")
