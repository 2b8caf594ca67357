"""The command line as a user meets it: what it prints, what it returns, and what it says of mistakes."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import own
import pytest
import torch
import typer
from album import TINY, fill, recipe_file
from answers import Answer, Here
from findings import sample
from safetensors.torch import save_file

import trickbag as tb
from trickbag import tricks
from trickbag.display.screen import Screen, caveats
from trickbag.ground.events import Doing
from trickbag.ground.typed import assignments, seconds
from trickbag.ground.wants import WANTS
from trickbag.recipe import recipe_names
from trickbag.report.findings import Failure
from trickbag.terminal import cli
from trickbag.tricks import bag

KINDS = {"=cmd": 0, "ab": 1, "c": 2}
WICKED = "\x1b[31mred\n\u202egnp.png"
COMMANDS = (
    *("atlas", "check", "compare", "demo", "doctor", "evaluate", "explain", "export", "finish"),
    *("laws", "loop", "predict", "report", "review", "serve", "study", "train", "transfer", "tricks"),
)
HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cli")
    fill(folder / "photos", KINDS, 16)
    (folder / "photos" / "c" / "00.png").rename(folder / "photos" / "c" / WICKED)
    recipe_file(folder / "tiny.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(folder)
        yield folder


def process(*words: str) -> Answer:
    """The installed command in a process of its own, its output in pipes."""
    command = [str(Path(sys.executable).with_name("trickbag")), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def trained(place: Path) -> Answer:
    return process("train", "photos", "--recipe", "tiny.toml", "--out", "run")


def assert_plain(text: str) -> None:
    """Nothing that a terminal would take for a command, whatever files are called."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), text


def assert_sentence(answer: Answer, code: int) -> None:
    """One sentence on standard error and nothing else of the mistake anywhere."""
    assert answer.code == code, answer
    assert re.fullmatch(r"trickbag: [^\n]+[.!?]\n", answer.err), answer.err
    assert "Traceback" not in answer.err + answer.out
    assert_plain(answer.out + answer.err)


# the commands


def test_train_ends_with_the_answer_and_says_it_again(trained: Answer, ask: Here) -> None:
    assert trained.code == 0, trained.err
    assert trained.err == ""
    assert_plain(trained.out)
    record = json.loads(Path("run/result.json").read_text())
    epochs, answer = trained.out.split("trained cifar_resnet8 for 3 classes at 16 pixels: ")
    assert len(re.findall(r"epoch +\d of 2 .*validation top-1 [\d.]+ %", epochs)) == 2
    (told,) = re.findall(r"test top-1 ([\d.]+) %  \([\d.]+ - [\d.]+, (\d+) images\)   validation ([\d.]+) %", answer)
    test, val = record["test"], record["val"]
    assert told == (f"{100 * test['top1']:.1f}", str(test["n"]), f"{100 * val['top1']:.1f}")
    assert "the run lies in run:" in answer
    again = ask("train", "photos", "--recipe", "tiny.toml", "--out", "run")
    assert again.code == 0
    assert "epoch   1" not in again.out
    assert again.out.strip().endswith(answer.strip())


def test_check_prints_counts_and_findings(ask: Here) -> None:
    told = ask("check", "photos")
    assert told.code == 0
    assert_plain(told.out + told.err)
    assert re.search(r"48 images in 3 classes; 0 files left out; .*1\.0 : 1; median 36 x 30 pixels", told.out)
    assert all(name in told.out for name in KINDS)
    found = ask("check", "photos", "--json")
    assert found.code == 0
    audit = json.loads(found.out)
    assert audit["images"] == 48
    assert audit["classes"] == {name: {"unassigned": 16} for name in KINDS}


def test_check_tells_of_a_bad_file_and_stops_there_if_asked(place: Path, ask: Here) -> None:
    fill(place / "worse", {"a": 0, "b": 1}, 5)
    (place / "worse" / "a" / ("bad" + WICKED)).write_bytes(b"no image")
    told = ask("check", "worse")
    assert told.code == 0
    assert "1 file left out" in told.out
    assert r"bad\x1b[31mred\x0a\u202egnp.png" in told.out
    assert_plain(told.out + told.err)
    assert_sentence(ask("check", "worse", "--on-bad", "error"), 1)


def test_a_name_is_spelled_once_and_never_raw(place: Path, trained: Answer, ask: Here) -> None:
    """A class whose name steers a terminal, and one with a backslash, in findings, notes, tables and errors."""
    evil = "e\x1b[31mred\n\u202egnp"
    fill(place / "named", {evil: 0, "f\\c": 1, "g": 2}, 5)
    plan = ask("train", "named", "--recipe", "tiny.toml", "--out", "named-run", "--plan")
    for told in (ask("check", "named"), plan, ask("evaluate", "run", "named")):
        assert_plain(told.out + told.err)
        assert r"e\x1b[31mred" in told.out + told.err
        assert r"\\x1b" not in told.out + told.err, told
    assert plan.code == 0


def test_what_failed_in_a_study_is_told_without_what_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recommended.toml").write_text(tb.Recipe().toml())
    failed = Failure("+breaks(says='\x1b[31m')", 0, "error", "the class e\x1b[31mred\n\u202egnp of b\\\\c")
    with Screen() as screen:
        screen.study(tb.Finished(tmp_path, replace(sample(2, 3), failures=(failed,)), "photos"))
    told = capsys.readouterr().out
    assert_plain(told)
    assert r"failed: +breaks(says='\x1b[31m'), seed 0: error: the class e\x1b[31mred\x0a\u202egnp of b\\c" in told


def test_a_result_says_where_no_training_step_has_a_part_in_it() -> None:
    splits = {name: {"given": False, "images": 9, "trained_before": 0} for name in ("train", "val", "test")}
    record = {"short": "", "epochs": 2, "kept_epoch": 1, "chosen": True, "test": {"n": 9}, "splits": splits}
    assert list(caveats(record)) == []
    (said,) = caveats(record | {"kept_epoch": 0})
    assert "what acts in training steps has no part in these scores" in said
    assert list(caveats(record | {"kept_epoch": 0, "epochs": 0})) == []


def test_long_work_is_told_of_without_a_terminal_however_few_its_parts_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Screen() as screen:
        for step in range(1, 5):
            monkeypatch.setattr(time, "monotonic", lambda now=8.0 * step: now)
            screen.tell(Doing("slow", step, 4))
        for step in range(1, 5):
            screen.tell(Doing("quick", step, 4))
    assert capsys.readouterr().out.splitlines() == ["slow: 3 of 4", "slow: 4 of 4"]


def test_a_table_that_stops_says_so(place: Path, ask: Here) -> None:
    fill(place / "many", {f"class {n:02d}": n % 3 for n in range(53)}, 1)
    assert "and 3 more classes (all of them: --json)" in ask("check", "many").out
    assert "more class" not in ask("check", "photos").out


def test_a_plan_trains_nothing_and_prices_everything(ask: Here) -> None:
    told = ask("train", "photos", "--recipe", "tiny.toml", "--with", "mixup(alpha=0.4)", "--out", "planned", "--plan")
    assert told.code == 0
    assert not Path("planned").exists()
    assert 'model = "cifar_resnet8"' in told.out
    assert '"mixup(alpha=0.4)"' in told.out
    assert re.search(r"images: train (\d+), val (\d+), test (\d+)\n", told.out)
    assert re.search(r"steps: [\d,]+ in 2 epochs\n", told.out)
    assert re.search(r"time: about [\d. hmins]+\n", told.out)
    assert re.search(r"disk: [\d.]+ GB", told.out)
    assert re.search(r"memory: [\d.]+ GB", told.out)


def test_evaluate_scores_other_data_with_views_at_test_time(trained: Answer, ask: Here) -> None:
    plain = json.loads(ask("evaluate", "run", "photos", "--json").out)
    flipped = json.loads(ask("evaluate", "run", "photos", "--json", "--with", "flip_tta").out)
    assert plain["n"] == flipped["n"] == 48
    assert plain["nll"] != flipped["nll"]
    told = ask("evaluate", "run", "photos")
    assert f"top-1 {100 * plain['top1']:.1f} %" in told.out
    assert all(f" {name} " in told.out for name in KINDS)
    refused = ask("evaluate", "run", "photos", "--with", "ema")
    assert_sentence(refused, 2)
    assert "train with --with ema" in refused.err


def test_predict_in_three_forms_in_a_process_of_its_own(trained: Answer, ask: Here) -> None:
    lines = process("predict", "run", "photos/=cmd/03.png", "photos/c", "--json", "--top", "2")
    assert lines.code == 0, lines.err
    assert_plain(lines.out + lines.err)
    records = [json.loads(line) for line in lines.out.splitlines()]
    assert len(records) == 17
    assert [record["path"] for record in records][::16] == ["photos/=cmd/03.png", "photos/c/15.png"]
    assert all(len(record["predictions"]) == 2 for record in records)

    table = ask("predict", "run", "photos/=cmd/03.png", "photos/c", "--csv", "--top", "3")
    rows = list(csv.reader(io.StringIO(table.out)))
    assert rows[0] == ["path", "rank", "class", "probability", "unsure"]
    assert len(rows) == 1 + 17 * 3
    assert {row[2] for row in rows[1:]} == {"=cmd", "ab", "c"}, "names for other programs are what they are"
    assert [row[1] for row in rows[1:4]] == ["1", "2", "3"]
    assert sum(float(row[3]) for row in rows[1:4]) == pytest.approx(1, abs=1e-5)

    text = ask("predict", "run", "photos/=cmd/03.png")
    best = records[0]["predictions"][0]
    assert text.out == f"photos/=cmd/03.png   {best['class']} {100 * best['probability']:.1f} %\n"


def test_an_image_that_cannot_be_read_is_never_predicted(place: Path, trained: Answer, ask: Here) -> None:
    (place / "torn.png").write_bytes((place / "photos/ab/00.png").read_bytes()[:200])
    refused = ask("predict", "run", "torn.png", "--csv")
    assert_sentence(refused, 1)
    assert "torn.png cannot be predicted: truncated" in refused.err
    assert_sentence(ask("predict", "run", "missing.png"), 1)


def test_the_bag_and_a_card(ask: Here) -> None:
    every = ask("tricks").out
    assert all(re.search(rf"^ {name} ", every, re.MULTILINE) for name in bag())
    card = ask("tricks", "mixup").out
    assert card.startswith("mixup(alpha=0.2)\n")
    assert all(f"\n{word}:" in card for word in ("Formula", "Paper", "Helps", "Hurts", "Costs", "Plugs"))
    assert re.search(r"alpha: default 0\.2; .*0", card)


def test_the_bag_is_listed_by_what_tricks_help_with(ask: Here) -> None:
    every = ask("tricks").out
    listed = [line.split()[0] for line in every.splitlines() if line.split() and line.split()[0] in bag() and line[1] != " "]
    assert sorted(listed) == sorted(bag()), "each trick stands once"
    sections = re.split(r"^ for ", every, flags=re.MULTILINE)
    assert {section.splitlines()[0].strip() for section in sections[1:]} == set(WANTS)
    noise = next(section for section in sections if section.startswith("label noise"))
    assert re.search(r"^ label_smoothing ", noise, re.MULTILINE)
    assert re.search(r"^ +also .*mixup", noise, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("few images", ["knn +helps +classes of a handful of images", "crt +hurts +classes of a handful of images"]),
        ("Label Noise", ["distill +helps +small networks, label noise", "focal +hurts +label noise"]),
        ("imbalance", ["posthoc_logit_adjustment +helps", "tau_norm +helps"]),
        ("objects hidden", ["cutout +helps .*partly hidden"]),
        ("Monte Carlo", ["mc_dropout +title"]),
        ("(until=1)", ["freeze +helps"]),
    ],
)
def test_the_cards_are_searched(ask: Here, words: str, rows: list[str]) -> None:
    told = ask("tricks", "--for", words)
    assert told.code == 0
    assert all(re.search(rf"^ {row}", told.out, re.MULTILINE) for row in rows)
    parts = [line.split()[1] for line in told.out.splitlines()[1:] if line[1] != " "]
    assert parts == sorted(parts, key=("helps", "title", "formula", "costs", "hurts").index)
    names = [line.split()[0] for line in told.out.splitlines()[1:] if line[1] != " "]
    assert len(names) == len(set(names))
    helping = [name for name, part in zip(names, parts, strict=True) if part == "helps"]
    assert list(tricks.helping(words)) == helping


def test_what_no_card_says_is_told_with_what_can_be_asked(ask: Here) -> None:
    told = ask("tricks", "--for", "zebras")
    assert_sentence(told, 2)
    assert all(want in told.err for want in ("'zebras'", *WANTS))
    assert_sentence(ask("tricks", "mixup", "--for", "speed"), 2)


@pytest.mark.parametrize("want", WANTS)
def test_what_is_wanted_is_what_some_trick_helps_with(want: str) -> None:
    assert tricks.helping(want)


def test_loop_draws_the_loop(ask: Here) -> None:
    told = ask("loop", "cifar", "--with", "mixup(alpha=0.4)", "--without", "flip", "--set", "epochs=3")
    assert told.code == 0
    assert "for epoch in 1..3" in told.out
    assert re.search(r"batch +mixup\(alpha=0\.4\), then label_smoothing", told.out)
    assert "learning rate 0.2                       cosine x warmup" in told.out
    assert len(re.findall(r"^group \d: \d+ tensors, [\d,]+ parameters", told.out, re.MULTILINE)) == 2


def test_demo_checks_studies_trains_and_scores_the_digits(place: Path, monkeypatch: pytest.MonkeyPatch, ask: Here) -> None:
    """The command whole, with a study and a training that are shortened."""
    shorter = {"recipe": str(place / "tiny.toml"), "tricks": ["ema"], "seeds": 1, "set_": {"epochs": 1}}
    monkeypatch.setattr("trickbag.terminal.cli.DEMO", shorter)
    monkeypatch.setattr("trickbag.terminal.cli.DEMO_EPOCHS", 1)
    told = ask("demo", "--out", "demonstrated")
    assert told.code == 0, told.err
    assert "ema, seed 0:" in told.out
    assert (Path("demonstrated") / "study" / "report.html").is_file()
    assert "1,797 images in 10 classes" in told.out
    assert re.search(r"test top-1 [\d.]+ %  \([\d.]+ - [\d.]+, 3\d\d images\)", told.out)
    assert "try next: trickbag predict" in told.out


# mistakes

BAD_REQUESTS = [
    (["--recipe", "cifra"], "did you mean cifar"),
    (["--recipe", "nothing.toml"], "there is no recipe 'nothing.toml'"),
    (["--with", "mixpu"], "did you mean mixup"),
    (["--with", "mixup(alpah=0.4)"], "no field alpah"),
    (["--with", "mixup("], "is not a trick"),
    (["--with", "mixup(0.4)"], "write values with their names"),
    (["--with", "mixup(alpha=-1)"], "alpha.*greater than or equal to 0"),
    (["--with", "mixup(alpha='much')"], "alpha.*number"),
    (["--with", "mixup(alpha=1e999)"], "alpha.*finite"),
    (["--with", "mixup(alpha=nan)"], "nan"),
    (["--with", "mixup", "--with", "cutmix"], r"Choose one, or write one_of\(mixup, cutmix\)"),
    (["--with", "mixup", "--with", "mixup(alpha=0.4)"], "a recipe holds a trick once"),
    (["--without", "ema"], "the recipe has no such trick"),
    (["--set", "epoch=3"], "did you mean epochs"),
    (["--set", "epochs"], "write FIELD=VALUE"),
    (["--set", "epochs=three"], "epochs.*integer"),
    (["--set", "epochs=-1"], "epochs.*greater than or equal to 0"),
    (["--set", "lr=nan"], "lr.*finite"),
    (["--set", "lr=0.1", "--set", "lr=0.2"], "given twice"),
    (["--set", "ema.half_life=0.1"], "has no trick ema"),
    (["--set", "warmup.share=2"], "share.*less than"),
    (["--set", "mean=[0.1, 0.2, 0.3]"], "mean has 3 values and std 1"),
    (["--budget", "soon"], "write a time above 0, for example 90s, 10m or 2h"),
    (["--budget", "0m"], "write a time above 0, for example 90s, 10m or 2h"),
    (["--model", "resnet5o"], "(?i)no model 'resnet5o'.*resnet50"),
    (["--weights", "missing.safetensors"], "no file missing.safetensors"),
    (["--weights", "tiny.toml"], "not a .safetensors file"),
    (["--weights", "other.safetensors"], "does not fit cifar_resnet8"),
    (["--with", "distill(teacher='nowhere')"], "'nowhere' is not the folder of a finished run, and there is no recipe"),
    (["--with", "pseudo_label(unlabelled='nowhere')"], "'nowhere' is not a folder"),
    (["--set", "size=9", "--model", "vit_tiny_patch16_224"], "vit_tiny_patch16_224"),
]


@pytest.mark.parametrize(("words", "said"), BAD_REQUESTS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_sentence_and_exit_2(place: Path, ask: Here, words: list[str], said: str) -> None:
    save_file({"fc.weight": torch.zeros(3, 64)}, place / "other.safetensors")
    recipe = [] if "--recipe" in words else ["--recipe", "tiny.toml"]
    answer = ask("train", "photos", *recipe, *words, "--out", "refused")
    assert_sentence(answer, 2)
    assert re.search(said, answer.err), answer.err
    assert not [path for path in Path("refused").glob("*") if path.name == "result.json"]


@pytest.mark.parametrize("words", [["train"], ["study", "--tricks", "mixup"]])
def test_a_model_that_is_not_there_is_refused_before_any_image_is_read(place: Path, ask: Here, words: list[str]) -> None:
    answer = ask(*words, "nowhere", "--model", "resnet5o", "--out", "refused")
    assert_sentence(answer, 2)
    assert "no model 'resnet5o'" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 2", "epochs = -2", "recipe bad.toml, line 4: epochs=-2: .*greater than or equal to 0"),
        ("epochs = 2", "epohcs = 2", "recipe bad.toml, line 4: .*did you mean epochs"),
        ('"warmup"', '"warmpu"', "recipe bad.toml, line 11: .*did you mean warmup"),
        ('"warmup"', '"warmup(share=7)"', "recipe bad.toml, line 11: .*share"),
        ("size = 16", "size = = 16", r"recipe bad.toml: .*line 2"),
    ],
)
def test_a_mistake_in_a_recipe_file_names_file_and_line(place: Path, ask: Here, old: str, new: str, said: str) -> None:
    recipe_file(place / "bad.toml", TINY.replace(old, new))
    answer = ask("train", "photos", "--recipe", "bad.toml")
    assert_sentence(answer, 2)
    assert re.search(said, answer.err), answer.err


def test_places_that_hold_something_else_are_left_alone(place: Path, trained: Answer, ask: Here) -> None:
    (place / "full").mkdir()
    (place / "full" / "letter.txt").write_text("dear")
    told = ask("train", "photos", "--recipe", "tiny.toml", "--out", "full")
    assert_sentence(told, 2)
    assert "not empty" in told.err
    assert [path.name for path in (place / "full").iterdir() if not path.name.startswith(".")] == ["letter.txt"]
    before = (place / "run" / "MANIFEST.json").read_bytes()
    told = ask("train", "photos", "--recipe", "tiny.toml", "--seed", "1", "--out", "run")
    assert_sentence(told, 2)
    assert "holds another run" in told.err
    assert (place / "run" / "MANIFEST.json").read_bytes() == before


@pytest.mark.parametrize("verb", [("predict",), ("evaluate",)])
def test_what_is_no_run_is_refused(place: Path, trained: Answer, ask: Here, verb: tuple[str]) -> None:
    assert_sentence(ask(*verb, "photos", "photos"), 2)
    assert_sentence(ask(*verb, "nowhere", "photos"), 2)
    damaged = place / f"damaged-{verb[0]}"
    damaged.mkdir()
    for path in (place / "run").iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    with (damaged / "model.safetensors").open("ab") as file:
        file.write(b"x")
    told = ask(*verb, str(damaged), "photos")
    assert_sentence(told, 1)
    assert "model.safetensors" in told.err


@pytest.mark.parametrize(
    "words",
    [
        ["check", "nowhere"],
        ["tricks", "mixpu"],
        ["loop", "cifra"],
        ["loop", "cifar", "--with", "mixup(alpha=-1)"],
        ["predict", "run", "photos", "--json", "--csv"],
        ["evaluate", "run", "photos", "--with", "flip_tta", "--with", "flip_tta"],
        ["evaluate", "run", "worse"],
        ["train", "photos", "--recipe", "tiny.toml", "--with", "distill(teacher='nobody')", "--out", "untaught"],
    ],
    ids=" ".join,
)
def test_other_mistakes_are_sentences_too(trained: Answer, place: Path, ask: Here, words: list[str]) -> None:
    fill(place / "worse", {"a": 0, "b": 1}, 5)
    assert_sentence(ask(*words), 2)


@pytest.mark.parametrize("words", ["train", "train photos --seed -1", "check photos --on-bad pray", "fly"])
def test_a_malformed_command_is_exit_2_without_a_traceback(ask: Here, words: str) -> None:
    answer = ask(*words.split())
    assert answer.code == 2
    assert "Traceback" not in answer.err + answer.out
    assert "trickbag" in answer.err


def test_a_mistake_in_a_process_of_its_own() -> None:
    answer = process("train", "photos", "--recipe", "cifra")
    assert_sentence(answer, 2)
    assert answer.out == ""


# what the documents promise

ROOT: Any = typer.main.get_command(cli.app)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_of_every_argument(ask: Here, name: str) -> None:
    told = ask(name, "--help")
    assert told.code == 0
    text = " ".join(told.out.split())
    for parameter in ROOT.commands[name].params:
        assert parameter.help or "--help" in parameter.opts
        for option in (*parameter.opts, *parameter.secondary_opts):
            assert option in text or parameter.metavar in text
        assert "".join((parameter.help or "").split()) in "".join(text.split()), "lines may break within a word"
    assert ROOT.commands[name].help.split("\n")[0] in text


def test_the_version_is_told(ask: Here) -> None:
    assert (ask("--version").code, ask("--version").out) == (0, f"trickbag {version('trickbag')}\n")


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "trickbag", "check", "nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"trickbag: [^\n]*nowhere[^\n]*\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fin", {"finish"}),
        ("train photos --recipe lin", {"linear-probe"}),
        ("tricks mixu", {"mixup"}),
        ("train --with rand", None),
        ("train photos --plugin inverted.py --with inv", {"inverted"}),
        ("train photos --plugin broken.py --plugin gone.py --with mixu", {"mixup"}),
    ],
)
def test_a_shell_can_complete(
    words: str, found: set[str] | None, ask: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own.write(tmp_path, "inverted", own.INVERT)
    own.write(tmp_path, "broken", "class (:")
    monkeypatch.setenv("_TRICKBAG_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"trickbag {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    told = subprocess.run([Path(sys.executable).with_name("trickbag")], capture_output=True, text=True, check=False)
    assert set(told.stdout.split()) == (found or {name for name in bag() if name.startswith("rand")})


def test_every_command_is_known() -> None:
    assert sorted(ROOT.commands) == sorted(COMMANDS)


def documents() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in (*HOUSE.glob("*.md"), *HOUSE.glob("docs/*.md"))}


def commands(text: str) -> list[list[str]]:
    """The lines of a document's code blocks that call trickbag, without what follows two spaces or a #."""
    blocks = "".join(re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if re.match(r"(?:\$ )?trickbag ", line)]


@pytest.mark.parametrize("name", sorted(documents()))
def test_commands_in_documents_parse(name: str) -> None:
    for verb, *words in commands(documents()[name]):
        given = ROOT.commands[verb].make_context(verb, words).params
        seconds(given.get("budget") or "")
        assignments(given.get("set_") or [])
        for spec in given.get("with_") or [] if not given.get("plugins") else []:
            tricks.parse(spec)
        if (recipe := given.get("recipe")) and not recipe.endswith(".toml"):
            assert recipe in recipe_names()


def test_the_documents_show_every_command_and_recipe() -> None:
    assert {words[0] for text in documents().values() for words in commands(text)} >= set(COMMANDS)
    table = re.findall(r"^\| `([^`]+)` \|", documents()["training.md"].split("## Recipes")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(table) == recipe_names()


@pytest.mark.parametrize("name", sorted(documents()))
def test_tricks_in_documents_exist(name: str) -> None:
    """A spelling with values in code marks is a trick of the bag, with those fields."""
    for text in re.findall(r"`([a-z_0-9]+\([^`]*=[^`]*\))`", documents()[name]):
        assert str(tricks.parse(text))
