"""What a finished study gives: its findings, computed from its folder, and the files that tell of them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trickbag import plugins
from trickbag.ground import store
from trickbag.ground.arguments import public
from trickbag.ground.shown import Sheet, Shown
from trickbag.recipe import Recipe
from trickbag.report.findings import Downstream, Effect, Findings, Proof
from trickbag.report.latex import effects_tex
from trickbag.report.methods import methods, references_bib
from trickbag.report.page import page
from trickbag.report.tables import EFFECT_HEAD, arms_csv, effect_row, effects_csv, mark, markdown
from trickbag.studies import analysis
from trickbag.studies.record import Study

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, repr=False)
class Finished(Shown):
    """A study that was carried out.

    Examples:
        >>> import trickbag as tb
        >>> small = {"recipe": "cifar", "model": "cifar_resnet8", "set_": {"size": 16, "epochs": 1}, "proof": False}
        >>> found = tb.study("photos", tricks="mixup, ema", **small, out="study")
        >>> found.recommended.model, found.table().column_names[:2]
        ('cifar_resnet8', ['name', 'kind'])

    """

    folder: Path
    findings: Findings
    data: str
    """The data set, as the command line takes it."""

    def _sheet(self) -> Sheet:
        shown = [effect_row(effect) for effect in self.effects if effect.declared]
        return Sheet(" ".join(self.findings.answer), {"folder": str(self.folder)}, EFFECT_HEAD, shown)

    def table(self) -> "pyarrow.Table":
        """The effects as a table, a row each, as in ``effects.csv``; ``.to_pandas()`` makes a DataFrame of it."""
        from pyarrow import csv

        return csv.read_csv(io.BytesIO(effects_csv(self.findings).encode()))

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What each trick does, a row each."""
        return self.findings.effects

    @property
    def downstream(self) -> tuple[Downstream, ...]:
        """What each trick does to detectors and segmenters on the study's classifiers, by data set."""
        return self.findings.downstream

    @property
    def recommended(self) -> Recipe:
        """The nominated recipe where it is proved, or expected to gain and costs nothing more; else the reference."""
        with plugins.using(kept=self.folder):
            return Recipe.load(self.folder / "recommended.toml")

    @property
    def following(self) -> list[str]:
        """The words of the command that trains the recommended recipe."""
        recipe = self.recommended
        own = [str(self.folder / plugins.KEPT / f"{name}.py") for name in plugins.of(recipe.tricks, recipe.model)]
        named = [word for file in own for word in ("--plugin", file)]
        return ["train", self.data, "--recipe", str(self.folder / "recommended.toml"), *named]

    @property
    def proof(self) -> Proof | None:
        """What the proof of the nominated recipe found; None where there was none."""
        return self.findings.proof

    @public
    def report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs nothing else, and return where it lies."""
        store.write(Path(path), page(self.findings))
        return Path(path)


def report(folder: str | Path) -> Finished:
    """The findings of a study's folder, computed anew, and its report and tables written. Raises UsageError, TrickbagError."""
    with plugins.using(kept=folder):
        return reported(Study.load(folder))


def reported(held: Study) -> Finished:
    """The report of a study that was read."""
    found = analysis.findings(held)
    files = {
        "report.html": page(found),
        "report.md": "\n\n".join([*map(mark, found.answer), markdown(found)]),
        "effects.csv": effects_csv(found),
        "arms.csv": arms_csv(found),
        "recommended.toml": found.recommended,
        "methods.md": methods(found),
        "effects.tex": effects_tex(found),
        "references.bib": references_bib(found),
    }
    for name, text in files.items():
        store.write(held.place.folder / name, text)
    return Finished(held.place.folder, found, held.facts.get("data", "DATA"))
