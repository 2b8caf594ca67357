r"""The declared effects of a study as a LaTeX table that needs no package beyond UTF-8 input."""

from trickbag.report.findings import Effect, Findings
from trickbag.report.wording import DASH, MINUS, SPACE, chance, points, ratio, shorten, span

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: rf"\{character}" for character in "&%$#_{}"},
        # Directly after the end of a row LaTeX reads these as its argument.
        "[": "{[}",
        "*": "{*}",
        MINUS: "$-$",
        "×": r"$\times$",
        "±": r"$\pm$",
        DASH: "--",
        SPACE: "~",
    }
)
HEAD = ("effect", "difference", "95 % interval", "verdict", "expected gain", "P(helps)", "time")
COLUMNS = "lrrlrrr"


def effects_tex(findings: Findings) -> str:
    """A ``tabular`` with a row per declared effect, in percentage points; what is foreign in it is escaped."""
    rows = [_row(effect) for effect in findings.effects if effect.declared]
    return "\n".join(
        [
            "% Differences and expected gains in percentage points. The intervals are for new photos from the same source,",
            "% simultaneous over all rows (Holm). Time: of a training, as a multiple of the other side's.",
            rf"\begin{{tabular}}{{{COLUMNS}}}",
            r"\hline",
            _line(HEAD),
            r"\hline",
            *map(_line, rows),
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def escaped(text: str) -> str:
    r"""Text that LaTeX sets as it is.

    >>> print(escaped("label_smoothing(eps=0.1) & 50 % \\input{x}"))
    label\_smoothing(eps=0.1) \& 50 \% \textbackslash{}input\{x\}
    """
    return text.translate(_ESCAPES)


def _row(effect: Effect) -> tuple[str, ...]:
    return (
        *(shorten(effect.name), points(effect.difference), span(effect.interval, points)),
        "not decided" if effect.verdict == "open" else shorten(effect.verdict),
        *(points(effect.expected), chance(effect.helps), ratio(effect.seconds_ratio)),
    )


def _line(cells: tuple[str, ...]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
