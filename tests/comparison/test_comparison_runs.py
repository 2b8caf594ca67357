"""Folders of runs that were really trained: what is one method, what is compared, what is refused."""

import csv
import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from album import fill, recipe_file
from answers import Here

import trickbag as tb
from trickbag.comparison.pictures import thumbnail
from trickbag.ground import store
from trickbag.statistics.calibration import cross_calibrated
from trickbag.statistics.effects import Sample, effects

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three runs of each of two recipes, on photos whose splits go by the seed."""
    folder = tmp_path_factory.mktemp("runs")
    fill(folder / "photos", {"a": 0, "b": 1, "c": 2}, 30)
    recipe_file(folder / "tiny.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for seed in SEEDS:
            tb.train("photos", "tiny.toml", seed=seed, out=f"plain{seed}")
            tb.train("photos", "tiny.toml", with_=["mixup(alpha=0.4)"], set_={"lr": 0.01}, seed=seed, out=f"mixed{seed}")
        yield folder


PLAIN, MIXED = [f"plain{seed}" for seed in SEEDS], [f"mixed{seed}" for seed in SEEDS]


def said(run: str) -> dict[str, tuple[np.ndarray, int]]:
    """Image -> logits and label, of the test."""
    with np.load(Path(run) / "predictions.npz", allow_pickle=False) as arrays:
        logits, labels = arrays["test_logits"].astype(float), arrays["test_labels"]
    with (Path(run) / "predictions.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    return dict(zip(paths, zip(logits, labels.tolist(), strict=True), strict=True))


def test_runs_of_one_recipe_are_a_method_and_give_what_effects_gives() -> None:
    found = tb.compare(*PLAIN, *MIXED)
    assert [m.name for m in found.methods] == ["reference", "+mixup(alpha=0.4) lr=0.01"]
    assert [m.seeds for m in found.methods] == [("0", "1", "2")] * 2
    numbers: dict[str, int] = {}
    right, cooled = [], []
    for seed in SEEDS:
        sides = [said(f"plain{seed}"), said(f"mixed{seed}")]
        assert sides[0].keys() == sides[1].keys()
        images = sorted(sides[0], key=lambda path: numbers.setdefault(path, len(numbers)))
        groups = np.array([numbers[path] for path in images])
        labels = np.array([sides[0][path][1] for path in images])
        logits = [np.array([side[path][0] for path in images]) for side in sides]
        right.append(Sample(np.array([(one.argmax(1) == labels).astype(float) for one in logits]), groups))
        own = np.arange(len(labels)), labels
        cooled.append(Sample(np.array([cross_calibrated(one, labels, groups)[own] for one in logits]), groups))
    expected = effects(right, [[-1, 1]], pool=len(numbers))[0]
    effect = found.pairs[0].effect
    for field in ("points", "difference", "error", "interval", "over_seeds", "p"):
        assert getattr(effect, field) == pytest.approx(getattr(expected, field), rel=1e-8), field
    assert effect.verdict == expected.verdict
    loss = effects(cooled, [[-1, 1]], shares=False, delta=0.0)[0]
    assert effect.loss_difference == pytest.approx(-loss.difference, rel=1e-8)
    assert (found.images, found.groups, found.seeds, found.notes) == (len(numbers), len(numbers), 3, ())


def test_the_order_of_the_folders_decides_the_reference() -> None:
    found = tb.compare(MIXED[1], PLAIN[2], MIXED[0], PLAIN[0], PLAIN[1], MIXED[2])
    assert [m.name for m in found.methods] == ["reference", "-mixup(alpha=0.4) lr=0.05"]
    assert found.pairs[0].effect.difference == -tb.compare(*PLAIN, *MIXED).pairs[0].effect.difference


def test_two_runs_are_compared_as_networks_by_the_names_of_their_folders() -> None:
    found = tb.compare("plain0", "mixed0")
    assert (found.kind, [m.name for m in found.methods]) == ("networks", ["plain0", "mixed0"])
    sides = [{path: logits.argmax() == label for path, (logits, label) in said(run).items()} for run in ("plain0", "mixed0")]
    gained = sum(sides[1][path] and not sides[0][path] for path in sides[0])
    assert found.pairs[0].differing.gained == gained
    assert "not of the methods" in found.answer[-1]


def test_networks_of_other_splits_are_compared_on_the_test_images_of_both() -> None:
    found = tb.compare("plain0", "plain1", networks=True)
    common = said("plain0").keys() & said("plain1").keys()
    assert 0 < len(common) < len(said("plain0"))
    assert found.images == len(common)
    assert re.match(r"Left out: \d+ of \d+ answers", found.notes[0])


def test_two_seeds_of_one_recipe_are_no_two_methods_but_two_networks(ask: Here) -> None:
    assert "only 'reference'" in ask("compare", "plain0", "plain1").err
    assert ask("compare", "plain0", "plain1", "--networks").code == 0


def test_images_that_were_moved_are_the_same_and_images_of_another_content_are_not(place: Path) -> None:
    shutil.copytree("photos", "elsewhere/photos", dirs_exist_ok=True)
    tb.train("elsewhere/photos", "tiny.toml", set_={"lr": 0.02}, out="moved")
    assert tb.compare("plain0", "moved").images == len(said("plain0"))
    fill(place / "others", {"a": 0, "b": 1, "c": 2}, 30, seed=9)
    tb.train("others", "tiny.toml", out="others-run")
    with pytest.raises(tb.UsageError, match="were judged on other images"):
        tb.compare("plain0", "others-run")


def test_labels_that_disagree_are_refused(place: Path) -> None:
    first = next(path for path in said("plain0") if path.startswith("a/"))
    with gzip.open("plain0/images.csv.gz", "rt") as file:
        splits = {row["path"]: row["split"] for row in csv.DictReader(file)}
    lines = (f"photos/{path},{'b' if path == first else path[0]},{split}" for path, split in splits.items())
    (place / "mended.csv").write_text("\n".join(["path,label,split", *lines]))
    tb.train("mended.csv", "tiny.toml", out="mended-run")
    assert f"photos/{first}" in said("mended-run")
    lines = (f"photos/{path},{path[0]},{split}" for path, split in splits.items())
    (place / "true.csv").write_text("\n".join(["path,label,split", *lines]))
    tb.train("true.csv", "tiny.toml", out="true-run")
    with pytest.raises(tb.UsageError, match=f"'photos/{first}' has the label 'b' in mended-run, but 'a' in a run before it"):
        tb.compare("true-run", "mended-run")


def test_groups_of_the_data_set_count_as_groups(place: Path) -> None:
    paths = [path.relative_to(place).as_posix() for path in sorted((place / "photos").rglob("*.png"))]
    lines = (f"{path},{path.split('/')[1]},patient {path[7]}{number // 3}" for number, path in enumerate(paths))
    (place / "patients.csv").write_text("\n".join(["path,label,group", *lines]))
    for lr in (0.05, 0.01):
        tb.train("patients.csv", "tiny.toml", set_={"lr": lr}, out=f"patients-{lr}")
    found = tb.compare("patients-0.05", "patients-0.01")
    assert found.images == len(said("patients-0.05"))
    assert found.groups == len({path.split("/")[1] + str(paths.index(path) // 3) for path in said("patients-0.05")})
    assert found.groups < found.images
    assert found.pairs[0].mcnemar is None


def test_what_is_no_finished_run_is_refused(ask: Here) -> None:
    Path("empty").mkdir()
    assert "empty holds no finished run" in ask("compare", "plain0", "empty").err
    assert "at least two folders of runs, or one table" in ask("compare", "plain0").err
    assert "there is no 'missing'" in ask("compare", "plain0", "missing").err
    assert "are one run" in ask("compare", "plain0", "plain0", "mixed0").err
    Path("t.csv").write_text("method,seed,image,correct\nA,0,x,1\n")
    assert "Compare folders of runs, or tables" in ask("compare", "plain0", "t.csv").err
    Path("study").mkdir()
    Path("study/study.json").write_text("{}")
    assert "trickbag report study" in ask("compare", "plain0", "study").err
    shutil.copytree("plain1", "bare")
    Path("bare/model.json").unlink()  # as a run inside a study's folder, which keeps no network of its own
    told = ask("compare", "plain0", "bare")
    assert (told.code, "bare holds no trained classifier" in told.err) == (2, True)


@pytest.mark.parametrize("name", ["predictions.npz", "images.csv.gz", "asked.json", "model.json", "MANIFEST.json"])
def test_a_damaged_run_is_refused(ask: Here, name: str) -> None:
    shutil.copytree("plain1", "hurt", dirs_exist_ok=True)
    content = bytearray(Path("hurt", name).read_bytes())
    content[len(content) // 2] ^= 1
    Path("hurt", name).write_bytes(content)
    told = ask("compare", "plain0", "hurt", "--networks")
    assert told.code == 1
    assert re.fullmatch(r"trickbag: hurt is damaged: [^\n]+\.\n", told.err)


def test_a_damaged_table_of_images_under_a_valid_manifest_is_refused(ask: Here) -> None:
    shutil.copytree("plain1", "cut", dirs_exist_ok=True)
    Path("cut/images.csv.gz").write_bytes(Path("cut/images.csv.gz").read_bytes()[:-20])
    store.seal(Path("cut"))
    told = ask("compare", "plain0", "cut", "--networks")
    assert (told.code, "images.csv.gz is damaged" in told.err) == (1, True)


def test_the_command_answers_and_writes_the_page_with_thumbnails(ask: Here) -> None:
    told = ask("compare", *PLAIN, *MIXED, "--images", "photos", "--html", "page/compare.html")
    assert told.code == 0, told.err
    found = tb.compare(*PLAIN, *MIXED, images="photos")
    assert told.out.startswith(found.answer[0])
    assert "+mixup(alpha=0.4) lr=0.01" in told.out
    page = Path("page/compare.html").read_text().replace("<wbr>", "")
    shown = [*found.pairs[0].differing.best, *found.pairs[0].differing.worst]
    assert shown
    assert all(thumbnail(Path("photos"), picture.path) in page and picture.path in page for picture in shown)
    assert page.count("data:image/jpeg;base64,") == len(shown)
    assert json.loads(ask("compare", *PLAIN, *MIXED, "--json").out) == json.loads(json.dumps(found.as_json()))
    assert "--images 'nowhere' is no folder" in ask("compare", *PLAIN, *MIXED, "--images", "nowhere", "--html", "x.html").err
    assert "Add --html FILE" in ask("compare", *PLAIN, *MIXED, "--images", "photos").err


def test_every_command_and_table_of_the_page_works(place: Path, ask: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text("utf-8")
    (place / "docs").mkdir()
    monkeypatch.chdir(place / "docs")
    for seed in SEEDS:
        shutil.copytree(place / f"plain{seed}", f"runs/plain-{seed}")
        shutil.copytree(place / f"mixed{seed}", f"runs/mixup-{seed}")
    correct, scores = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    rng = np.random.default_rng(0)
    heads = {"results.csv": correct.splitlines()[0], "scores.csv": scores.splitlines()[0]}
    answers = [f"{m},{s},im{i},{int(rng.random() < 0.6 + 0.1 * (m == 'B'))}" for m in "AB" for s in SEEDS for i in range(300)]
    Path("results.csv").write_text("\n".join([heads["results.csv"], *answers]))
    Path("scores.csv").write_text("\n".join([heads["scores.csv"], *(f"{m},{s},{rng.random()}" for m in "AB" for s in SEEDS)]))
    commands = [shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 6
    for words in [*commands, ["trickbag", "compare", "scores.csv"]]:
        told = ask(*words[1:])
        assert told.code == 0, (words, told.err)
        assert told.out
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(tb.compare("results.csv").answer[0])
    options = set(re.findall(r"^\| `(--[a-z]+)", page, re.MULTILINE))
    assert options | {"--networks"} == set(re.findall(r"--[a-z]+", ask("compare", "--help").out)) - {"--help"}


def test_no_library_of_training_is_imported() -> None:
    code = (
        "import sys\nfrom trickbag.terminal.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'torchmetrics', 'timm', 'sklearn', 'matplotlib', 'scipy.optimize'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    for words in (["t3.csv", "--html", "t3.html"], [*PLAIN, *MIXED, "--html", "p.html", "--images", "photos"]):
        lines = [f"{m},{s},im{i},{(i + s + len(m)) % 3 and 1}" for m in ("A", "Bee") for s in SEEDS for i in range(50)]
        Path("t3.csv").write_text("method,seed,image,correct\n" + "\n".join(lines))
        done = subprocess.run([sys.executable, "-c", code, "compare", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"
