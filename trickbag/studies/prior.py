"""``atlas.json``: what the studies of several data sets found, and what to expect of tricks in a new one."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field

from trickbag.ground import files, records
from trickbag.ground.errors import UsageError
from trickbag.ground.records import Count, Record, Signed
from trickbag.ground.text import brief, counted
from trickbag.recipe import Recipe
from trickbag.report.atlas import Atlas, Entry, Measured, Regime
from trickbag.report.wording import points
from trickbag.statistics import meta
from trickbag.statistics.belief import Prior
from trickbag.tricks.freeze import Freeze

ATLAS = "atlas.json"
REMEDY = f"Give the {ATLAS} that trickbag atlas wrote."
MOST = 1 << 26
"""Bytes of a file that is read."""
Points = Annotated[float, Field(ge=-1, le=1)]
Error = Annotated[float, Field(ge=1e-10, le=1)]
Ratio = Annotated[float, Field(gt=0, le=1e9)]
Ends = Annotated[tuple[float, float], Field(strict=False)]


class MeasuredRecord(Record):
    """A trick on one data set in ``atlas.json``; see ``trickbag.report.atlas.Measured``."""

    data: str
    difference: Points
    error: Error
    verdict: str
    price: Ratio | None


class PooledRecord(Record):
    """The sets together; see ``trickbag.statistics.meta.Pooled``."""

    mean: float
    error: float
    interval: Ends
    tau: float
    tau_interval: Ends
    i2: float
    prediction: Ends | None


class EntryRecord(Record):
    """A trick over the data sets."""

    sets: list[MeasuredRecord]
    unchanged: list[str]
    pooled: PooledRecord | None
    """For other tools: trickbag pools the sets anew."""
    helped: Count
    price: Ratio | None


class SourceRecord(Record):
    """A study."""

    data: str
    folder: str
    fingerprint: str
    model: str
    epochs: Count
    images: Count
    seeds: Count


class GroupRecord(Record):
    """The studies of one regime."""

    studies: list[SourceRecord]
    tricks: dict[str, EntryRecord]
    notes: list[str]


class AtlasRecord(Signed):
    """The content of ``atlas.json``."""

    version: Literal[1]
    """Of the format."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    regimes: dict[Regime, GroupRecord]

    @classmethod
    def build(cls, atlas: Atlas) -> Self:
        """An atlas as it is stored."""
        regimes = {
            group.regime: {
                "studies": [asdict(source) for source in group.sources],
                "tricks": {entry.name: spelled(entry) for entry in group.entries},
                "notes": group.notes,
            }
            for group in atlas.groups
        }
        return cls.of({"version": 1, "date": atlas.date, "regimes": regimes})


class Expected(NamedTuple):
    """What to expect of a trick on a new data set."""

    prior: Prior
    price: float
    """As a multiple of the time without it; 1 where no time counts."""

    @property
    def rate(self) -> float:
        """The expected gain for as much training time as the reference takes."""
        return self.prior.mean / self.price


def expected(file: str | Path, regime: Regime, fingerprint: str = "") -> dict[str, Expected]:
    """What to expect of each trick, by its spelling, in a study of a regime, after an atlas.

    ``fingerprint``: of the images of the new study, whose own earlier results do not count. A trick that fewer than three data
    sets measured is left out.

    Raises UsageError where the file is no atlas, or where nothing is left.
    """
    path = Path(file)
    try:
        held = records.parse(files.content(path, MOST), AtlasRecord)
    except OSError as error:
        raise UsageError(f"prior {brief(str(path))} cannot be read: {files.reason(error)}. {REMEDY}") from None
    except ValueError as error:
        raise UsageError(f"prior {brief(str(path))} is no atlas, or damaged: {error}. {REMEDY}") from None
    if regime not in held.regimes:
        raise UsageError(
            f"prior {brief(str(path))} holds studies of another kind ({', '.join(held.regimes)}), and this one is: {regime}. "
            "Leave it out, or give an atlas of such studies."
        )
    group = held.regimes[regime]
    own = {source.data for source in group.studies if source.fingerprint == fingerprint}
    others = len({source.data for source in group.studies} - own)
    source = f"{path} ({regime}, {counted(others, 'data set')}, {held.date})"
    kept = {name: [one for one in entry.sets if one.data not in own] for name, entry in group.tricks.items()}
    found = {name: known for name, sets in kept.items() if (known := _expected(sets, source))}
    if not found:
        raise UsageError(
            f"prior {brief(str(path))}: no trick was measured on {meta.LEAST} data sets ({regime}"
            f"{', this one left out' if own else ''}), so nothing can be expected. Leave it out, or add studies to the atlas."
        )
    return found


def ordering(known: Mapping[str, Expected], proposed: Iterable[str]) -> str:
    """In which order tricks are proposed, in words; an empty string where nothing is known."""
    if not known:
        return ""
    said = (
        f"{name} {points(known[name].prior.mean)} points at {known[name].price:.2f} times the time" if name in known else name
        for name in proposed
    )
    return f"order by the expected gain per time of {next(iter(known.values())).prior.source}: {', '.join(said)}"


def load_prior(file: str | Path, regime: Regime, fingerprint: str = "") -> dict[str, Prior]:
    """What is expected of tricks before a study of this regime; see ``expected``."""
    return {name: one.prior for name, one in expected(file, regime, fingerprint).items()}


def regime_of(recipe: Recipe) -> Regime:
    """How a recipe trains.

    >>> regime_of(Recipe()), regime_of(Recipe(weights="hub")), regime_of(Recipe(weights="hub", tricks=["freeze"]))
    ('from scratch', 'fine-tuning', 'frozen')
    """
    if not recipe.epochs or any(isinstance(trick, Freeze) and trick.until == 1 for trick in recipe.tricks):
        return "frozen"
    return "from scratch" if recipe.weights == "none" else "fine-tuning"


def spelled(entry: Entry) -> Mapping[str, object]:
    """A trick as ``atlas.json`` has it."""
    pooled = entry.pooled._asdict() if entry.pooled else None
    return {
        "sets": [asdict(one) for one in entry.sets],
        "unchanged": entry.unchanged,
        "pooled": pooled,
        "helped": entry.helped,
        "price": entry.price,
    }


def _expected(sets: list[MeasuredRecord], source: str) -> Expected | None:
    if len(sets) < meta.LEAST:
        return None
    entry = Entry("", tuple(Measured(**one.plain()) for one in sets), (), None)
    prior = meta.expected(meta.pooled([one.difference for one in sets], [one.error for one in sets]), source)
    return Expected(prior, entry.price or 1.0) if prior else None
