"""Images of classes that a run does not know: formulas against scikit-learn, and digits held out of a real training."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from album import TINY, fill, recipe_file
from answers import Here
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.metrics import f1_score, roc_auc_score

import trickbag as tb
from trickbag.data import digits
from trickbag.engine.open_set import OpenScores, auroc, f_measure, familiarity, score_open, threshold
from trickbag.engine.scores import score
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError

HELD_OUT = ("8", "9")
COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def f_by_formula(predicted: Any, labels: Any) -> float:
    """Bendale and Boult 2016, an image at a time; -1: rejected, unknown."""
    pairs = list(zip(predicted, labels, strict=True))
    tp = sum(p == y for p, y in pairs if y != -1)
    fp = sum(p != y for p, y in pairs if y != -1)
    fn = sum(p != -1 for p, y in pairs if y == -1)
    precision, recall = (tp / (tp + wrong) if tp + wrong else 0.0 for wrong in (fp, fn))
    return 2 * precision * recall / (precision + recall) if tp else 0.0


def planted(known: int, unknown: int, gap: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three classes below 1, and labels; the logit of a known image's class is larger by ``gap``."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.randint(3, (known,), generator=rng), torch.full((unknown,), -1)])
    logits = torch.rand(known + unknown, 3, generator=rng)
    logits[torch.arange(known), labels[:known]] += gap
    return logits, labels


# formulas


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        ([0, 1, 1, -1, -1, 0, 2], [0, 1, 0, 2, -1, -1, -1], 0.5),  # TP 2, FP 2, of which one is rejected, FN 2
        ([0, 1, 2, -1], [0, 1, 2, -1], 1.0),
        ([0, 1, 2, 2], [0, 1, 2, -1], 6 / 7),
        ([-1, -1, -1], [0, 1, -1], 0.0),
        ([0, -1, -1, -1], [0, 1, 2, -1], 0.5),  # the authors' first code says 1
        ([1], [0], 0.0),
        ([-1], [-1], math.nan),
        ([], [], math.nan),
    ],
)
def test_the_f_measure_of_a_table(predicted: list[int], labels: list[int], expected: float) -> None:
    assert f_measure(torch.tensor(predicted), torch.tensor(labels)) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=40))
def test_the_f_measure_is_the_formula_and_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    found = f_measure(*(torch.tensor(column) for column in zip(*pairs, strict=True)))
    if math.isnan(found):
        assert all(pair == (-1, -1) for pair in pairs)
        return
    assert found == pytest.approx(f_by_formula(*zip(*pairs, strict=True)))
    # A known image is a positive call, right or wrong; an unknown one is a positive that is missed where it gets a class.
    called = [y != -1 for _, y in pairs]
    right = [p == y if y != -1 else p != -1 for p, y in pairs]
    assert found == pytest.approx(f1_score(right, called, zero_division=0))


@given(COUNTS, COUNTS)
def test_the_area_is_scikit_learns_with_ties(known: list[int], unknown: list[int]) -> None:
    expected = roc_auc_score([1] * len(known) + [0] * len(unknown), known + unknown)
    assert auroc(torch.tensor(known).double(), torch.tensor(unknown).double()) == pytest.approx(expected)


@given(COUNTS)
def test_the_threshold_is_the_largest_that_rejects_a_twentieth_at_most(values: list[int]) -> None:
    limit = threshold(torch.tensor(values).double())
    rejected = {at: sum(value < at for value in values) for at in {*values, math.inf}}
    assert limit == max(at for at, count in rejected.items() if 20 * count <= len(values))


def test_familiarity_is_the_formula_in_double() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 9
    wide = logits.double().numpy()
    np.testing.assert_allclose(familiarity(logits, "probability").numpy(), softmax(wide, 1).max(1), rtol=1e-12)
    np.testing.assert_allclose(familiarity(logits, "energy").numpy(), logsumexp(wide, 1), rtol=1e-12)
    assert familiarity(torch.tensor([[1e30, -1e30]]), "energy").tolist() == pytest.approx([1e30])
    sure = familiarity(torch.tensor([[20.0, 0.0], [25.0, 0.0]]), "probability")
    assert sure[0] < sure[1] < 1, "in single precision both are 1"


def test_planted_logits_are_told_apart_and_the_judged_images_choose_no_threshold() -> None:
    validation, _ = planted(200, 0, 6, seed=1)
    limits = set()
    for gap, perfect in ((6, True), (0, False)):
        logits, labels = planted(90, 40, gap)
        for by in ("probability", "energy"):
            found = score_open(logits, labels, validation, by)
            limits.add((by, found.threshold))
            assert (found.n, found.n_unknown) == (90, 40)
            assert found.kept_val == 0.95
            assert found.rejected_unknown == 1
            assert (found.auroc == 1) == perfect
            assert (found.rejected_known < 0.15) == perfect
            closed = score(logits[:90], labels[:90]).as_json()
            assert closed.items() <= found.as_json().items()
            predicted = np.where(familiarity(logits, by) < found.threshold, -1, logits.argmax(1))
            assert found.f_measure == pytest.approx(f_by_formula(predicted, labels.tolist()))
            assert found.f_measure_unrejected == pytest.approx(f_by_formula(logits.argmax(1).tolist(), labels.tolist()))
    assert len(limits) == 2


def test_an_image_at_the_threshold_is_kept() -> None:
    logits, labels = planted(60, 1, 6)
    found = score_open(logits, labels, logits[:60], "energy")
    assert (found.kept_val, found.rejected_known) == (0.95, 0.05)


@pytest.mark.parametrize("row", [0, 2])
def test_logits_that_are_not_finite_are_told(row: int) -> None:
    logits, labels = planted(2, 2, 3)
    logits[row, 1] = math.nan
    with pytest.raises(TrickbagError, match="no finite numbers for 1 of 4 images"):
        score_open(logits, labels, planted(5, 0, 3)[0], "energy")


# the command


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("open")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Path]:
    """Trained on 100 of each of eight digits: plainly, then by OLTR from those weights; 40 others of all ten are judged."""
    for folder in digits.write(place / "digits").iterdir():
        files = sorted(folder.iterdir())
        for name, part in (("photos", files[:100]), ("judged", files[100:140])):
            if name == "judged" or folder.name not in HELD_OUT:
                (place / name / folder.name).mkdir(parents=True)
                for file in part:
                    shutil.copy(file, place / name / folder.name)
    recipe = recipe_file(place / "digits.toml", TINY.replace('"flip", ', "").replace("epochs = 2", "epochs = 6"))
    plain = tb.train("photos", recipe, out="plain", set_={"val_share": 0.2}).folder
    set_ = {"val_share": 0.2, "epochs": 4}
    return {
        "plain": plain,
        "oltr": tb.train("photos", recipe, weights=str(plain), with_=["oltr"], out="oltr", set_=set_).folder,
    }


def test_digits_that_training_never_saw_are_rejected(runs: dict[str, Path]) -> None:
    """The installed command in a process of its own, against what predict says of each file."""
    command = [str(Path(sys.executable).with_name("trickbag")), "evaluate", "oltr", "judged", "--open-set", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    assert "unknown to the run: 8, 9\n" in done.stderr
    found = json.loads(done.stdout)
    assert (found["n"], found["n_unknown"], found["by"]) == (320, 80, "probability")
    assert found["auroc"] > 0.85
    assert found["f_measure"] > found["f_measure_unrejected"] + 0.02

    said = list(tb.load(runs["oltr"]).predict(["judged"], top=1))
    names = [Path(p.path).parent.name for p in said]
    labels = np.array([-1 if name in HELD_OUT else int(name) for name in names])
    sure, classes, unknown = np.array([p.probabilities[0] for p in said]), [int(p.classes[0]) for p in said], labels == -1
    with np.load(runs["oltr"] / "predictions.npz", allow_pickle=False) as arrays:
        validation = np.sort(softmax(arrays["val_logits"].astype(float), 1).max(1))
    limit = validation[len(validation) // 20]
    expected = {
        "top1": np.mean((classes == labels)[~unknown]),
        "threshold": limit,
        "kept_val": np.mean(validation >= limit),
        "auroc": roc_auc_score(~unknown, sure),
        "rejected_unknown": np.mean(sure[unknown] < limit),
        "rejected_known": np.mean(sure[~unknown] < limit),
        "f_measure": f_by_formula(np.where(sure < limit, -1, classes), labels),
        "f_measure_unrejected": f_by_formula(classes, labels),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("words", "by"), [([], "largest probability"), (["--energy"], "energy")])
def test_the_terminal_says_what_python_and_json_say(runs: dict[str, Path], ask: Here, words: list[str], by: str) -> None:
    found = tb.evaluate(runs["plain"], "judged", open_set=True, energy=bool(words))
    scores = found.scores
    assert isinstance(scores, OpenScores)
    assert scores.auroc > 0.85
    assert scores.f_measure > scores.f_measure_unrejected + 0.02
    assert json.loads(ask("evaluate", "plain", "judged", "--open-set", "--json", *words).out) == found.as_json()
    told = ask("evaluate", "plain", "judged", "--open-set", *words).out
    assert f"320 images of known classes)\ntop-5 {100 * scores.top5:.1f} %" in told
    assert f"80 images of unknown classes: AUROC {scores.auroc:.3f} by the {by}\n" in told
    shares = (scores.kept_val, scores.rejected_unknown, scores.rejected_known, scores.f_measure, scores.f_measure_unrejected)
    kept, unknown, known, measure, without = (re.escape(f"{100 * share:.1f} %") for share in shares)
    assert re.search(rf"keeps {kept} of .* images: {unknown} of the unknown, {known} of the known\n", told)
    assert re.search(rf"F-measure {measure}, {without} with nothing rejected\n", told)


@pytest.fixture(scope="module")
def small(place: Path) -> Path:
    """A run of two classes whose names are no ASCII, judged by averaged views."""
    recipe = recipe_file(place / "small.toml", TINY.replace("epochs = 2", "epochs = 1"))
    return tb.train(fill(place / "two", {"猫/白": 0, "ü": 1}, 8), recipe, out="small", with_=["flip_tta"]).folder


def test_names_in_any_script_are_known_or_told_of(place: Path, small: Path, ask: Here) -> None:
    fill(place / "mixed", {"猫/白": 0, "猫/\u202eblack": 2, "u\u0308": 1}, 3)
    told = ask("evaluate", "small", "mixed", "--open-set")
    assert told.code == 0, told.err
    assert "3 images of known classes" in told.out
    assert "6 images of unknown classes" in told.out
    assert "unknown to the run: u\u0308, 猫/\\u202eblack\n" in told.out


def test_what_cannot_be_asked_is_refused(place: Path, small: Path, ask: Here) -> None:
    fill(place / "known", {"ü": 1}, 1)
    fill(place / "other", {"dog": 2}, 1)
    (place / "torn" / "ü").mkdir(parents=True)
    (place / "torn" / "ü" / "0.png").write_bytes(b"no image")
    (place / "nothing").mkdir()
    refusals = [
        (("small", "known", "--open-set"), r"known has no image of a class that the run does not know\. It knows: ü, 猫/白\."),
        (
            ("small", "other", "--open-set"),
            r"other has no image of a class that the run knows\. It knows: ü, 猫/白\. Add some\.",
        ),
        (("small", "other"), r"the class 'dog', which the run does not know.*--open-set counts its images as unknown\."),
        (("small", "torn"), r"torn holds no image that can be read\. trickbag check says why\."),
        (("small", "torn", "--open-set"), r"torn holds no image that can be read"),
        (("small", "nothing", "--open-set"), r"nothing' holds no image\."),
        (("small", "two", "--energy"), r"--energy is a way to reject.*Give --open-set too\."),
        (("small", "two", "--open-set", "--energy"), r"small predicts logarithms of probabilities.*Leave --energy out\."),
        (
            ("small", "two", "--open-set", "--with", "flip_tta"),
            r"without flip_tta\. Train with --with flip_tta, or evaluate without",
        ),
    ]
    for words, said in refusals:
        answer = ask("evaluate", *words)
        assert answer.code == 2, answer
        assert re.fullmatch(r"trickbag: [^\n]+[.]\n", answer.err), answer.err
        assert re.search(said, answer.err), answer.err


def test_without_validation_predictions_there_is_no_threshold(place: Path, small: Path) -> None:
    bare = shutil.copytree(small, place / "bare")
    (bare / "predictions.npz").unlink()
    with pytest.raises(TrickbagError, match=r"bare is damaged: predictions\.npz is missing"):
        tb.evaluate(bare, "two", open_set=True)
    store.seal(bare)
    assert tb.evaluate(bare, "two").scores.n == 16
    with pytest.raises(UsageError, match=r"bare holds no predictions\.npz, whose validation images choose the threshold"):
        tb.evaluate(bare, "two", open_set=True)
