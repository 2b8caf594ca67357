r"""Names and times as they are shown; nothing in a name can steer a terminal, a log or a JSON reader.

Names come from a file system, which allows newlines, terminal escapes, reversed writing and bytes that are no text.
``show`` spells those visibly and ``unshow`` gives the name back, so a list of files on screen or in JSON loses nothing.
"""

import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
_ESCAPE = re.compile(r"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def show(name: str) -> str:
    r"""A name with control characters, bidirectional overrides, invisible characters and stray bytes spelled out.

    A byte that was no UTF-8 and an ASCII control character are ``\xNN``, others ``\uNNNN``; a backslash is doubled, so
    that different names stay different. Emoji and all scripts are left as they are.

    >>> print(show("a\nb\u202egpj.exe \udcff \\ \N{CAT FACE}"))
    a\x0ab\u202egpj.exe \xff \\ 🐱
    """
    return "".join(map(_spell, name))


def legible(text: str) -> str:
    r"""Text in which nothing is invisible and every character can be encoded; line breaks stay.

    Unlike ``show`` it leaves backslashes alone, so that a name which was shown already is not spelled twice.

    >>> print(legible("a\0b\u202egpj.exe \udcff"))
    a\x00b\u202egpj.exe \xff
    """
    return "".join(character if character in "\\\n" else show(character) for character in text)


def line(text: str) -> str:
    r"""Text on one line: as ``legible``, its line breaks spelled out.

    >>> print(line("a\nb"))
    a\x0ab
    """
    return legible(text).replace("\n", r"\x0a")


def unshow(text: str) -> str:
    r"""The name that ``show`` spelled.

    >>> unshow(show("a\n\\\udcff")) == "a\n\\\udcff"
    True
    """
    return _ESCAPE.sub(lambda found: _read(found.group()), text)


def brief(value: str, most: int = 80) -> str:
    """What was typed, quoted, for an error: the middle of a long text is left out.

    >>> brief("resnet50"), brief("n" * 5000, 8)
    ("'resnet50'", "'nnnn…nnnn'")
    """
    return repr(clipped(value, most))


def clipped(value: str, most: int = 80) -> str:
    """A text without its middle where it is long.

    >>> clipped("n" * 5000, 8)
    'nnnn…nnnn'
    """
    return value if len(value) <= most else f"{value[: most // 2]}…{value[-(most // 2) :]}"


def as_bytes(name: str) -> bytes:
    r"""A name in UTF-8, stray bytes as they were.

    >>> as_bytes("é \udcff \ud800")
    b'\xc3\xa9 \xff \xed\xa0\x80'
    """
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, from JSON
        return b"".join(map(as_bytes, name)) if len(name) > 1 else name.encode("utf-8", "surrogatepass")


def file_name(name: str, most: int = 60) -> str:
    r"""A name as part of another file's: at most so many characters that every file system takes.

    >>> file_name("IMG 2 (1)"), file_name("a\n\udcff/b"), len(file_name("猫" * 300).encode())
    ('IMG 2 (1)', 'a___b', 180)
    """
    return "".join(sign if sign.isprintable() and sign not in r'\/:*?"<>|' else "_" for sign in name[:most])


def _spell(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _read(escape: str) -> str:
    if escape == "\\\\":
        return "\\"
    code = int.from_bytes(bytes.fromhex(escape[2:]), "big")
    return chr(code + 0xDC00 if escape[1] == "x" and code >= 0x80 else code)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things.

    >>> counted(1, "seed"), counted(2000, "image"), counted(3, "class", "classes")
    ('1 seed', '2,000 images', '3 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(552), duration(41.2), duration(0.31)
    ('9 min 12 s', '41 s', '0.31 s')
    """
    if seconds < 9.5:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def volume(count: int) -> str:
    """Bytes for people.

    >>> volume(1_234_567_890), volume(34_500_000), volume(812)
    ('1.2 GB', '34 MB', '1 kB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
