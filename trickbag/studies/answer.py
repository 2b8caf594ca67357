"""The answer of a study: which recipe to use, how sure that is, and at what price."""

from collections.abc import Sequence
from dataclasses import dataclass

from trickbag.ground.text import counted, duration
from trickbag.report.findings import Arm, Effect, Proof
from trickbag.report.wording import chance
from trickbag.statistics.belief import Belief
from trickbag.statistics.verdicts import SEEDS
from trickbag.studies.design import PROBE
from trickbag.studies.recommend import DECIDING, FREE, Nomination, after_proof
from trickbag.studies.record import Study
from trickbag.studies.words import IDLE, between, points


@dataclass(frozen=True)
class Found:
    """What the answer is made of."""

    study: Study
    arms: Sequence[Arm]
    effects: Sequence[Effect]
    nominated: Nomination
    proof: Proof | None
    idle: bool

    @property
    def plain(self) -> bool:
        """Whether no change is expected to gain."""
        return not self.nominated.changes

    @property
    def believed(self) -> Belief:
        """What is believed of the nominated recipe, after the proof where there was one."""
        seen = self.proof and self.proof.effect
        if not seen or not seen.error:
            return self.nominated.belief
        return after_proof(self.nominated, seen)

    @property
    def ratio(self) -> float:
        """Price of the nominated recipe, measured where it was trained."""
        own = next((arm.price for arm in self.arms if arm.name == self.nominated.arm.name), None)
        seen = self.proof.effect.seconds_ratio if self.proof else None
        return seen or (own.ratio if own else self.nominated.price)


def taken(found: Found) -> bool:
    """Whether the nominated recipe is recommended: it is proved, or expected to gain and costs nothing more."""
    if found.plain or (found.proof and found.proof.verdict == "harms"):
        return False
    proved = bool(found.proof and found.proof.verdict == "proved")
    return proved or (found.believed.gain > 0 and found.ratio <= FREE)


def label(found: Found) -> str:
    """What the recommended recipe is, as the first line of its file."""
    if found.plain or not taken(found):
        return "# The reference recipe: no other is recommended.\n"
    if found.proof and found.proof.verdict == "proved":
        return f"# Proved: {measured(found.proof)}.\n"
    return f"# Not proved, but expected to gain {points(found.believed.gain)} points at no extra cost.\n"


def answer(found: Found) -> tuple[str, ...]:
    """Sentences: which recipe to use, how sure that is, its price; before them what outranks it."""
    return tuple(filter(None, (untrained(found.study), *spoiled(found.effects), *advice(found))))


def untrained(study: Study) -> str:
    """That the reference trains no epoch, or the one that a budget holds; empty where it trains as it should."""
    epochs, options = study.arms[0].recipe.epochs, study.facts["options"]
    if not epochs:
        return "No epoch was trained, only the classifier fitted: nothing here says what a trick does to training."
    if epochs == 1 and options["budget"] and "epochs" not in options["set"]:
        return (
            f"The budget of {duration(options['budget'])} held one epoch for each run: what a trick does to a longer training "
            "may be another thing."
        )
    return ""


def advice(found: Found) -> tuple[str, ...]:
    """Which recipe to use, how sure that is, its price."""
    if len(found.study.seeds) < SEEDS:
        why = IDLE if found.idle else f"With fewer than {SEEDS} seeds there is no verdict."
        return f"No recommendation, keep the reference. {why}", best(found)
    if found.plain:
        return "Keep the reference recipe: no change that was tried is expected to gain.", best(found), dear(found)
    changes = f"The changes: {' '.join(found.nominated.changes)}."
    proved = found.proof and found.proof.verdict == "proved"
    more = changes, cost(found), dear(found), left_out(found)
    if found.proof and proved:
        return f"Use this recipe: {measured(found.proof)}.", *more
    if found.proof and found.proof.verdict == "harms":
        lost = f"Keep the reference recipe: the best candidate lost in the proof, {measured(found.proof)}."
        return lost, f"The candidate was: {' '.join(found.nominated.changes)}."
    gain = f"about {points(found.believed.gain)} points (it helps with a probability of {chance(found.believed.helps)})"
    if taken(found):
        return f"Use this recipe: it is expected to gain {gain} at no extra cost; {unproved(found)}.", *more
    if found.believed.gain <= 0:
        return f"Keep the reference recipe: no gain is expected of the best candidate; {unproved(found)}.", changes
    kept = f"Keep the reference recipe, or pay for a candidate: it is expected to gain {gain}; {unproved(found)}."
    return kept, *more


def spoiled(effects: Sequence[Effect]) -> tuple[str, ...]:
    """That training makes the fitted classifier worse, where that is beyond doubt: it is worth more than any trick."""
    return tuple(
        f"Do not fine-tune here, or more gently: a classifier on the features of the initial weights beats the reference by "
        f"{points(e.difference)} points ({between(e.interval)} on new photos), at {e.seconds_ratio or 1:.2f} times its time."
        for e in effects
        if e.name == PROBE and e.verdict in ("helps", "worthwhile")
    )


def measured(proof: Proof) -> str:
    """The gain that the proof measured."""
    seen = proof.effect
    return (
        f"{points(seen.difference)} points on new photos ({between(seen.interval)}), "
        f"measured with {len(proof.seeds)} fresh seeds on {counted(proof.images, 'photo')} that chose nothing{again(proof)}"
    )


def again(proof: Proof) -> str:
    """That the same photos tested other recipes before, so that this one is tested at a stricter level; else empty."""
    return f"; they test recipe number {proof.number}, so at {100 * proof.level:.2g} %" if proof.number > 1 else ""


def unproved(found: Found) -> str:
    """Why the gain is not proved."""
    if found.proof:
        seen = found.proof.effect
        return (
            f"the proof on {counted(found.proof.images, 'photo')} did not decide it: "
            f"{points(seen.difference)} points ({between(seen.interval)}){again(found.proof)}"
        )
    if found.nominated.arm.recipe.key in found.study.nominees:
        return "its proof is not complete: give the same trickbag study command to complete it"
    if found.study.held.counts.proof and found.study.judging.on == "val":
        budget = found.study.facts["options"]["budget"]
        seeds = f", and --seeds {len(found.study.seeds)} in the place of --budget" if budget else ""
        return f"that is not proved yet: run the study again with --proof{seeds}"
    return "that is not proved, and no photos are left that chose nothing"


def best(found: Found) -> str:
    """What came nearest to a gain."""
    asked = [e for e in found.effects if e.kind in DECIDING]
    near = max(asked, key=lambda e: e.difference if e.expected is None else e.expected, default=None)
    if near is None:
        return f"Nothing was compared on {counted(len(found.study.seeds), 'seed')}."
    seen = f"{points(near.difference)} points measured"
    over = ", over all combinations," if near.kind == "main" else ""
    sure = "" if near.helps is None else f", and it helps{over} with a probability of {chance(near.helps)}"
    lead = "The nearest to a gain is" if (near.difference or 0.0) > 0 else "Nothing gained on the judged photos; the best is"
    return f"{lead} {near.name}: {seen} ({between(near.interval)} on new photos){sure}."


def dear(found: Found) -> str:
    """What is expected to help too, but costs too much."""
    if not found.nominated.dear:
        return ""
    limit, names = found.study.facts["options"]["price"], ", ".join(found.nominated.dear)
    return f"Left out, since it would cost more than {limit:g} times the reference's time (--price): {names}."


def left_out(found: Found) -> str:
    """What helps as measured, but adds nothing to the nominated recipe."""
    taken_in = {part.name for part, _ in found.nominated.parts} | set(map(str, found.study.arms[0].recipe.tricks))
    helping = [e.name for e in found.effects if e.kind in DECIDING and e.verdict in ("helps", "worthwhile")]
    names = [
        name
        for name in dict.fromkeys(helping)
        if name not in taken_in and name != PROBE and not {name, f"+{name}"} & set(found.nominated.dear)
    ]
    if not names:
        return ""
    of = "it" if len(names) == 1 else "them"
    return (
        f"Left out, though measured to help: {', '.join(names)}. Beside the changes above, no further gain is expected of "
        f"{of}, or there is a conflict."
    )


def cost(found: Found) -> str:
    """The price of the nominated recipe."""
    base = found.arms[0].price
    long = f", {duration(found.ratio * base.seconds)} as timed here" if base and base.alone else ""
    return f"Training and judging take {found.ratio:.2f} times as long as with the reference{long}."
