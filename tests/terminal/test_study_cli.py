"""``trickbag study`` and ``trickbag report`` as a user meets them; in processes of their own where that matters."""

import io
import json
import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
import study_lab
from answers import Answer
from processes import SERVER, command_line
from rich.console import Console

from trickbag.display.board import Board
from trickbag.display.screen import Screen
from trickbag.ground import store
from trickbag.ground.events import CellDone
from trickbag.studies import finished


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study-cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        study_lab.album(folder / "album", {"a": 30, "b": 30, "c": 30}, noise=60)
        recipe = study_lab.recipe(folder)
        (folder / "study.toml").write_text(
            f'recipe = "{recipe}"\ndesign = "add-one"\ntricks = ["ema", "label_smoothing"]\nseeds = 2\n'
        )
        yield folder


def start(place: Path, *words: str, said: str = "said", at: str = ""):
    """The command in a process of its own, killed where it opens or renames a file, if wanted."""
    environment = {"TRICKBAG_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    process = SERVER.Process(target=command, args=(str(place), list(words), environment, place / said, at))
    process.start()
    return process


def command(folder: str, words: list[str], environment: dict[str, str], said: Path, at: str) -> None:
    os.chdir(folder)
    command_line(words, environment, said, at, 1, signal.SIGKILL)


def ended(place: Path, process, said: str = "said") -> Answer:
    process.join(300)
    out, err = ((place / f"{said}.{name}").read_text() for name in ("out", "err"))
    return Answer(process.exitcode, out, err)


def run(place: Path, *words: str, at: str = "") -> Answer:
    return ended(place, start(place, *words, at=at))


def assert_sentence(answer: Answer, code: int, said: str) -> None:
    assert answer.code == code, answer
    assert re.fullmatch(r"trickbag: [^\n]+[.!?]\n", answer.err), answer.err
    assert re.search(said, answer.err), answer.err
    assert "Traceback" not in answer.err + answer.out


@pytest.fixture(scope="module")
def made(place):
    return run(place, "study", "album", "study.toml", "--out", "made")


def test_a_study_prints_plan_answer_table_and_where_the_report_lies(place, made):
    assert made.code == 0, made.err
    assert "arms (recipes to compare): 4" in made.out
    assert "placebo: +placebo (a trick that does nothing, so the difference must be 0)" in made.out
    assert "with fewer than 3 seeds there are no verdicts" in made.out
    assert re.search(r"No recommendation, keep the reference\. .*3 seeds", made.out)
    assert re.search(r"trained \d+ steps; the runs alone would have taken \d+", made.out)
    assert "report: made/report.html" in made.out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", made.out)
    command = re.search(r"trickbag study album study\.toml --out made", (place / "made" / "report.html").read_text())
    assert command, "the report does not tell the command that reproduces it"


def test_a_plan_trains_nothing(place, made, ask):
    told = ask("study", "album", "study.toml", "--plan", "--seeds", "5", "--out", "planned")
    assert told.code == 0, told.err
    assert not (place / "planned").exists()
    assert "runs: 20" in told.out
    assert re.search(r"trainings: 15, .*75 % of the steps", told.out)


def test_what_a_file_lists_counts_where_the_command_does_not_name_it(place, ask):
    own = study_lab.recipe(place, tricks='"ema"')
    lists = 'with = ["flip"]\nwithout = ["ema"]\ntricks = ["flip", "ema"]\ncombine = [["mixup", "cutmix"], ["flip", "mixup"]]\n'
    (place / "lists.toml").write_text(f'recipe = "{own}"\ndesign = "add-one"\nvary = {{ lr = [0.3] }}\n{lists}')
    told = ask("study", "album", "lists.toml", "--plan", "--out", "listed")
    assert told.code == 0, told.err
    arms = re.findall(r"^  ([^:\n]+): [+-]?\w", told.out, re.MULTILINE)
    assert [arm for arm in arms if arm != "not run"] == [
        "reference", "without flip", "ema", "lr=0.3", "flip + mixup", "placebo",
    ]  # fmt: skip
    assert "not run: mixup + cutmix" in told.out
    told = ask("study", "album", "lists.toml", "--combine", "mixup,random_erasing", "--plan", "--out", "listed")
    assert "  mixup + random_erasing: " in told.out
    assert "flip + mixup" not in told.out


def test_a_plan_prints_the_hash_that_its_study_stores(place, made, ask):
    told = ask("study", "album", "study.toml", "--plan", "--out", "planned")
    facts = json.loads((place / "made" / "study.json").read_text())
    assert f"plan: {facts['plan']}, the hash" in told.out


def test_options_of_the_command_line_stand_above_those_of_the_file(place, made, ask):
    before = study_lab.manifests(place / "made")
    told = ask("study", "album", "study.toml", "--seeds", "1", "--tricks", "ema,flip_tta", "--out", "made")
    assert told.code == 0, told.err
    facts = json.loads((place / "made" / "study.json").read_text())
    assert [arm["name"] for arm in facts["arms"]] == ["reference", "ema", "flip_tta", "placebo"]
    assert before.items() <= study_lab.manifests(place / "made").items()
    assert "seeds: 0; at first 0, 1." in facts["departures"]


def test_report_writes_the_same_again(place, made, ask):
    page = (place / "made" / "report.html").read_bytes()
    (place / "made" / "report.html").unlink()
    told = ask("report", "made")
    assert told.code == 0, told.err
    assert (place / "made" / "report.html").read_bytes() == page
    assert_sentence(ask("report", "album"), 2, "holds no study")


def test_what_is_to_be_tried_next_can_be_pasted(place, made, ask):
    (line,) = (line for line in ask("report", "made").out.splitlines() if line.startswith("try next: "))
    command, *words = shlex.split(line.removeprefix("try next: "))
    assert command == "trickbag"
    assert words == ["train", "album", "--recipe", "made/recommended.toml"]


def test_the_recommended_recipe_can_be_trained(place, made, ask):
    told = ask("train", "album", "--recipe", "made/recommended.toml", "--out", "trained")
    assert told.code == 0, told.err
    assert not store.verify(place / "trained")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["album"], "nothing to study"),
        (["album", "--tricks", "mixpu"], "no trick mixpu; did you mean mixup"),
        (["album", "bad.toml"], r"study bad\.toml: seed_count: a study has no such field"),
        (["album", "none.toml"], r"study 'none\.toml' cannot be read: .* Give a TOML file"),
        (["album", "--tricks", "mixup", "ema"], r"study 'ema' cannot be read: .* Separate tricks by commas"),
        (["album", "study.toml", "--folds", "five"], "folds: string should match"),
        (["album", "study.toml", "--vary", "batch_size"], "write FIELD=VALUE,VALUE"),
        (["album", "study.toml", "--budget", "0.01s"], "is too short: 3 seeds of the smallest design take"),
        (["album", "study.toml", "--out", "album"], "album is not empty and is not a study"),
        (["album", "study.toml", "--seed", "7", "--out", "made"], "made holds another study"),
    ],
)
def test_mistakes_end_in_a_sentence(place, made, ask, words, said):
    (place / "bad.toml").write_text("seed_count = 3\n")
    recipe = [] if "study.toml" in words else ["--recipe", study_lab.recipe(place)]
    assert_sentence(ask("study", *words, *recipe), 2, said)


def test_a_second_driver_leaves_and_the_first_goes_on(place, made):
    """The first is halted where it stands, until the second has said why it leaves."""
    first = start(place, "study", "album", "study.toml", "--out", "twice", said="first")
    while not (place / "twice" / "ledger.jsonl").exists() and first.is_alive():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = run(place, "study", "album", "study.toml", "--out", "twice")
        assert_sentence(second, 2, rf"twice is being written by another process \(pid {first.pid}\)")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert ended(place, first, "first").code == 0


def test_a_study_that_is_killed_between_a_training_and_its_runs_judges_it_then(place, made):
    """The first training is stored and none of its runs: the same command makes them from it."""
    whole = run(place, "study", "album", "study.toml", "--out", "whole")
    killed = run(place, "study", "album", "study.toml", "--out", "killed", at=r"^os.rename runs/\.")
    assert (whole.code, killed.code) == (0, -signal.SIGKILL), killed
    before = {n: t for n, t in study_lab.manifests(place / "killed").items() if n.startswith("trainings/")}
    again = run(place, "study", "album", "study.toml", "--out", "killed")
    assert again.code == 0, again.err
    assert before
    assert before.items() <= study_lab.manifests(place / "killed").items(), "a finished training was made again"
    assert study_lab.predictions(place / "killed") == study_lab.predictions(place / "whole")
    weights = [{cell: record["weights"] for cell, record in study_lab.runs(place / out).items()} for out in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_a_terminal_gets_tables_that_fit(place, made):
    """Cells break and nothing is cut; what there is no room for stands in the report."""
    screen, width = Screen(), 100
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    screen.study(finished.report(place / "made"))
    told = screen.out.file.getvalue()
    assert max(map(len, told.splitlines())) <= width
    assert {"placebo", "network", "descriptive"} <= set(told.split())
    assert "…" not in told


def test_a_terminal_sees_every_run_the_means_and_the_time_left():
    board = Board(console=Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None), transient=True)
    board.add(CellDone("mixup", 0, 0.5, "", 1, 3, 90.0))
    board.add(CellDone("mixup", 1, 0.6, "", 2, 3, 41.2))
    board.add(CellDone("[red]ema", 1, None, "out of memory", 3, 3, None))
    board.console.print(board.table())
    told = [line.split() for line in board.console.file.getvalue().splitlines()]
    assert told == [
        ["arm", "seed", "0", "seed", "1", "mean"],
        ["mixup", "50.0", "60.0", "55.00"],
        ["[red]ema", "failed"],
        ["3", "of", "3", "runs"],
    ]
