"""Names that would like to be more than names, and a study in which every text is one of them."""

import dataclasses
from typing import Any

from findings import onward, picture, proved, sample

from trickbag.report.findings import Findings

NAMES = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\" onload=\"document.title='owned'",
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "{{7*7}}",
    "{% include 'page.html' %}",
    "{{ self.__init__.__globals__ }}",
    "photo\u202egpj.exe",
    "nul\0byte",
    "stray \udcff surrogate \ud800",
    "n" * 10_000,
    "🐱‍🏍 👩🏽‍🚀 寿司 עברית",
    "two\nlines\r\nand\u2028more",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
    "<!-- --><b>bold</b>",
    "<a href='https://example.org/x'>click</a>",
    "url(https://example.org/y) </details></table><iframe src=https://example.org/z>",
    '=HYPERLINK("https://example.org")',
    "&lt;script&gt;&#60;script&#62;",
    "]]><base href=https://example.org/>",
    "\x1b[31mred\x1b[0m \x9b \u200b \ufeff",
)
THUMBNAILS = (
    "javascript:alert(1)",
    "https://example.org/a.jpg",
    "data:image/svg+xml;base64,PHN2Zy8+",
    "data:text/html;base64,PHNjcmlwdD4=",
    'data:image/jpeg;base64,AAAA" onerror="document.title=1',
    "DATA:image/jpeg;base64,AAAA",
    " data:image/jpeg;base64,AAAA",
    "data:image/jpeg;base64,AAAA\n",
)


def hostile() -> Findings:
    """Every text of the findings is a hostile name; the verdicts are some that do not exist."""
    plain = onward(proved(sample(arms=10, classes=NAMES[:10])))
    turn = iter(NAMES * 1000)
    pictures = tuple(dataclasses.replace(picture(0, ()), thumbnail=address) for address in THUMBNAILS)
    return _spoil(dataclasses.replace(plain, hardest=plain.hardest + pictures), turn)


def _spoil(value: Any, turn: Any, key: str = "") -> Any:
    if key in ("thumbnail", "split", "measure"):
        return value
    if isinstance(value, str):
        return next(turn)
    if isinstance(value, tuple):
        items = [_spoil(item, turn) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _spoil(getattr(value, f.name), turn, f.name) for f in dataclasses.fields(value)})
    return value
