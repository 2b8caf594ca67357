"""Studies of several data sets together: what is pooled and what is not, the file that is left, and what is read from it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import study_lab
from atlases import ERROR, GAINS, found, measured, sets
from findings import effect as contrast
from study_lab import album

from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.recipe import Recipe
from trickbag.report.atlas import Atlas, Entry, answer
from trickbag.statistics.belief import belief
from trickbag.statistics.meta import pooled
from trickbag.studies.atlas import Found, combined
from trickbag.studies.prior import AtlasRecord, expected, load_prior, ordering, regime_of

DATE = "2026-11-29"


def entries(studies: list[Found], group: int = 0) -> dict[str, Entry]:
    return {entry.name: entry for entry in combined(studies, DATE).groups[group].entries}


def written(made: Atlas, path: Path) -> Path:
    store.write(path, store.to_json(AtlasRecord.build(made).signed()))
    return path


# what is combined


def test_a_trick_is_pooled_over_the_data_sets_that_measured_it() -> None:
    studies = sets()
    del studies[3].effects["sam"]
    got = entries(studies)
    assert got["ema"].pooled == pooled(GAINS["ema"], [ERROR] * 4)
    assert got["sam"].pooled == pooled(GAINS["sam"][:3], [ERROR] * 3)
    assert [one.data for one in got["sam"].sets] == ["set 0", "set 1", "set 2"]
    assert [*got] == ["sam", "ema", "mixup(alpha=0.2)", "random_erasing"], "the largest gain comes first"


def test_regimes_are_never_mixed() -> None:
    made = combined([*sets(3), *sets(2, "from scratch", "raw "), *sets(1, "frozen", "still ")], DATE)
    assert [group.regime for group in made.groups] == ["from scratch", "fine-tuning", "frozen"]
    assert [len(group.sources) for group in made.groups] == [2, 3, 1]
    assert made.groups[1] == combined(sets(3), DATE).groups[0]
    assert all(one.data.startswith("raw ") for entry in made.groups[0].entries for one in entry.sets)


def test_one_data_set_gives_tables_without_a_mean_and_says_why() -> None:
    (group,) = combined(sets(1), DATE).groups
    assert all(entry.pooled is None and len(entry.sets) == 1 for entry in group.entries)
    assert answer(group) == (
        "No trick was measured on two data sets, so there is nothing to combine: give studies of more data sets.",
    )


def test_other_parameters_are_another_trick() -> None:
    got = entries([found("a", {"mixup": measured("mixup", 0.01)}), found("b", {"mixup(alpha=0.4)": measured("mixup", 0.02)})])
    assert [(name, entry.tried, entry.pooled) for name, entry in got.items()] == [
        ("mixup(alpha=0.4)", 1, None),
        ("mixup", 1, None),
    ]


def test_the_same_images_count_once_by_the_more_precise_study_in_any_order() -> None:
    again = found("copy", {"ema": measured("ema", 0.02, 0.002), "sam": measured("sam", 0.5, 0.009)}, fingerprint="of set 1")
    for studies in ([*sets(3), again], [again, *sets(3)]):
        got = entries(studies)
        assert got["ema"].tried == got["sam"].tried == 3
        assert sorted(one.difference for one in got["ema"].sets) == [0.008, 0.011, 0.02]
        assert sorted(one.difference for one in got["sam"].sets) == [0.009, 0.012, 0.016]
        (note,) = combined(studies, DATE).groups[0].notes
        assert "are studies of the same images" in note
        assert "studies/copy" in note
        assert "studies/set 1" in note


def test_other_images_of_the_same_name_are_told_apart() -> None:
    studies = [found("photos", {"ema": measured("ema", 0.01)}, folder=f"studies/{k}", fingerprint=str(k)) for k in range(2)]
    assert [one.data for one in entries(studies)["ema"].sets] == ["photos (studies/0)", "photos (studies/1)"]


def test_what_changes_nothing_and_what_has_no_error_is_not_pooled() -> None:
    same = contrast("ema", np.zeros(3), error=0.0)
    few = measured("ema", 0.3, None, verdict="descriptive")
    assert same.verdict == "identical"
    got = combined([*sets(2), found("even", {"ema": same}), found("brief", {"ema": few})], DATE).groups[0]
    ema = next(entry for entry in got.entries if entry.name == "ema")
    assert ema.pooled == pooled(GAINS["ema"][:2], [ERROR] * 2)
    assert (ema.tried, ema.unchanged) == (3, ("even",))
    (note,) = got.notes
    assert note.startswith("studies/brief has no standard error for ema")


def test_nothing_to_combine_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="nothing to combine"):
        combined([found("a", {"ema": measured("ema", 0.1, None, verdict="descriptive")}), found("b", {})], DATE)


def test_times_of_a_shared_machine_are_no_price() -> None:
    studies = sets(3)
    studies[0] = found("set 0", {"sam": measured("sam", 0.012, seconds_ratio=9.0)}, timed=False)
    studies[1] = found("set 1", {"sam": measured("sam", 0.012, seconds_ratio=8.0)})
    sam = entries(studies)["sam"]
    assert sam.price == pytest.approx(math.sqrt(2.0 * 8.0))
    assert any("times of studies/set 0 do not count" in note for note in combined(studies, DATE).groups[0].notes)


def test_helped_counts_the_verdicts_of_the_studies() -> None:
    verdicts = ("helps", "worthwhile", "open", "hurts")
    studies = [found(f"{k}", {"ema": measured("ema", 0.01, verdict=said)}) for k, said in enumerate(verdicts)]
    assert (entries(studies)["ema"].helped, entries(studies)["ema"].tried) == (2, 4)


@pytest.mark.parametrize(
    ("fields", "regime"),
    [
        ({}, "from scratch"),
        ({"weights": "hub"}, "fine-tuning"),
        ({"weights": "hub", "epochs": 0, "tricks": ["fit_head"]}, "frozen"),
        ({"epochs": 0, "tricks": ["knn"]}, "frozen"),
        ({"weights": "hub", "tricks": ["freeze"]}, "frozen"),
        ({"weights": "hub", "tricks": ["freeze(until=0.1)"]}, "fine-tuning"),
    ],
)
def test_regimes(fields: dict, regime: str) -> None:
    assert regime_of(Recipe(**fields)) == regime


# what is read from the file


def test_a_prior_is_the_prediction_for_a_new_data_set(tmp_path: Path) -> None:
    path = written(combined(sets(), DATE), tmp_path / "atlas.json")
    priors = load_prior(path, "fine-tuning")
    assert priors.keys() == GAINS.keys()
    ahead = pooled(GAINS["ema"], [ERROR] * 4).prediction
    assert ahead
    prior = priors["ema"]
    assert prior.mean == pytest.approx(np.mean(GAINS["ema"]), abs=1e-6)
    assert 2 * 1.959964 * math.sqrt(prior.variance) == pytest.approx(ahead.high - ahead.low, rel=1e-6)
    assert prior.source == f"{path} (fine-tuning, 4 data sets, {DATE})"
    # A study that measures nothing new believes what was expected; one that measures exactly believes itself.
    assert belief(-0.5, 1e3, prior).gain == pytest.approx(prior.mean, abs=1e-6)
    assert belief(-0.5, 1e-9, prior).gain == pytest.approx(-0.5, abs=1e-6)


def test_the_results_of_the_study_s_own_images_do_not_count(tmp_path: Path) -> None:
    path = written(combined(sets(), DATE), tmp_path / "atlas.json")
    others = written(combined(sets()[:3], DATE), tmp_path / "others.json")
    without = {name: prior._replace(source="") for name, prior in load_prior(path, "fine-tuning", "of set 3").items()}
    assert without == {name: prior._replace(source="") for name, prior in load_prior(others, "fine-tuning").items()}
    assert "3 data sets" in load_prior(path, "fine-tuning", "of set 3")["ema"].source
    with pytest.raises(UsageError, match=r"no trick was measured on 3 data sets \(fine-tuning, this one left out\)"):
        load_prior(others, "fine-tuning", "of set 0")


def test_the_order_is_by_expected_gain_per_time(tmp_path: Path) -> None:
    known = expected(written(combined(sets(), DATE), tmp_path / "atlas.json"), "fine-tuning")
    assert known["sam"].rate == pytest.approx(np.mean(GAINS["sam"]) / 2, rel=1e-3)
    assert known["ema"].rate > known["sam"].rate > 0 > known["random_erasing"].rate
    said = ordering(known, ["ema", "cosine"])
    assert said.startswith("order by the expected gain per time of ")
    assert said.endswith(": ema +0.75 points at 1.00 times the time, cosine")
    assert ordering({}, ["ema"]) == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda held: held | {"date": "2026-11-30"}, "was changed after trickbag wrote it"),
        (lambda held: {k: v for k, v in held.items() if k != "digest"}, "has no digest"),
        (lambda held: held | {"version": 2}, "version"),
        (lambda held: held["regimes"], "version: field required"),
        (lambda held: [held], "valid dictionary"),
    ],
)
def test_a_file_that_is_no_atlas_ends_in_a_sentence(tmp_path: Path, change, says: str) -> None:
    path = written(combined(sets(), DATE), tmp_path / "atlas.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UsageError, match=says) as refused:
        load_prior(path, "fine-tuning")
    assert str(refused.value).endswith("Give the atlas.json that trickbag atlas wrote.")


@pytest.mark.parametrize("change", [{"error": 0.0}, {"error": -1}, {"difference": 1e300}, {"price": 0}, {"error": "0.1"}])
def test_numbers_that_no_study_has_are_refused(tmp_path: Path, change: dict) -> None:
    path = written(combined(sets(), DATE), tmp_path / "atlas.json")
    held = json.loads(path.read_text())
    held["regimes"]["fine-tuning"]["tricks"]["ema"]["sets"][0] |= change
    path.write_text(json.dumps(held))
    with pytest.raises(UsageError, match=r"is no atlas, or damaged: regimes\.fine-tuning\.tricks\.ema\.sets\.0\."):
        load_prior(path, "fine-tuning")


def test_a_prior_of_another_regime_is_refused(tmp_path: Path) -> None:
    path = written(combined(sets(), DATE), tmp_path / "atlas.json")
    with pytest.raises(UsageError, match=r"holds studies of another kind \(fine-tuning\), and this one is: from scratch"):
        load_prior(path, "from scratch")
    for name in ("none.json", "."):
        with pytest.raises(UsageError, match="cannot be read"):
            load_prior(tmp_path / name, "from scratch")


# from the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRICKBAG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        recipe = study_lab.recipe(folder)
        for k in range(2):
            album(folder / f"album{k}", {"a": 24, "b": 24}, noise=60, seed=k)
            study_lab.study(
                folder / f"album{k}", recipe=recipe, tricks=["ema", "flip_tta"], design="add-one", out=f"made{k}", proof=False
            )
        yield folder


def test_two_studies_of_two_data_sets_make_an_atlas(place: Path, ask) -> None:
    told = ask("atlas", "made0", "made1", "--out", "both")
    assert told.code == 0, told.err
    assert "from scratch: 2 data sets" in told.out
    assert "atlas: both/atlas.html" in told.out
    held = json.loads((place / "both" / "atlas.json").read_text())
    assert held["regimes"].keys() == {"from scratch"}
    group = held["regimes"]["from scratch"]
    assert group["tricks"].keys() == {"ema", "flip_tta"}
    assert {len(trick["sets"]) + len(trick["unchanged"]) for trick in group["tricks"].values()} == {2}
    assert any(trick["pooled"] for trick in group["tricks"].values())
    for k, source in enumerate(group["studies"]):
        study = study_lab.held(place / f"made{k}")
        assert source == {
            "data": f"album{k}", "folder": f"made{k}", "fingerprint": study.held.fingerprint, "model": "cifar_resnet8",
            "epochs": 2, "images": source["images"], "seeds": 3,
        }  # fmt: skip
        report = (place / f"made{k}" / "effects.csv").read_text()
        for one in (trick["sets"][k] for trick in group["tricks"].values() if len(trick["sets"]) == 2):
            assert str(one["difference"]) in report
            assert str(one["error"]) in report
    assert "album1" in (place / "both" / "atlas.html").read_text()
    again = ask("atlas", "made0", "made1", "--out", "both")
    assert again.code == 0, again.err


def test_mistakes_end_in_a_sentence(place: Path, ask) -> None:
    for words, said in (
        (["atlas", "album0"], "holds no study"),
        (["atlas", "made0", "--out", "album0"], "--out album0 is not empty and holds no atlas"),
        (["atlas", "made0", "--out", "made1"], "--out made1 is not empty and holds no atlas"),
        (["atlas"], "Missing argument"),
    ):
        told = ask(*words)
        assert told.code == 2
        assert said in told.err
        assert "Traceback" not in told.err
    assert not (place / "made1" / "atlas.json").exists()


def test_auto_reads_the_prior_that_is_named_and_says_so(place: Path, ask) -> None:
    """No data set of this regime is there three times, so the file is made up; its first trick is another than without it."""
    studies = sets(3, "from scratch")
    for one, gain in zip(studies, (0.05, 0.06, 0.055), strict=True):
        one.effects["warmup"] = measured("warmup", gain, 0.001)
    written(combined(studies, DATE), place / "prior.json")
    words = (
        "study",
        "album0",
        "--recipe",
        study_lab.recipe(place),
        "--tricks",
        "auto",
        "--design",
        "add-one",
        "--plan",
        "--out",
        "new",
    )
    plain, led = ask(*words), ask(*words, "--prior", "prior.json")
    assert (plain.code, led.code) == (0, 0), plain.err + led.err
    assert "order by" not in plain.out
    assert "order by the expected gain per time of prior.json (from scratch, 3 data sets, 2026-11-29): warmup +5.5" in led.out
    refused = ask(*words, "--prior", "none.json")
    assert (refused.code, "prior 'none.json' cannot be read" in refused.err) == (2, True)
