"""From a file or an installed package to a ``Plugin``, or to a sentence with the file and the line that says why not."""

import hashlib
import importlib
import inspect
import linecache
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Any
from unicodedata import normalize

from trickbag.ground import files, glance
from trickbag.ground.cache import expanded
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, show
from trickbag.plugins.measures import Metric, metrics_of
from trickbag.trick import PLUG_POINTS, Stage, Trick

ROOM = "trickbag_plugins"
"""What the names of the modules of files begin with."""


@dataclass(frozen=True)
class Plugin:
    """A file of one's own, or a module that an installed package enters, and what it holds."""

    name: str
    origin: str
    """The file, or the package with its version."""
    source: bytes = field(repr=False)
    installed: str = ""
    """The module of an installed package."""
    module: ModuleType = field(default=ModuleType(""), repr=False, compare=False)
    trick: type[Trick] | None = field(default=None, compare=False)
    networks: tuple[str, ...] = field(default=(), compare=False)
    """Registered in timm."""
    metrics: Mapping[str, Metric] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (entered, (self.name,)) if self.installed else (loaded, (self.name, self.origin, self.source))

    @property
    def digest(self) -> str:
        """A hash of the content, 16 hexadecimal digits."""
        return digest(self.source)


HOLDERS: dict[type[Trick], Plugin] = {}
"""Which plugin a trick's class comes from."""


def opened(path: str | Path) -> Plugin:
    """The plugin in a file. Raises UsageError, with file and line, for what is none."""
    if not isinstance(path, str | Path):  # an iterator may give anything
        raise UsageError(f"plugin {brief(repr(path))}: give a Python file.")
    file = expanded(path)
    try:
        source = files.content(file)
    except OSError as error:
        raise UsageError(f"plugin {brief(str(path))} cannot be read: {files.reason(error)}. Give a Python file.") from None
    name = normalize("NFKC", file.name.removesuffix(".py"))
    if not file.name.endswith(".py") or not name.isidentifier() or iskeyword(name):
        raise UsageError(
            f"plugin {show(str(path))}: a trick is called as its file. Rename the file to a word of letters, digits and _, "
            "with .py at its end."
        )
    found = loaded(name, str(file), source)
    if found.trick and (glance.HERE / "tricks" / f"{name}.py").exists():
        raise UsageError(f"{file}: trickbag has a trick {name} of its own. Rename the file.")
    held = glance.installed().get(name)
    if found.trick and held and held.file.read_bytes() != source:
        raise UsageError(f"{file}: the installed package {held.package} has a trick {name} too. Rename the file.")
    return found


@cache
def loaded(name: str, origin: str, source: bytes) -> Plugin:
    """The plugin with this source. Raises UsageError, with file and line, where it is none."""
    # A traceback shows the line that was run, whatever the file says by now.
    text = source.decode("utf-8-sig", "replace")
    linecache.cache[origin] = (len(text), None, text.splitlines(keepends=True), origin)
    module = ModuleType(f"{ROOM}.{digest(source)}.{name}")
    module.__file__ = origin
    _check_networks(origin, source)
    sys.modules[module.__name__] = module
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Overwriting .* in registry")  # an earlier content of the same file
            exec(compile(source, origin, "exec", dont_inherit=True), vars(module))  # noqa: S102 - the user's own code
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file does is told with its line
        del sys.modules[module.__name__]
        raise UsageError(_failure(error, origin)) from None
    return _checked(Plugin(name, origin, source, module=module))


@cache
def entered(name: str) -> Plugin:
    """The plugin that an installed package enters. Raises UsageError where it holds no trick of that name."""
    held = glance.installed()[name]
    where = f"the installed package {held.package} enters {name} = {held.module!r} in {glance.GROUP}"
    if (glance.HERE / "tricks" / f"{name}.py").exists():
        raise UsageError(f"{where}, but trickbag has a trick of that name. Uninstall one of the two.")
    try:
        module = importlib.import_module(held.module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        raise UsageError(f"{where}, which cannot be imported: {_failure(error, str(held.file))}") from None
    found = _checked(Plugin(name, held.package, held.file.read_bytes(), held.module, module))
    if found.trick is None or found.trick.name() != name:
        raise UsageError(f"{where}: that module holds no trick {name}. A trick is called as its module.")
    return found


def _checked(bare: Plugin) -> Plugin:
    """The plugin with what its module holds. Raises UsageError where that is nothing, or no trick that can be used."""
    file = bare.module.__file__ or bare.origin
    held = vars(bare.module).values()
    own = [value for value in held if getattr(value, "__module__", "") == bare.module.__name__]
    tricks = list(dict.fromkeys(value for value in own if isinstance(value, type) and issubclass(value, Trick)))
    metrics = metrics_of(bare.module)
    networks = tuple(node.name for node in glance.decorated(bare.source, "register_model") if hasattr(bare.module, node.name))
    if len(tricks) > 1:
        both = " and ".join(f"{trick.__name__} (line {_line(trick)})" for trick in tricks[:2])
        raise UsageError(f"{file}: {both} are two tricks, and a file holds one. Move one to a file of its own.")
    if not (tricks or metrics or networks):
        raise UsageError(
            f"{file} holds no trick, which is a subclass of trickbag.trick.Trick, no network, which is a function under "
            "@timm.models.register_model, and no metric, which is one under @trickbag.metric."
        )
    for trick in tricks:
        _check_trick(trick, file)
    found = Plugin(
        bare.name, bare.origin, bare.source, bare.installed, bare.module, tricks[0] if tricks else None, networks, metrics
    )
    for trick in tricks:
        HOLDERS[trick] = found
        if not found.installed:
            trick.__reduce_ex__ = _reduced  # type: ignore[assignment, method-assign]
    return found


def _reduced(trick: Trick, protocol: Any) -> tuple[Any, ...]:
    """A trick of a plugin, pickled with the source of its class: another process has no module of that name."""
    return _rebuilt, (HOLDERS[type(trick)],), object.__reduce_ex__(trick, protocol)[2]


def _rebuilt(plugin: Plugin) -> Trick:
    assert plugin.trick
    return plugin.trick.__new__(plugin.trick)


def _check_trick(trick: type[Trick], file: str) -> None:
    where = f"{file}, line {_line(trick)}: {trick.__name__}"
    if not isinstance(getattr(trick, "stage", None), Stage):
        raise UsageError(f"{where} has no stage. Write, for example, stage = Stage.PIXEL.")
    if not trick.model_config.get("frozen"):
        raise UsageError(f"{where} is not frozen. Leave model_config as Trick has it: a trick is a value, which never changes.")
    if not trick.plugs():
        raise UsageError(f"{where} overrides no plug point. Plug points: {', '.join(PLUG_POINTS)}.")
    for point in trick.plugs():
        wanted, given = (inspect.signature(getattr(kind, point)) for kind in (Trick, trick))
        try:
            given.bind(*wanted.parameters)
        except TypeError:
            line = getattr(trick, point).__code__.co_firstlineno
            raise UsageError(
                f"{file}, line {line}: {trick.__name__}.{point} takes {given}, and it is called as "
                f"{point}({', '.join(wanted.parameters)})."
            ) from None


def _check_networks(file: str, source: bytes) -> None:
    """Raise UsageError where the file would put a network in the place of one of timm's."""
    for node in glance.decorated(source, "register_model"):
        if _origin(node.name) in ("timm", "trickbag"):
            raise UsageError(f"{file}, line {node.lineno}: timm has a network {node.name} of its own. Rename the function.")


def foreign(model: str) -> bool:
    """Whether timm knows a network that neither it nor trickbag brings."""
    return _origin(model) not in ("", "timm", "trickbag")


def _origin(model: str) -> str:
    """The package that brings a network; empty where timm knows none of that name."""
    import timm  # takes a second, which lists of tricks need not wait for

    return timm.model_entrypoint(model).__module__.split(".")[0] if timm.is_model(model) else ""


def place(error: BaseException) -> str:
    """The last line of a plugin that an error went through, as the beginning of a sentence; else an empty string."""
    found = ""
    origins = {plugin.module.__file__: plugin for plugin in HOLDERS.values()}
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_globals.get("__name__", "").startswith(f"{ROOM}.") or trace.tb_frame.f_code.co_filename in origins:
            found = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return found


def _line(trick: type[Trick]) -> int:
    with suppress(OSError, TypeError):
        return inspect.findsource(trick)[1] + 1
    return 1


def _failure(error: BaseException, file: str) -> str:
    """What went wrong with a file, with the line."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}: {error.msg}."
    line, trace = 0, error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
        trace = trace.tb_next
    said = f"{type(error).__name__}: {error}".strip().rstrip(".:")
    more = " A plugin is one file: what it imports must be installed." if isinstance(error, ImportError) else ""
    return f"{file}{f', line {line}' * bool(line)}: {said}.{more}"


def digest(source: bytes) -> str:
    """A hash of a content, 16 hexadecimal digits."""
    return hashlib.sha256(source).hexdigest()[:16]
