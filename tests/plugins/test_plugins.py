"""Tricks, networks and metrics of one's own: usable as trickbag's, kept with what they made, refused in a sentence."""

import importlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import own
import pytest
from album import fill, recipe_file
from processes import SERVER, command_line

import trickbag as tb
from trickbag import plugins
from trickbag.ground import glance
from trickbag.recipe import Recipe

FEW = {"epochs": 1}


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with photos, a recipe and a plugin."""
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), {"a": 0, "b": 1, "c": 2}, 14)
    recipe_file(Path("tiny.toml"))
    own.write(Path(), "invert", own.INVERT)
    return tmp_path


def apart(place: Path, *words: str, said: str = "said") -> tuple[int, str, str]:
    """Exit code, output and errors of the command in a process of its own, which knows no plugin yet."""
    variables = {"TRICKBAG_CACHE": os.environ["TRICKBAG_CACHE"], "TRICKBAG_CHECKPOINT_SECONDS": "0"}
    process = SERVER.Process(target=command_line, args=(list(words), variables, place / said, "", 1, signal.SIGKILL))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, *((place / f"{said}.{stream}").read_text("utf-8") for stream in ("out", "err"))


def test_a_run_with_a_plugin_is_trained_listed_kept_and_loaded_again(place: Path, ask) -> None:
    listed = ask("tricks", "--plugin", "invert.py")
    assert "Inversion: the negative of some images. (from invert.py)" in listed.out
    assert "From:    invert.py" in ask("tricks", "invert", "--plugin", "invert.py").out
    assert "invert(share=0.3)" in ask("loop", "tiny.toml", "--with", "invert(share=0.3)", "--plugin", "invert.py").out
    words = ("train", "photos", "--recipe", "tiny.toml", "--with", "one_of(mixup, cutmix), invert", "--out", "run")
    trained = ask(*words, "--plugin", "invert.py")
    assert trained.code == 0, trained.err
    record = json.loads(Path("run/result.json").read_text("utf-8"))
    assert record["plugins"] == {"invert": plugins.source.digest(own.INVERT.encode())}
    assert Path("run/plugins/invert.py").read_text("utf-8") == own.INVERT
    assert "plugins/invert.py" in json.loads(Path("run/MANIFEST.json").read_text("utf-8"))["files"]
    assert trained.out.endswith(ask(*words, "--plugin", "invert.py").out), "the same command finds the run"
    Path("invert.py").unlink()
    code, out, err = apart(place, "predict", "run", "photos/a/00.png")
    assert code == 0, err
    assert "photos/a/00.png" in out
    assert ask("evaluate", "run", "photos").code == 0
    without = ask(*words)
    assert without.code == 2
    assert "there is no trick invert" in without.err
    assert "--plugin" in without.err


def test_an_edited_plugin_is_another_run(place: Path, ask) -> None:
    words = ("train", "photos", "--recipe", "tiny.toml", "--with", "invert", "--plugin", "invert.py")
    assert ask(*words, "--out", "run").code == 0
    first = ask(*words, "--set", "epochs=1").err + ask(*words, "--set", "epochs=1").out
    own.write(Path(), "invert", own.INVERT.replace("return 255 - image", "return 254 - image"))
    told = ask(*words, "--out", "run")
    assert told.code == 2
    assert "run holds another run: the plugin invert has changed." in told.err
    assert f"give what lies in {Path('run/plugins')} to return to this run" in told.err
    second = ask(*words, "--set", "epochs=1").out
    folders = {line.split(":")[0] for text in (first, second) for line in text.splitlines() if "the run lies in" in line}
    assert len(folders) == 2
    assert ask(*words[:-1], "run/plugins/invert.py", "--out", "run").code == 0
    wrong = ask("evaluate", "run", "photos", "--plugin", "invert.py")
    assert wrong.code == 2
    assert "run was made with another content of invert.py" in wrong.err


def test_a_study_carries_a_plugin_into_its_workers_and_keeps_it(place: Path, ask) -> None:
    small = ("--recipe", "tiny.toml", "--set", "epochs=1", "--seeds", "2", "--design", "add-one", "--no-proof")
    words = ("study", "photos", *small, "--tricks", "invert,mixup", "--workers", "2", "--out", "study", "--plugin", "invert.py")
    code, out, err = apart(place, *words)
    assert code == 0, err
    assert "failed" not in out
    assert "| invert |" in out
    runs = {path: path.stat().st_mtime_ns for path in Path("study/runs").glob("*/MANIFEST.json")}
    code, out, err = apart(place, "report", "study")
    assert code == 0, err
    facts = json.loads(Path("study/study.json").read_text("utf-8"))
    assert facts["decided"]["plugin invert"] == plugins.source.digest(own.INVERT.encode())
    own.write(Path(), "invert", own.INVERT.replace("return 255 - image", "return 254 - image"))
    code, _, err = apart(place, *words)
    assert code == 0, err
    new = {path: path.stat().st_mtime_ns for path in Path("study/runs").glob("*/MANIFEST.json")}
    assert runs.items() <= new.items()
    assert len(new) - len(runs) == 2, "the arm of the plugin alone, with both seeds"
    facts = json.loads(Path("study/study.json").read_text("utf-8"))
    assert [line.split(":")[0] for line in facts["departures"]] == ["plugin invert"]


def test_a_failure_in_a_worker_names_the_line(place: Path) -> None:
    source = own.INVERT.replace("return 255 - image", "return 255 - imaeg")
    line = source.splitlines().index("    return 255 - imaeg") + 1
    own.write(Path(), "invert", source)
    done = tb.study(
        "photos",
        recipe="tiny.toml",
        set_=FEW,
        seeds=1,
        tricks="invert",
        plugins="invert.py",
        workers=2,
        out="study",
        proof=False,
    )
    assert {f"invert.py, line {line}: NameError: name 'imaeg' is not defined."} == {
        failure.cause for failure in done.findings.failures if failure.arm == "invert"
    }


def test_a_killed_training_goes_on_with_the_plugin_it_began_with(place: Path) -> None:
    own.write(Path(), "kills", own.KILLS)
    words = ("train", "photos", "--recipe", "tiny.toml", "--with", "kills", "--plugin", "kills.py", "--out")
    assert apart(place, *words, "run")[0] == -signal.SIGKILL
    own.write(Path("edited"), "kills", own.KILLS.replace("1 + t", "2 + t"))
    code, _, err = apart(place, *words[:-2], "edited/kills.py", "--out", "run")
    assert code == 2
    assert "the plugin kills has changed" in err
    assert not (place / "edited" / "kills.killed").exists()
    code, out, err = apart(place, *words, "run")
    assert code == 0, err
    assert "continuing at step" in err + out
    assert apart(place, *words, "straight")[0] == 0
    assert Path("run/model.safetensors").read_bytes() == Path("straight/model.safetensors").read_bytes()
    assert apart(place, "finish", "run")[0] == 0


def test_what_another_made_runs_here_only_once_its_file_was_named(place: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    tb.train("photos", "tiny.toml", with_="invert", plugins="invert.py", set_=FEW, out="run")
    with Path("run/plugins/invert.py").open("a") as file:
        file.write("\nprint('this was run')\n")
    damaged = ask("predict", "run", "photos/a/00.png")
    assert damaged.code == 1
    assert "run is damaged: plugins/invert.py" in damaged.err
    assert "this was run" not in damaged.out
    Path("run/plugins/invert.py").write_text(own.INVERT, "utf-8")
    monkeypatch.setenv("TRICKBAG_CACHE", str(place / "elsewhere"))
    for words in (("predict", "run", "photos/a/00.png"), ("evaluate", "run", "photos")):
        refused = ask(*words)
        assert refused.code == 2
        assert "Read run/plugins/invert.py" in refused.err
    assert ask("tricks", "--plugin", "run/plugins/invert.py").code == 0
    assert ask("predict", "run", "photos/a/00.png").code == 0


def test_a_pickle_carries_the_source(place: Path) -> None:
    with plugins.using("invert.py"):
        packed = pickle.dumps(Recipe.load("tiny.toml").edit(["one_of(mixup, cutmix)", "invert(share=0.25)"]))
    Path("invert.py").unlink()
    code = "import pickle, sys; made = pickle.load(sys.stdin.buffer); print(*made.edit(epochs=3).tricks)"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "invert(share=0.25)" in done.stdout.decode()
    assert pickle.loads(packed) == pickle.loads(packed)


@pytest.fixture
def package(place: Path, monkeypatch: pytest.MonkeyPatch):
    """An installed package with the trick sepia; gone at the end."""
    monkeypatch.syspath_prepend(str(own.install(place / "site", "sepia", own.INVERT.replace("Invert", "Sepia"))))
    forget()
    yield place / "site"
    monkeypatch.undo()
    forget()


def forget() -> None:
    """What is installed is looked for anew."""
    glance.installed.cache_clear()
    plugins.source.entered.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.split(".")[0] == "extras"]:
        del sys.modules[name]


def test_an_installed_package_enters_a_trick(package: Path, ask) -> None:
    assert "(from extras 1.2)" in ask("tricks").out
    assert "From:    extras 1.2" in ask("tricks", "sepia").out
    trained = ask("train", "photos", "--recipe", "tiny.toml", "--with", "sepia", "--out", "run")
    assert trained.code == 0, trained.err
    assert json.loads(Path("run/result.json").read_text("utf-8"))["plugins"].keys() == {"sepia"}
    assert ask("predict", "run", "photos/a/00.png").code == 0
    (package / "extras" / "sepia.py").write_text(own.INVERT.replace("Invert", "Sepia") + "\n# edited\n")
    forget()
    told = ask("train", "photos", "--recipe", "tiny.toml", "--with", "sepia", "--out", "run")
    assert told.code == 2
    assert "the plugin sepia has changed" in told.err
    own.write(Path(), "sepia", own.INVERT)
    told = ask("tricks", "--plugin", "sepia.py")
    assert told.code == 2
    assert "the installed package extras 1.2 has a trick sepia too" in told.err


def test_a_list_of_tricks_imports_no_package_that_enters_one(package: Path) -> None:
    (package / "extras" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    forget()
    assert glance.shelf()["sepia"].origin == "extras 1.2"
    with pytest.raises(tb.UsageError, match=r"extras 1.2 enters sepia = 'extras.sepia'.*RuntimeError: imported"):
        tb.train("photos", "tiny.toml", with_="sepia", out="run")


HEAD = "from trickbag.trick import *\n\n"
CLASS = HEAD + "class One(Trick):\n    stage = Stage.MIX\n\n    def batch(self, batch, t, rng):\n        return batch\n"
WRONG = {
    "syntax": ("x = 1\nclass A(:\n", r"syntax\.py, line 2: invalid syntax"),
    "imports": ("import numpy\nimport nowhere_there\n", r"line 2: ModuleNotFoundError.*must be installed"),
    "deep": ("def f():\n    return 1 / 0\nf()\n", r"deep\.py, line 2: ZeroDivisionError"),
    "leaves": ("import sys\nsys.exit(0)\n", r"leaves\.py, line 2: SystemExit"),
    "nothing": ("x = 1\n", r"nothing\.py holds no trick"),
    "mixup": (CLASS, r"trickbag has a trick mixup of its own"),
    "twice": (CLASS + "class Two(One):\n    pass\n", r"One \(line 3\) and Two \(line 8\) are two tricks"),
    "thawed": (CLASS.replace("    stage", "    model_config = {'frozen': False}\n    stage"), r"line 3: One is not frozen"),
    "misspelt": (CLASS.replace("batch(self", "bacth(self"), r"line 3: TypeError: One.bacth is not a plug point"),
    "fewer": (CLASS.replace("t, rng", "t"), r"line 6: One.batch takes \(self, batch, t\), and it is called as batch\(self"),
    "stageless": (CLASS.replace("    stage = Stage.MIX\n", ""), r"line 3: One has no stage"),
    "idle": (HEAD + "class One(Trick):\n    stage = Stage.MIX\n", r"line 3: One overrides no plug point"),
    "net": ("import timm\n@timm.models.register_model\ndef resnet18(**_): ...\n", r"line 3: timm has a network resnet18"),
    "shape": ("import trickbag\n@trickbag.metric\ndef bad(a, b):\n    return b\n", r"line 2: the metric bad gives"),
    "takes": ("import trickbag\n@trickbag.metric\ndef bad(a):\n    return 1\n", r"line 2: the metric bad fails.*TypeError"),
    "no-word": (CLASS, r"a trick is called as its file"),
    "class": (CLASS, r"a trick is called as its file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_plugin_is_refused_with_its_line(name: str, tmp_path: Path, cache: Path, ask, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, said = WRONG[name]
    told = ask("tricks", "--plugin", own.write(Path(), name, source))
    assert told.code == 2
    assert "Traceback" not in told.err
    assert re.search(said, told.err), told.err


def test_files_that_collide_or_are_not_asked_for_are_refused(place: Path, ask) -> None:
    other = own.write(Path("other"), "invert", own.INVERT + "\n")
    told = ask("tricks", "--plugin", "invert.py", "--plugin", other)
    assert told.code == 2
    assert "invert.py and other/invert.py are both called invert" in told.err
    own.write(Path(), "thin", own.THIN)
    own.write(Path(), "thinner", own.THIN)
    told = ask("tricks", "--plugin", "thin.py", "--plugin", "thinner.py")
    assert told.code == 2
    assert "thin.py and thinner.py both hold thin" in told.err
    for verb in (
        ("train", "photos", "--recipe", "tiny.toml"),
        ("study", "photos", "--recipe", "tiny.toml", "--tricks", "mixup"),
    ):
        told = ask(*verb, "--plugin", "invert.py", "--out", "any")
        assert told.code == 2
        assert "--plugin invert.py: nothing of it is asked for. Add --with invert" in told.err
    for missing in ("nowhere.py", "photos", "photos/a/00.png"):
        assert ask("tricks", "--plugin", missing).code == 2


def test_a_network_of_ones_own_by_name_and_as_a_function(place: Path, monkeypatch: pytest.MonkeyPatch, ask) -> None:
    own.write(Path("nets"), "slim", own.THIN.replace("def thin", "def slim"))
    monkeypatch.syspath_prepend("nets")
    slim = importlib.import_module("slim")
    words = ("train", "photos", "--recipe", "tiny.toml", "--model", "slim", "--out", "run")
    trained = ask(*words, "--plugin", "nets/slim.py")
    assert trained.code == 0, trained.err
    assert "There is no model 'slim'" in ask(*words).err, "timm knows it by now, and another process would not"
    code, _, err = apart(place, "predict", "run", "photos/a/00.png")
    assert code == 0, err
    run = tb.train("photos", "tiny.toml", model=slim.slim, out="again")
    assert (run.folder / "model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    assert run.record["plugins"] == json.loads(Path("run/result.json").read_text("utf-8"))["plugins"]
    done = tb.study("photos", recipe="tiny.toml", model=slim.slim, set_=FEW, tricks="flip_tta", seeds=1, workers=2, out="study")
    assert not done.findings.failures
    for function, said in (
        (lambda **_: None, "at the top of a file"),
        (slim.Thin, "at the top of a file"),
        (own.write, "register_model above it"),
    ):
        with pytest.raises(tb.UsageError, match=said):
            tb.train("photos", "tiny.toml", model=function)
    del sys.modules["slim"]


def test_a_network_that_lacks_what_all_have_or_fails_is_refused(place: Path) -> None:
    own.write(Path("a"), "thin", own.THIN.replace("def get_classifier", "def classifier"))
    own.write(Path("b"), "thin", own.THIN.replace("nn.Linear(16, num_classes)", "nn.Linear(16, num_klasses)"))
    line = own.THIN.splitlines().index("        self.head = nn.Linear(16, num_classes)") + 1
    with pytest.raises(tb.UsageError, match="thin has no get_classifier, as all of timm's networks have"):
        tb.train("photos", "tiny.toml", model="thin", plugins="a/thin.py")
    with pytest.raises(tb.UsageError, match=rf"thin\.py, line {line}: name 'num_klasses' is not defined"):
        tb.train("photos", "tiny.toml", model="thin", plugins="b/thin.py")


def test_a_metric_says_in_results_what_a_reference_says(place: Path, ask) -> None:
    own.write(Path(), "scores", own.SCORES)
    run = tb.train("photos", "tiny.toml", plugins="scores.py", set_=FEW, out="run")
    with np.load("run/predictions.npz", allow_pickle=False) as arrays:
        logits, labels = arrays["test_logits"].astype(np.float64), arrays["test_labels"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right = [label in sorted(range(3), key=lambda k: row[k])[1:] for row, label in zip(p, labels, strict=True)]
    found = run.record["test"]["metrics"]
    assert found["top2"] == sum(right) / len(right)
    assert found["doubt"] == pytest.approx(1 - np.mean([max(row) for row in p]), abs=1e-12)
    told = ask("evaluate", "run", "photos", "--json")
    said = json.loads(told.out)
    assert said["metrics"].keys() == said["unseen"]["metrics"].keys() == {"top2", "doubt"}
    assert re.search(r"^top2 [01][.\d]*   doubt 0\.", ask("evaluate", "run", "photos").out, re.MULTILINE)
    own.write(
        Path(), "late", own.SCORES.replace("top2", "late").replace("doubt", "never").replace("(1)[:, -2:]", "(1)[:7, -2:]")
    )
    told = ask("evaluate", "run", "photos", "--plugin", "late.py")
    assert "late failed" in told.out, "it was tried on four images, and fails on more"
    assert "never 0." in told.out
    without = tb.train("photos", "tiny.toml", set_=FEW, out="without")
    assert without.record["request"] != run.record["request"]
    assert (without.folder / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()
