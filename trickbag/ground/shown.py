"""How results show themselves in Python: a line at the prompt, a small table in a notebook."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from trickbag.ground.text import line

LONGEST = 12
"""Rows that a notebook shows of a table."""


class Sheet(NamedTuple):
    """What there is to see."""

    title: str
    facts: Mapping[str, str] = {}
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


class Shown:
    """Something with a sheet.

    >>> class Run(Shown):
    ...     def _sheet(self):
    ...         return Sheet("run", {"model": "resnet18", "test": "<b>"})
    >>> Run()
    <run: model resnet18, test <b>>
    >>> Run()._repr_html_()
    '<strong>run</strong><table><tr><th>model</th><td>resnet18</td></tr><tr><th>test</th><td>&lt;b&gt;</td></tr></table>'
    """

    def _sheet(self) -> Sheet:
        raise NotImplementedError

    def __repr__(self) -> str:
        """For the prompt."""
        sheet = self._sheet()
        facts = ", ".join(f"{name} {line(text)}" for name, text in sheet.facts.items())
        return f"<{line(sheet.title)}{': ' if facts else ''}{facts}>"

    def _repr_html_(self) -> str:
        return html(self._sheet())


def html(sheet: Sheet) -> str:
    """For a notebook: one table, with nothing in it that a name could smuggle in."""
    body = [_cells("th", [name]) + _cells("td", [text]) for name, text in sheet.facts.items()]
    body += [_cells("th", sheet.head)] if sheet.head else []
    body += [_cells("td", row) for row in sheet.rows[:LONGEST]]
    left = len(sheet.rows) - LONGEST
    more = f"<p>and {left:,} more</p>" if left > 0 else ""
    return f"<strong>{escape(line(sheet.title))}</strong><table>{''.join(f'<tr>{row}</tr>' for row in body)}</table>{more}"


class Picture(bytes):
    """A PNG file, which a notebook shows."""

    def _repr_png_(self) -> bytes:
        return bytes(self)

    def __repr__(self) -> str:
        return f"<picture: PNG, {len(self):,} bytes>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(line(text))}</{tag}>" for text in texts)
