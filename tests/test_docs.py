"""The site builds without a warning, every card has its page, and every command of the README and the guides does its job."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import marked
import pytest
from album import fill

import trickbag
from trickbag.tricks import bag

HOUSE = Path(__file__).parent.parent
PAGES = ("boxes-and-regions.md", "look.md", "own-trick.md", "ship.md", "transfer.md")
GUIDES = [HOUSE / "README.md", *(HOUSE / "docs" / name for name in PAGES), *sorted((HOUSE / "docs" / "guides").glob("*.md"))]
NOTEBOOK = HOUSE / "docs" / "example.ipynb"
SMALL = "--model cifar_resnet8 --weights none --set size=16 --set batch_size=8 --set epochs=1 --set precision=fp32"
"""What lets a command that takes minutes end in a second; everything else stays as the guide has it."""
MARKED = "--set size=32 --set epochs=1"
OF_TIMM = SMALL.replace("cifar_resnet8", "test_resnet").replace("size=16", "size=32")
"""The same with a network that timm has."""


def commands(guide: Path) -> list[list[str]]:
    """The lines of a guide that a reader would type."""
    blocks = re.findall(r"```sh\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    return [
        shlex.split(line, comments=True)[1:] for block in blocks for line in block.splitlines() if line.startswith("trickbag ")
    ]


@pytest.mark.parametrize("guide", GUIDES, ids=[guide.stem for guide in GUIDES])
def test_every_command_of_the_readme_and_the_guides_works(
    guide: Path, tmp_path: Path, cache: Path, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), {"a": 0, "b": 1, "c": 2}, 14)
    fill(Path("more"), {"any": 0}, 6, seed=1)
    fill(Path("new-photos"), {"": 0}, 3, seed=2)
    fill(Path("found"), {"a": 0, "of no class": 2}, 3, seed=1)
    marked.cells(Path("cells"))
    marked.regions(Path("streets"))
    Path("corrections.csv").write_text("path,old,new\na/00.png,a,b\nc/01.png,c,drop\n")
    for name, source in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", guide.read_text("utf-8"), re.DOTALL):
        Path(name).write_text(source, "utf-8")
    typed = [words for words in commands(guide) if words[0] != "serve"]  # it lasts: see tests/serving/test_command.py
    assert len(typed) >= 3
    for words in typed:
        small = shlex.split(OF_TIMM if guide.stem == "ship" else SMALL) if words[0] in ("train", "study") else []
        small = shlex.split(MARKED) if words[0] == "transfer" else small
        small = ["--weights", "run"] if "--labels" in words else small[2:] if "--model" in words else small
        told = ask(*words, *small)
        assert told.code == 0, (words, told.err)
        assert told.out


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, cache: Path) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    code = "\n".join("".join(cell["source"]) for cell in cells).replace('"epochs": 4', '"epochs": 1')
    assert code.count("tb.") >= 7
    shown = [line for line in code.splitlines() if re.fullmatch(r"\w+(\.\w+\(.*\))?", line)]
    assert len(shown) >= 5, "what a cell ends with is shown"
    checked = "\n".join(line if line not in shown else f"assert str({line}) and repr({line})" for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", checked], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert (tmp_path / "study" / "report.html").stat().st_size > 10_000


def test_the_script_of_the_python_page_runs(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), {"a": 0, "b": 1}, 14)
    fill(Path("folder"), {"": 0}, 3)
    shutil.copy("folder/00.png", "photo.jpg")
    small: dict[str, Any] = {"model": "cifar_resnet8", "set_": {"size": 16, "epochs": 1}}
    train, study, plan_study = trickbag.train, trickbag.study, trickbag.plan_study
    monkeypatch.setattr(trickbag, "train", lambda data, recipe="cifar", **asked: train(data, recipe, **asked, **small))
    monkeypatch.setattr(trickbag, "study", partial(study, recipe="cifar", **small))
    monkeypatch.setattr(trickbag, "plan_study", partial(plan_study, recipe="cifar", **small))
    (script,) = re.findall(r"```python\n(.*?)```", (HOUSE / "docs" / "python.md").read_text("utf-8"), re.DOTALL)
    exec(script, {})
    assert (Path("best") / "model.safetensors").is_file()


def test_the_site_builds_and_has_a_page_for_every_trick(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--site-dir", str(tmp_path / "site")]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=HOUSE, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    pages = {path.parent.name for path in (tmp_path / "site" / "tricks").glob("*/index.html")}
    assert pages == set(bag())
    table = (tmp_path / "site" / "bag" / "index.html").read_text("utf-8")
    assert all(f'href="../tricks/{name}/"' in table for name in bag())
    assert (tmp_path / "site" / "tricks" / "cosine.png").stat().st_size > 5000
    reference = (tmp_path / "site" / "python" / "index.html").read_text("utf-8")
    assert all(f'id="trickbag.{name}"' in reference for name in trickbag.__all__)
    assert reference.count(">Examples:<") >= len(trickbag.__all__)


def test_the_tests_that_the_documents_name_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", (HOUSE / "docs" / "testing.md").read_text("utf-8"))
    assert len(named) > 60
    for file, test in named:
        assert f"def {test}" in (HOUSE / file).read_text("utf-8"), f"{file}::{test}"
