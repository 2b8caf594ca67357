"""What a study decides before its first run, as ``study.json`` holds it, with the data set's facts that the report needs."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from trickbag import plugins
from trickbag.data.splits import Ints
from trickbag.ground.text import counted
from trickbag.runs.outcome import environment
from trickbag.runs.request import Request
from trickbag.statistics.belief import Prior
from trickbag.statistics.looks import planned
from trickbag.studies.arms import Arm, Question
from trickbag.studies.folds import who
from trickbag.studies.plan import PROOF_SEEDS, StudyPlan
from trickbag.studies.prior import load_prior, regime_of
from trickbag.studies.words import points

ENDPOINTS = "accuracy; second, log-loss at the temperature that suits other judged images best"


def decided(plan: StudyPlan, priors: Mapping[str, Prior]) -> dict[str, str]:
    """All that is fixed in advance, in words and hashes; a later call that says otherwise departs from it.

    ``priors`` are what is expected of tricks.
    """
    o, questions = plan.options, plan.design.questions
    return {f"plugin {name}": plugin.digest for name, plugin in sorted(used(plan).items())} | {
        "data": f"{plan.fingerprint[:16]}, {counted(plan.pool, 'independent image')} to judge by",
        "reference": f"{plan.reference.model}, {counted(plan.reference.epochs, 'epoch')}, recipe {plan.reference.key}",
        "arms": ", ".join(map(_named, plan.design.arms)),
        "seeds": ", ".join(map(str, plan.seeds)),
        "looks": ", ".join(f"{100 * a:g} % after {s} seeds" for s, a in planned(len(plan.seeds)).items())
        if o.looks
        else "none",
        "design": plan.design.kind,
        "judged on": f"{who(plan.judging)}; divided by seed {plan.judging.seed}",
        "endpoints": "; ".join([ENDPOINTS, *(f"your metric {name}" for name in plugins.metrics())]),
        "epoch that counts": "the last" if plan.reference.keep == "last" else "the best on images set apart from training",
        "proof": f"of the best candidate, {PROOF_SEEDS} fresh seeds on {counted(plan.proof.images, 'image')}, 5 % level"
        if plan.proof
        else "none",
        "expected before": "; ".join(f"{name}: {_expected(prior)}" for name, prior in priors.items()) or "nothing",
        "family of declared effects": "; ".join(_asked(q) for q in questions if q.declared) or "none",
        "other planned effects": "; ".join(_asked(q) for q in questions if not q.declared) or "none",
        **({"downstream": "; ".join(one.decided() for one in plan.downstream)} if plan.downstream else {}),
        "level": "5 % over the family, by Holm's method; 5 % for each other effect",
        "no difference": f"less than {o.delta:g} points",
        "highest price of a recommendation": f"{o.price:g} times the reference's",
        "a run that diverges counts with": "its last valid accuracy, else that of a guess",
    }


def used(plan: StudyPlan) -> dict[str, plugins.Plugin]:
    """The plugins that hold parts of the arms, or metrics, by name."""
    found = plugins.measuring()
    for arm in plan.design.arms:
        found |= plugins.of(arm.recipe.tricks, arm.recipe.model)
    return found


def plan_hash(decided: Mapping[str, str]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of what was decided, as JSON with sorted keys.

    >>> plan_hash({"seeds": "0, 1, 2", "delta": "0.2"}) == plan_hash({"delta": "0.2", "seeds": "0, 1, 2"})
    True
    """
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:12]


def declared(plan: StudyPlan) -> str:
    """The hash under which a study would store this plan, had it none yet."""
    return plan_hash(decided(plan, expected_before(plan)))


def _named(arm: Arm) -> str:
    """An arm, with what it edits where its name does not say so."""
    edits = "" if arm.edits.lstrip("+") in ("", arm.name) else f" ({arm.edits})"
    return f"{arm.name}{edits}"


def _asked(question: Question) -> str:
    return f"{question.name} ({question.kind}: {question.says})"


def _expected(prior: Prior) -> str:
    return f"{points(prior.mean)} points (sd {100 * math.sqrt(prior.variance + prior.mean_variance):.2f}), by {prior.source}"


def facts(plan: StudyPlan, wanted: Request, held: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``study.json``; ``held`` is what an earlier call has stored."""
    o, images, judging, priors = plan.options, wanted.data.images, plan.judging, expected_before(plan)
    now = decided(plan, priors)
    pool = images.take(judging.pool(images))
    first = held.get("decided", now)
    before = {"downstream": "none"} | first
    changed = [f"{name}: {now[name]}; at first {before[name]}." for name in now if before.get(name, now[name]) != now[name]]
    matched = [arm for arm in held.get("arms", []) if arm["role"] == "matched"]
    return {
        "request": wanted.key,
        "name": wanted.name,
        "options": o.model_dump(by_alias=True),
        "fingerprint": plan.fingerprint,
        "design": plan.design.kind,
        "weakness": plan.design.weakness,
        "not_run": plan.design.not_run,
        "aliases": plan.design.aliases,
        "tricks": plan.tricks,
        "vary": o.vary,
        "arms": [*map(spelled, plan.design.arms), *matched],
        "questions": [vars(question) for question in plan.design.questions],
        "seeds": plan.seeds,
        "looks": planned(len(plan.seeds)) if o.looks else {},
        "stopped": {},
        "keys": held.get("keys", {}),
        "proving": plan.proof is not None,
        "proof_seeds": held.get("proof_seeds", []),
        "nominees": held.get("nominees", []),
        "priors": {name: prior._asdict() for name, prior in priors.items()},
        "classes": images.classes,
        "class_counts": pool.counts().tolist(),
        "trained": judging.table(images, 0).split("train").counts().tolist(),
        "judging": vars(judging),
        "images": len(images),
        "counts": {
            "pool": len(pool),
            "groups": len(np.unique(pool.groups)),
            "each": len(judging.judges(images, 0)),
            "test": int((images.splits == "test").sum()),
            "proof": judging.proof_images(images),
        },
        "groups": shared(images.groups),
        "check": [{k: getattr(f, k) for k in ("severity", "message", "suggestion")} for f in wanted.audit.findings],
        "plan": held.get("plan", plan_hash(first)),
        "decided": first,
        "departures": list(dict.fromkeys([*held.get("departures", []), *changed])),
        "environment": {name: str(value) for name, value in environment().items()},
        "failures": [],
        "downstream": [one.record(held.get("downstream", [])) for one in plan.downstream],
    }


def expected_before(plan: StudyPlan) -> dict[str, Prior]:
    """What an atlas of other data sets lets expect of the tricks."""
    named = plan.options.prior
    known = load_prior(named, regime_of(plan.reference), plan.fingerprint) if named else {}
    return {name: prior for name, prior in known.items() if name in plan.tricks}


def shared(groups: Ints) -> list[int]:
    """The groups of all images; nothing where every image stands for itself."""
    return groups.tolist() if len(set(groups.tolist())) < len(groups) else []


def spelled(arm: Arm) -> dict[str, Any]:
    """An arm as ``study.json`` has it."""
    return vars(arm) | {"recipe": arm.recipe.spelled()}
