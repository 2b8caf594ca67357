"""The laws tried on a file of one's own: for each whether the trick obeys, and what to look at where it does not."""

from dataclasses import dataclass
from pathlib import Path

from trickbag import plugins
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Doing, Tell, silent
from trickbag.ground.shown import Sheet, Shown
from trickbag.laboratory.laws import LAWS, Law


@dataclass(frozen=True)
class Verdict:
    """What came of a law."""

    law: str
    """Its name, a word."""
    says: str
    """What it asks for, a sentence."""
    obeyed: bool
    why: str = ""
    """What to look at where it is not obeyed; why it has nothing to say of the trick."""


@dataclass(frozen=True, repr=False)
class Verdicts(Shown):
    """What came of all laws.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.laws("posterize.py")
        >>> found.trick, len(found.laws), found.broken
        ('posterize', 22, ())

    """

    trick: str
    laws: tuple[Verdict, ...]

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """Those that are not obeyed."""
        return tuple(one for one in self.laws if not one.obeyed)

    def _sheet(self) -> Sheet:
        rows = [(one.law, "obeyed" if one.obeyed else "broken", one.why or one.says) for one in self.laws]
        facts = {"obeyed": f"{len(self.laws) - len(self.broken)} of {len(self.laws)}"}
        return Sheet(f"laws of {self.trick}", facts, ("law", "verdict", "says"), rows)


def verdicts(file: str | Path, tell: Tell = silent) -> Verdicts:
    """Try every law on the trick in a file. Raises UsageError, with file and line, where there is none."""
    if not __debug__:
        raise UsageError("the laws are assertions, which python -O leaves out. Start Python without it.")
    with plugins.using(file):
        plugin = plugins.active()[-1]
        if plugin.trick is None:
            raise UsageError(f"{file} holds no trick, and the laws are those of tricks.")
        found = []
        for number, law in enumerate(LAWS):
            tell(Doing("trying laws", number, len(LAWS)))
            found.append(verdict(law, plugin.trick.name()))
        return Verdicts(plugin.trick.name(), tuple(found))


def verdict(law: Law, name: str) -> Verdict:
    """What comes of one law for the trick of a name."""
    says = " ".join((law.__doc__ or "").split())
    try:
        return Verdict(law.__name__, says, True, law(name) or "")
    except TrickbagError as error:
        return Verdict(law.__name__, says, False, f"it is refused in the laboratory: {error}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's own code
        where = plugins.place(error)
        own = isinstance(error, AssertionError) and not where
        said = str(error) if own else f"{where}{type(error).__name__}: {error}".rstrip(": ")
        return Verdict(law.__name__, says, False, said)
