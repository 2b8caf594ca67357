"""Designs against independent arithmetic: planted responses come back, conflicts are told.

A response is a function from the set of tricks that are on to a number. An arm's response is read off its recipe, so that a
wrong arm and a wrong weight both show.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from math import factorial as fact
from math import sqrt

import numpy as np
import pytest

from trickbag.ground.errors import UsageError
from trickbag.recipe import Recipe, recipe_names
from trickbag.statistics.power import PERSISTENT, UNTRAINED
from trickbag.studies.arms import differences, kept
from trickbag.studies.design import WEAKNESS, Arm, Design, Question, design, matched
from trickbag.trick import Trick, conflict
from trickbag.tricks import parse

HARMONIOUS = [
    "warmup", "cosine", "label_smoothing", "ema", "flip_tta", "mixup(alpha=0.4)", "random_erasing", "no_bias_decay",
    "zero_gamma", "head_lr", "flip", "trivialaugment", "clip_gradient", "class_weights", "freeze(until=0.1)", "calibrate",
]  # fmt: skip
SHAPING = [name for name in [*HARMONIOUS, "dropout", "gradient_centralisation", "lighting"] if parse(name).begin() < 1]
"""Those that shape the training: they share a fraction, while the others are crossed with it in full."""
COMPARING = [kind for kind in WEAKNESS if kind != "stack"]
Response = Callable[[frozenset[str]], float]


def tricks(k: int) -> list[Trick]:
    return [parse(text) for text in HARMONIOUS[:k]]


def shaping(k: int) -> list[Trick]:
    return [parse(text) for text in SHAPING[:k]]


def response(k: int, degree: int, seed: int = 0, names: Sequence[str] = HARMONIOUS) -> Response:
    """A polynomial in the tricks that are on, with a random coefficient for each of up to ``degree`` of them."""
    rng = np.random.default_rng(seed)
    terms = [frozenset(s) for d in range(degree + 1) for s in itertools.combinations(names[:k], d)]
    planted = dict(zip(terms, rng.normal(size=len(terms)).tolist(), strict=True))
    return lambda on: sum(value for term, value in planted.items() if term <= on)


def answer(made: Design, question: Question, value: Response) -> float:
    on = {arm.name: frozenset(map(str, arm.recipe.tricks)) for arm in made.arms}
    return sum(weight * value(on[arm]) for arm, weight in question.weights)


def answers(made: Design, kind: str, value: Response) -> dict[str, float]:
    return {q.name: answer(made, q, value) for q in made.questions if q.kind == kind}


def shapley(players: Iterable[str], value: Response, always: frozenset[str] = frozenset()) -> dict[str, float]:
    """By going through all orders of adding the players."""
    players = list(players)
    total = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        for place, player in enumerate(order):
            before = always | set(order[:place])
            total[player] += value(before | {player}) - value(before)
    return {player: sum_ / fact(len(players)) for player, sum_ in total.items()}


def roles(made: Design) -> dict[str, str]:
    return {arm.name: arm.role for arm in made.arms}


# ---- what each design recovers ----


@pytest.mark.parametrize("kind", COMPARING)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 16])
def test_every_design_recovers_additive_effects_exactly(kind: str, k: int) -> None:
    value = response(k, 1)
    made = design(Recipe(), tricks(k), kind=kind)
    effects = {name: value(frozenset({name})) - value(frozenset()) for name in HARMONIOUS[:k]}
    asked = [q for q in made.questions if q.kind in ("alone", "dropped", "midpoint", "main", "shapley")]
    assert {q.name for q in asked} == set(effects)
    for question in asked:
        assert answer(made, question, value) == pytest.approx(effects[question.name])
    for kind_ in ("interaction", "pair"):
        assert all(found == pytest.approx(0, abs=1e-9) for found in answers(made, kind_, value).values())


def test_add_one_gives_the_effect_beside_the_reference() -> None:
    value = response(4, 4)
    made = design(Recipe(), tricks(4), kind="add-one")
    assert len(made.arms) == 4 + 1 + 1
    found = answers(made, "alone", value)
    assert found == pytest.approx({n: value(frozenset({n})) - value(frozenset()) for n in HARMONIOUS[:4]})


def test_leave_one_out_gives_the_effect_beside_all_others() -> None:
    value, names = response(4, 4), frozenset(HARMONIOUS[:4])
    made = design(Recipe(), tricks(4), kind="leave-one-out")
    assert len(made.arms) == 4 + 2 + 1
    assert answers(made, "dropped", value) == pytest.approx({n: value(names) - value(names - {n}) for n in names})
    assert answers(made, "combination", value) == pytest.approx({"all": value(names) - value(frozenset())})


@pytest.mark.parametrize("k", [3, 4, 6])
def test_the_midpoint_is_the_shapley_value_where_tricks_interact_in_pairs(k: int) -> None:
    names, value = HARMONIOUS[:k], response(k, 2)
    made = design(Recipe(), tricks(k), kind="two-sided")
    assert len(made.arms) == 2 * k + 2 + 1
    assert answers(made, "midpoint", value) == pytest.approx(shapley(names, value))
    for name, gap in answers(made, "interaction", value).items():
        pairs = [frozenset({name, other}) for other in names if other != name]
        single = sum(
            value(pair) - value(pair - {name}) - value(frozenset({name})) + value(frozenset()) for pair in pairs
        )  # the sum of its interactions with each other
        assert gap == pytest.approx(single)


@pytest.mark.parametrize("k", [3, 4])
def test_the_full_factorial_gives_shapley_values_whatever_the_interactions(k: int) -> None:
    value = response(k, k)
    made = design(Recipe(), tricks(k), kind="factorial")
    assert len(made.arms) == 2**k + 1
    assert answers(made, "shapley", value) == pytest.approx(shapley(HARMONIOUS[:k], value))


@pytest.mark.parametrize("k", [5, 6, 8, 12, 16])
def test_fractions_keep_main_effects_clear_of_pairs_and_say_which_pairs_they_add_up(k: int) -> None:
    names, value = SHAPING[:k], response(k, 2, names=SHAPING)
    made = design(Recipe(), shaping(k), kind="factorial")
    none = frozenset[str]()

    def both(pair: str) -> float:
        a, b = (frozenset({name}) for name in pair.split(" × "))
        return value(a | b) - value(a) - value(b) + value(none)

    halves = {
        n: value(frozenset({n})) - value(none) + sum(both(f"{n} × {other}") for other in names if other != n) / 2 for n in names
    }
    assert answers(made, "main", value) == pytest.approx(halves)
    chained = {q.name: both(q.name) + sum(map(both, q.aliases)) for q in made.questions if q.kind == "pair"}
    assert answers(made, "pair", value) == pytest.approx(chained)
    told = [pair for q in made.questions if q.kind == "pair" for pair in (q.name, *q.aliases)]
    assert sorted(told) == sorted(" × ".join(pair) for pair in itertools.combinations(names, 2))


def test_two_orders_of_a_stack_show_that_steps_depend_on_the_order() -> None:
    names, value = HARMONIOUS[:3], response(3, 3)
    made = design(Recipe(), tricks(3), kind="stack")
    found = answers(made, "step", value)
    for order, label in ((names, ""), (names[::-1], " (reversed order)")):
        for n, name in enumerate(order):
            gain = value(frozenset(order[: n + 1])) - value(frozenset(order[:n]))
            assert found[f"{name}{label}"] == pytest.approx(gain)
    assert {q.name for q in made.questions if q.declared} == {*names, "all"}
    assert sum(found[name] for name in names) == pytest.approx(answers(made, "combination", value)["all"])


# ---- tricks that the reference holds ----


def test_a_trick_of_the_reference_is_taken_out_and_its_effect_is_still_with_minus_without() -> None:
    names, value = HARMONIOUS[:4], response(4, 4)
    reference = Recipe(tricks=names[:2])
    on, whole = frozenset(names[:2]), frozenset(names)
    made = design(reference, tricks(4), kind="two-sided")
    assert {"without warmup", "without cosine", "all without warmup", "all"} <= roles(made).keys()
    alone = {n: value(on) - value(on - {n}) if n in on else value(on | {n}) - value(on) for n in names}
    assert answers(made, "alone", value) == pytest.approx(alone)
    assert answers(made, "dropped", value) == pytest.approx({n: value(whole) - value(whole - {n}) for n in names})


def test_held_tricks_count_as_always_on_in_the_midpoint() -> None:
    names, value = HARMONIOUS[:4], response(4, 2)
    held = frozenset(names[:1])
    made = design(Recipe(tricks=tuple(held)), tricks(4), kind="two-sided")
    expected = shapley(names[1:], value, held)
    found = answers(made, "midpoint", value)
    assert {name: found[name] for name in names[1:]} == pytest.approx(expected)


@pytest.mark.parametrize(("k", "held"), [(3, 1), (4, 2), (4, 4), (5, 2), (8, 3)])
def test_a_factorial_runs_the_reference_and_keeps_the_orientation_of_tricks_it_holds(k: int, held: int) -> None:
    names, value = SHAPING[:k], response(k, k if k <= 4 else 2, names=SHAPING)
    made = design(Recipe(tricks=names[:held]), shaping(k), kind="factorial")
    assert len(made.arms) == (2**k if k <= 4 else 16) + 1
    if k <= 4:
        assert answers(made, "shapley", value) == pytest.approx(shapley(names, value))
        return
    plain = design(Recipe(), shaping(k), kind="factorial")
    assert answers(made, "main", value) == pytest.approx(answers(plain, "main", value))
    for question in (q for q in made.questions if q.kind == "pair"):
        total = 0.0
        for told in (question.name, *question.aliases):
            a, b = (frozenset({n}) for n in told.removeprefix("minus ").split(" × "))
            both = value(a | b) - value(a) - value(b) + value(frozenset())
            total += -both if told.startswith("minus ") else both
        assert answer(made, question, value) == pytest.approx(total)


def test_a_stack_of_tricks_that_the_reference_holds_starts_without_them() -> None:
    made = design(Recipe(tricks=["warmup", "flip"]), [parse("warmup"), parse("ema")], kind="stack")
    by_name = {arm.name: arm for arm in made.arms}
    assert list(map(str, by_name["start"].recipe.tricks)) == ["flip"]
    assert made.questions[0].weights == (("reference", 1.0), ("start", -1.0))


def test_the_same_trick_in_another_spelling_takes_the_place_of_the_references() -> None:
    reference = Recipe(tricks=["mixup", "flip"])
    made = design(reference, [parse("mixup(alpha=0.4)"), parse("ema")], kind="two-sided")
    by_name = {arm.name: arm for arm in made.arms}
    assert list(map(str, by_name["mixup(alpha=0.4)"].recipe.tricks)) == ["flip", "mixup(alpha=0.4)"]
    assert by_name["ema"].edits == "+ema"
    assert list(map(str, by_name["all"].recipe.tricks)) == ["flip", "mixup(alpha=0.4)", "ema"]
    assert made.not_run[0].startswith("one-nn")


def test_a_study_of_tricks_that_the_reference_all_holds_has_no_second_full_recipe() -> None:
    made = design(Recipe(tricks=HARMONIOUS[:3]), tricks(3), kind="two-sided")
    assert roles(made) == {
        "reference": "reference",
        **{f"without {name}": "dropped" for name in HARMONIOUS[:3]},
        "placebo": "placebo",
    }
    assert {q.kind for q in made.questions} == {"alone", "control"}
    assert all(q.declared for q in made.questions if q.kind == "alone")


# ---- equal recipes, conflicts ----


@pytest.mark.parametrize("kind", WEAKNESS)
@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("reference", [Recipe(), Recipe(weights="hub", tricks=HARMONIOUS[:2])])
def test_equal_recipes_are_one_arm_and_no_two_questions_are_the_same(kind: str, k: int, reference: Recipe) -> None:
    made = design(reference, [*tricks(k), *tricks(k)], kind=kind, vary={"batch_size": [16, 32, 64]}, same=2)
    keys = [(arm.recipe.key, arm.seed_offset) for arm in made.arms]
    assert len(set(keys)) == len(keys)
    assert len({q.weights for q in made.questions}) == len(made.questions)
    assert len({(q.kind, q.name) for q in made.questions}) == len(made.questions)
    names = {arm.name for arm in made.arms}
    for question in made.questions:
        assert abs(sum(weight for _, weight in question.weights)) < 1e-12
        assert question.weights
        assert {arm for arm, _ in question.weights} <= names
    assert made.arms[0] == Arm("reference", "reference", "", reference)
    assert made.weakness


def test_weights_that_do_not_fit_the_arms_are_refused() -> None:
    arms = (Arm("reference", "reference", "", Recipe()), Arm("a", "alone", "", Recipe()))

    def built(arms: tuple[Arm, ...], *weights: tuple[str, float]) -> Design:
        return Design("add-one", arms, (Question("a", "alone", "", weights, True),), "", (), ())

    assert built(arms, ("a", 1.0), ("reference", -1.0))
    with pytest.raises(ValueError, match="sum to 0"):
        built(arms, ("a", 1.0), ("reference", -0.9))
    with pytest.raises(ValueError, match="no arm b"):
        built(arms, ("b", 1.0), ("reference", -1.0))
    with pytest.raises(ValueError, match="one name"):
        built((*arms, arms[1]), ("a", 1.0), ("reference", -1.0))


def test_tricks_that_conflict_are_tried_alone_and_the_later_is_left_out_of_all() -> None:
    given = [parse("mixup"), parse("cutmix"), parse("ema")]
    made = design(Recipe(weights="hub"), given, kind="two-sided")
    assert {"mixup", "cutmix", "ema"} <= roles(made).keys()
    (line,) = made.not_run
    assert line == f"cutmix with the others: {conflict(given[0], given[1])}"
    assert "all without cutmix" not in roles(made)
    declared = {(q.name, q.kind) for q in made.questions if q.declared}
    assert declared == {("mixup", "midpoint"), ("ema", "midpoint"), ("cutmix", "alone"), ("all", "combination")}


@pytest.mark.parametrize(
    ("tried", "own"),
    [("adamw", "adam"), ("muon", "adamw"), ("three_augment", "trivialaugment"), ("focal", "bce"), ("adabn", "freeze_norms")],
)
def test_a_trick_that_conflicts_with_one_of_the_reference_takes_its_place(tried: str, own: str) -> None:
    assert conflict(parse(tried), parse(own))
    for kind in WEAKNESS:
        made = design(Recipe(weights="hub", tricks=[own]), [parse(tried), parse("ema")], kind=kind)
        assert not any(line.startswith(tried) for line in made.not_run)
        trained = [arm.recipe for arm in made.arms if arm.recipe.epochs]  # controls have tricks of their own
        names = [{trick.name() for trick in recipe.tricks} for recipe in trained]
        assert any(tried in held for held in names)
        assert not any({tried, own} <= held for held in names)
        assert all(own in held for held in names if tried not in held)


def test_two_spellings_of_one_trick_are_both_tried_and_one_is_combined() -> None:
    made = design(Recipe(weights="hub"), [parse("mixup(alpha=0.1)"), parse("mixup(alpha=0.4)"), parse("ema")], kind="two-sided")
    assert {"mixup(alpha=0.1)", "mixup(alpha=0.4)"} <= roles(made).keys()
    assert made.not_run[0].startswith("mixup(alpha=0.4) with the others: ")


def test_where_two_exclude_each_other_the_references_own_goes_with_the_others() -> None:
    given = [parse("mixup(alpha=0.4)"), parse("mixup"), parse("ema")]
    made = design(Recipe(weights="hub", tricks=["mixup"]), given, kind="two-sided")
    by_name = {arm.name: arm for arm in made.arms}
    assert by_name["mixup(alpha=0.4)"].edits == "+mixup(alpha=0.4)"
    assert list(map(str, by_name["ema"].recipe.tricks)) == ["mixup", "ema"]
    assert made.not_run[0].startswith("mixup(alpha=0.4) with the others: ")


# ---- auto ----


def test_auto_takes_a_factorial_and_tries_alone_what_conflicts() -> None:
    assert {design(Recipe(), tricks(k)).kind for k in (2, 6, 7, 16)} == {"factorial"}
    assert design(Recipe(), tricks(1)).kind == "add-one"
    made = design(Recipe(), [*tricks(8), parse("cutmix")])
    assert made.kind == "factorial"
    (alone,) = (q for q in made.questions if q.kind == "alone")
    assert (alone.name, alone.declared, dict(alone.weights)) == ("cutmix", True, {"cutmix": 1.0, "reference": -1.0})
    assert any("cutmix with the others" in line for line in made.not_run)
    assert design(Recipe(), [], vary={"lr": [0.1]}).kind == "add-one"
    assert all(design(Recipe(), tricks(k)).reason for k in (1, 7))
    assert design(Recipe(), tricks(1), kind="stack").reason == ""


def test_what_acts_beside_or_after_training_is_crossed_in_full_and_trains_nothing() -> None:
    late = ["ema", "flip_tta", "knn"]
    made = design(Recipe(), [parse("ema"), *shaping(6), parse("flip_tta"), parse("knn")], kind="factorial")
    cells = [arm for arm in made.arms if arm.role in ("reference", "cell", "full")]
    assert len(cells) == 16 * 8
    assert all(set(arm.name.split(", ")) == set(map(str, arm.recipe.tricks)) for arm in cells if arm.role == "cell")
    trained = {frozenset(map(str, arm.recipe.tricks)) - set(late) for arm in cells}
    assert len(trained) == 16
    for one in trained:
        beside = {
            frozenset(map(str, arm.recipe.tricks)) & set(late) for arm in cells if one <= set(map(str, arm.recipe.tricks))
        }
        assert len(beside) == 8
    clear = [q for q in made.questions if q.kind == "pair" and not q.aliases]
    assert {q.name for q in clear} >= {f"{name} × knn" for name in SHAPING[:6]}
    assert error(made, "main") == pytest.approx(sqrt(4 / 128))
    value = response(9, 1, names=[*SHAPING[:6], *late])
    assert answers(made, "main", value) == pytest.approx(
        {n: value(frozenset({n})) - value(frozenset()) for n in [*SHAPING[:6], *late]}
    )


def test_a_study_of_nothing_or_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to study"):
        design(Recipe(), [])
    with pytest.raises(UsageError, match="no design 'ad-one'"):
        design(Recipe(), tricks(2), kind="ad-one")
    many = [parse(f"label_smoothing(eps={n / 100})") for n in range(1, 19)]
    with pytest.raises(UsageError, match="the limit is 16"):
        design(Recipe(), many, kind="factorial")


# ---- fractions ----


@pytest.mark.parametrize("k", [6, 8, 9, 16])
def test_all_tricks_together_are_a_cell_from_six_on(k: int) -> None:
    made = design(Recipe(), shaping(k), kind="factorial")
    assert roles(made)["all"] == "full"
    assert len(made.arms) == (16 if k <= 8 else 32) + 1


def test_the_alias_rows_of_a_study_name_pairs_and_five_tricks_have_none() -> None:
    made = design(Recipe(), shaping(8), kind="factorial")
    assert len(made.aliases) == 7
    assert all(len(row) == 4 for row in made.aliases)
    assert "Confirm with leave-one-out" in made.weakness
    assert design(Recipe(), shaping(5), kind="factorial").aliases == ()
    assert design(Recipe(), tricks(4), kind="factorial").aliases == ()


# ---- standard errors ----


def error(made: Design, kind: str) -> float:
    """Of one seed's contrast, in units of the sd of a run."""
    (one,) = {round(sqrt(sum(weight**2 for _, weight in q.weights)), 9) for q in made.questions if q.kind == kind}
    return one


def test_standard_errors_are_those_of_the_specification() -> None:
    """k = 8: main effects at .29 run sd from 48 runs; one at a time .63 from 45."""
    eight = design(Recipe(), shaping(8), kind="factorial")
    cells = sum(arm.role in ("reference", "cell", "full") for arm in eight.arms)
    assert cells * 3 == 48
    assert error(eight, "main") / sqrt(3) == pytest.approx(0.29, abs=0.005)
    one = design(Recipe(), tricks(8), kind="add-one")
    assert sum(arm.role in ("reference", "alone") for arm in one.arms) * 5 == 45
    assert error(one, "alone") / sqrt(5) == pytest.approx(0.63, abs=0.005)


def test_the_midpoint_has_a_smaller_error_than_its_two_sides() -> None:
    made = design(Recipe(), tricks(4), kind="two-sided")
    found = {kind: error(made, kind) for kind in ("alone", "dropped", "midpoint", "interaction")}
    assert found == pytest.approx({"alone": sqrt(2), "dropped": sqrt(2), "midpoint": 1.0, "interaction": 2.0})


# ---- varied values, controls ----


def test_every_value_but_the_references_own_is_an_arm() -> None:
    reference = Recipe(weights="hub", tricks=["mixup", "flip"])
    vary = {"batch_size": [16, 32, 64], "mixup.alpha": [0.1, 0.2, 0.4], "precision": ["bf16"], "model": ["resnet18"]}
    made = design(reference, [], vary=vary)
    varied = {arm.name: arm for arm in made.arms if arm.role == "varied"}
    named = ["batch_size=16", "batch_size=64", "mixup.alpha=0.1", "mixup.alpha=0.4", "precision=bf16", "model=resnet18"]
    assert list(varied) == named
    assert varied["batch_size=16"].recipe == reference.edit(batch_size=16)
    assert varied["batch_size=16"].edits == "batch_size=16"
    assert varied["mixup.alpha=0.4"].recipe == reference.edit(["mixup(alpha=0.4)"])
    asked = {q.name: q for q in made.questions if q.kind == "varied"}
    assert list(asked) == named
    assert all(q.weights == ((name, 1.0), ("reference", -1.0)) and q.declared for name, q in asked.items())


def test_a_varied_trick_that_the_reference_lacks_is_put_in() -> None:
    made = design(Recipe(weights="hub", tricks=["cutmix"]), [], vary={"ema.half_life": [0.1], "mixup.alpha": [0.4]})
    by_name = {arm.name: arm for arm in made.arms}
    assert by_name["ema.half_life=0.1"].edits == "+ema(half_life=0.1)"
    assert "mixup.alpha=0.4" not in by_name
    assert made.not_run[0].startswith("mixup.alpha=0.4: ")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("batch_sise", 16, "did you mean batch_size"),
        ("without", ["flip"], "no field 'without'"),
        ("batch_size", 0, "batch_size"),
        ("mixup.beta", 1, "no field beta"),
        ("mixpu.alpha", 1, "did you mean mixup"),
        ("mixup.alpha", -1, "alpha"),
    ],
)
def test_a_value_that_cannot_be_is_the_users_mistake(field: str, value: object, said: str) -> None:
    for reference in (Recipe(), Recipe(tricks=["mixup"])):
        with pytest.raises(UsageError, match=said):
            design(reference, [], vary={field: [value]})


@pytest.mark.parametrize("name", recipe_names())
def test_controls_are_always_in_and_never_declared(name: str) -> None:
    reference = Recipe.load(name).edit(weights="hub", val_share=0.15, test_share=0.25, size=96)
    made = design(reference, [parse("flip_tta")], same=2)
    arms = {arm.name: arm for arm in made.arms}
    assert arms["placebo"].recipe == reference.edit(["placebo"])
    assert [(arms[n].recipe, arms[n].seed_offset) for n in ("same 1", "same 2")] == [(reference, 1000), (reference, 2000)]
    if name != "one-nn":
        nearest = arms["one-nn"].recipe
        assert list(map(str, nearest.tricks)) == ["knn(k=1)"]
        assert nearest.epochs == 0
        shared = ("model", "weights", "size", "crop_share", "mean", "std", "precision", "val_share", "test_share")
        assert all(getattr(nearest, field) == getattr(reference, field) for field in shared)
    assert not any(q.declared for q in made.questions if q.kind == "control")
    assert all(arm.seed_offset == 0 for arm in made.arms if arm.role != "same")


def test_from_scratch_there_is_no_row_of_nearest_neighbours_and_it_is_said() -> None:
    made = design(Recipe(), tricks(2))
    assert "one-nn" not in roles(made)
    assert made.not_run[0].startswith("one-nn: ")


def test_a_matched_arm_trains_as_much_longer_as_the_ratio_says() -> None:
    reference = Recipe(epochs=40, tricks=["warmup"])
    arm = matched(reference, 1.52)
    assert arm == Arm("reference, 61 epochs", "matched", "epochs=61", reference.edit(epochs=61))
    assert matched(reference, 1.001).recipe.key == reference.key


def test_edits_spell_what_differs() -> None:
    made = design(
        Recipe(tricks=["warmup", "mixup"]), [parse("warmup"), parse("mixup(alpha=0.4)"), parse("ema")], kind="factorial"
    )
    spelled = {arm.edits for arm in made.arms}
    assert spelled >= {"", "+mixup(alpha=0.4) +ema", "-warmup", "+mixup(alpha=0.4) +ema -warmup", "+placebo"}
    for arm in made.arms:
        words = arm.edits.split()
        put, gone = [w[1:] for w in words if w[0] == "+"], [w[1:] for w in words if w[0] == "-"]
        assert made.arms[0].recipe.edit(put, gone) == arm.recipe


def test_differences_of_recipes_are_fields_and_tricks_each_counted_once() -> None:
    one = Recipe(tricks=["mixup", "adamw"])
    assert differences(one, one) == 0
    assert differences(one, one.edit(lr=7.0)) == 1
    assert differences(one, one.edit(["mixup(alpha=0.7)"])) == 1
    assert differences(one, one.edit(["ema"], ["mixup"], batch_size=7)) == 3
    assert differences(one.edit(["ema"], ["mixup"], batch_size=7), one) == 3


def test_what_recipes_do_to_an_image_in_every_training_grows_with_their_differences() -> None:
    one = Recipe(tricks=["mixup"])
    assert kept(one, one.edit(["ema"], lr=7.0)) == 2 * PERSISTENT
    assert kept(one, one.edit(epochs=0, tricks=[])) == kept(one.edit(epochs=0), one) == UNTRAINED


def test_where_nothing_can_be_tried_that_is_said_with_the_reason() -> None:
    with pytest.raises(UsageError, match="nothing to study: each value to try is the reference's own"):
        design(Recipe(), [], vary={"size": [Recipe().size]})
    with pytest.raises(UsageError, match=r"nothing to study: .*center_features changes features that no trick"):
        design(Recipe.load("linear-probe"), [parse("center_features")])
