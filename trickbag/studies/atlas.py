"""From the folders of studies to what they say together: an atlas."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from trickbag import plugins
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.report.atlas import Atlas, Entry, Group, Measured, Regime, Source, page
from trickbag.report.findings import Effect, Findings
from trickbag.statistics.meta import pooled
from trickbag.studies import analysis
from trickbag.studies.prior import ATLAS, AtlasRecord, regime_of
from trickbag.studies.recommend import deciding
from trickbag.studies.record import Study

PAGE = "atlas.html"


@dataclass(frozen=True)
class Found:
    """A study and what it says of its tricks."""

    source: Source
    regime: Regime
    effects: dict[str, Effect]
    """By the spelling of the trick."""
    timed: bool
    """Whether its times count."""


def atlas(studies: Sequence[str | Path], out: str | Path) -> tuple[Atlas, Path]:
    """Combine studies, write ``atlas.html`` and ``atlas.json``, and return what was found and the folder.

    Raises UsageError where a folder holds no study, the studies hold nothing to combine, or ``out`` holds something else;
    TrickbagError where a study is damaged.
    """
    folder = store.folder_of(out)
    if not (folder / ATLAS).exists() and any(not path.name.startswith(".") for path in folder.glob("*")):
        raise UsageError(f"--out {folder} is not empty and holds no atlas. Choose another folder.")
    made = combined([read(Path(study)) for study in studies], datetime.now(UTC).date().isoformat())
    record = AtlasRecord.build(made)
    with store.lock(folder):
        store.write(folder / PAGE, page(made))
        store.write(folder / ATLAS, store.to_json(record.signed(), indent=1))
    return made, folder


def read(folder: Path) -> Found:
    """What a study says of its tricks."""
    with plugins.using(kept=folder):
        held = Study.load(folder)
        found, recipe = analysis.findings(held), held.arms[0].recipe
    effects = {name: effect for name, effect in deciding(found.effects).items() if name in held.held.tricks}
    source = Source(
        data=held.held.name,
        folder=str(folder),
        fingerprint=held.held.fingerprint,
        model=recipe.model,
        epochs=recipe.epochs,
        images=found.images,
        seeds=len(found.seeds),
    )
    return Found(source, regime_of(recipe), effects, alone(found))


def alone(found: Findings) -> bool:
    """Whether the machine did nothing else while the runs were timed."""
    return all(arm.price.alone for arm in found.arms if arm.price)


def combined(studies: Sequence[Found], date: str) -> Atlas:
    """Studies together, those of each regime by themselves. Raises UsageError where no trick was measured in any."""
    groups = [group([one for one in labelled(studies) if one.regime == kind], kind) for kind in get_args(Regime)]
    if not any(entry.tried for one in groups for entry in one.entries):
        raise UsageError(
            "No study measured a trick with three seeds or more, so there is nothing to combine. Give studies with --tricks "
            "and --seeds 3."
        )
    return Atlas(date, tuple(one for one in groups if one.sources))


def labelled(studies: Sequence[Found]) -> list[Found]:
    """The studies, their data sets named apart: one name for the same images, another for others."""
    first = {one.source.fingerprint: one.source for one in reversed(studies)}
    names = [source.data for source in first.values()]
    labels = {
        key: source.data if names.count(source.data) == 1 else f"{source.data} ({source.folder})"
        for key, source in first.items()
    }
    return [replace(one, source=replace(one.source, data=labels[one.source.fingerprint])) for one in studies]


def group(studies: Sequence[Found], regime: Regime) -> Group:
    """The studies of one regime together."""
    names = dict.fromkeys(name for one in studies for name in one.effects)
    entries = [made for name in names if (made := entry(name, studies)).tried]
    entries.sort(key=lambda one: (one.pooled is None, not one.sets, -one.gain))
    return Group(regime, tuple(one.source for one in studies), tuple(entries), tuple(notes(studies)))


def entry(name: str, studies: Iterable[Found]) -> Entry:
    """A trick over the data sets; each counts once, by the study that measured it most precisely."""
    known: dict[str, Measured] = {}
    same: dict[str, None] = {}
    for one in studies:
        effect, data = one.effects.get(name), one.source.data
        if effect and effect.verdict == "identical":
            same[data] = None
        elif effect and effect.error and (data not in known or effect.error < known[data].error):
            price = effect.seconds_ratio if one.timed else None
            known[data] = Measured(data, effect.difference, effect.error, effect.verdict, price)
    sets = tuple(known.values())
    together = pooled([one.difference for one in sets], [one.error for one in sets]) if len(sets) > 1 else None
    return Entry(name, sets, tuple(data for data in same if data not in known), together)


def notes(studies: Sequence[Found]) -> Iterable[str]:
    """What was left out, and why."""
    folders: dict[str, list[str]] = {}
    for one in studies:
        folders.setdefault(one.source.data, []).append(one.source.folder)
        if lost := [name for name, e in one.effects.items() if not e.error and e.verdict != "identical"]:
            yield f"{one.source.folder} has no standard error for {', '.join(lost)}, and so they are left out: see its report."
        if not one.effects:
            yield f"{one.source.folder} measured no trick."
        if not one.timed:
            yield f"The times of {one.source.folder} do not count, since other work ran at the same time."
    for data, own in folders.items():
        if len(own) > 1:
            yield (
                f"{', '.join(own)} are studies of the same images ({data}): a trick that several of them measured counts once, "
                "by the one with the smallest standard error."
            )
