"""One's own tricks, networks and metrics: a file outside the package, or what an installed one enters as ``trickbag.tricks``.

A plugin is its content. Each content is a module of its own, so that a run and a file that was edited since stand side by
side in one process; what is pickled carries the source with it; and a run's folder keeps what it was trained with.
"""

import hashlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from torch import Tensor

from trickbag.ground import files, glance, store
from trickbag.ground.cache import cache_dir
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.plugins.measures import Metric, metric
from trickbag.plugins.source import HOLDERS, Plugin, entered, foreign, loaded, opened, place
from trickbag.trick import Trick

__all__ = [
    "Plugin",
    "active",
    "check_apart",
    "find",
    "hidden",
    "keep",
    "measured",
    "measuring",
    "metric",
    "metrics",
    "named",
    "names",
    "of",
    "place",
    "using",
]

KEPT = "plugins"
"""The folder of a run or a study that holds the sources of the plugins it was made with."""
Files = Annotated[str | Path | Iterable[str | Path], "a Python file, or a list of files"]
"""One file, or several."""

_ACTIVE: ContextVar[Mapping[str, Plugin]] = ContextVar("plugins", default=MappingProxyType({}))


@contextmanager
def using(*given: Files | Iterable[Plugin], kept: str | Path = "") -> Iterator[None]:
    """Inside, the plugins in these files are known by name, and those that the folder ``kept`` of a run or study holds.

    Raises UsageError, with file and line, for what is no plugin, and where two of them have one name.
    """
    outer, own = _ACTIVE.get(), dict[str, Plugin]()
    for one in chain.from_iterable([some] if isinstance(some, str | Path) else some for some in given):
        plugin = one if isinstance(one, Plugin) else _trusting(opened(one))
        if (other := own.get(plugin.name)) and other.source != plugin.source:
            raise UsageError(f"{other.origin} and {plugin.origin} are both called {plugin.name}. Rename one of the files.")
        own[plugin.name] = plugin
    token = _ACTIVE.set({**outer, **own})
    try:
        if kept:
            own |= {plugin.name: plugin for plugin in _kept(Path(kept))}
            _ACTIVE.set({**outer, **own})
        _check_names(list(_ACTIVE.get().values()))
        for plugin in own.values():
            _register(plugin)
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, TrickbagError) or not (where := place(error)):
            raise
        raise TrickbagError(f"{where}{type(error).__name__}: {error}".rstrip(".: ") + ".") from error
    finally:
        _ACTIVE.reset(token)
        for plugin in outer.values():
            _register(plugin)


def check_apart(folder: str | Path) -> None:
    """Raise UsageError where a trick or a network is given that the run in a folder has with another content."""
    for plugin in active():
        file = Path(folder) / KEPT / f"{plugin.name}.py"
        if (plugin.trick or plugin.networks) and file.is_file() and files.content(file) != plugin.source:
            raise UsageError(
                f"{folder} was made with another content of {plugin.name}.py, which lies in {file}. Leave --plugin "
                f"{plugin.origin} out, or rename that file."
            )


def active() -> tuple[Plugin, ...]:
    """The plugins that are known here, but for those of installed packages, which are looked for by name."""
    return tuple(_ACTIVE.get().values())


def find(name: str) -> type[Trick] | None:
    """The trick of that name that a plugin holds."""
    plugin = _ACTIVE.get().get(name)
    if plugin is None and name in glance.installed():
        plugin = entered(name)
    return plugin.trick if plugin else None


def names() -> list[str]:
    """The names of all tricks that plugins hold."""
    return sorted({plugin.name for plugin in active() if plugin.trick} | glance.installed().keys())


def of(tricks: Iterable[Trick | type[Trick]], model: str = "") -> dict[str, Plugin]:
    """The plugins that hold some tricks, or tricks within these, and a network, by name."""
    found: dict[str, Plugin] = {}
    for trick in tricks:
        if plugin := HOLDERS.get(trick if isinstance(trick, type) else type(trick)):
            found[plugin.name] = plugin
        if isinstance(trick, type):
            continue
        for value in dict(trick).values():
            found |= of(one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Trick))
    return found | {plugin.name: plugin for plugin in active() if model in plugin.networks}


def measuring() -> dict[str, Plugin]:
    """The active plugins that hold metrics, by name."""
    return {plugin.name: plugin for plugin in active() if plugin.metrics}


def hidden(model: str) -> bool:
    """Whether timm knows a network from a file that is not asked for here, so that no other process would know it."""
    return foreign(model) and not any(model in plugin.networks for plugin in active())


def named(model: "str | Callable[..., Any] | None") -> tuple[str | None, list[Path]]:
    """A network by name or as timm's function that builds it -> its name, and the file that brings it, if that is not timm.

    Raises UsageError for a function that another process could not find.
    """
    if model is None or isinstance(model, str):
        return model, []
    import timm

    name = getattr(model, "__name__", "")
    if not foreign(name) and timm.is_model(name) and timm.model_entrypoint(name) is model:
        return name, []
    said, module = name or repr(model), getattr(model, "__module__", "")
    if not inspect.isfunction(model) or model.__qualname__ != name or not name.isidentifier():
        raise UsageError(f"model={said}: only a function at the top of a file can be found again. Move it there.")
    file = inspect.getsourcefile(model)
    if module == "__main__" or not file or not Path(file).is_file():
        raise UsageError(f"model={said}: it stands in what runs just now. Move it to a file of its own, and import it.")
    if name not in [node.name for node in glance.decorated(Path(file).read_bytes(), "register_model")]:
        raise UsageError(
            f"model={said}: {file}, line {model.__code__.co_firstlineno}: write @timm.models.register_model above it, which "
            "makes it known by its name."
        )
    return name, [Path(file)]


def keep(plugins: Mapping[str, Plugin], folder: Path) -> None:
    """Write the sources into the folder of a run or study."""
    for name, plugin in plugins.items():
        store.write(folder / KEPT / f"{name}.py", plugin.source)


def metrics() -> dict[str, Metric]:
    """The active metrics, by name."""
    return {name: found for plugin in active() for name, found in plugin.metrics.items()}


def measured(labels: Tensor, logits: Tensor) -> dict[str, float | None]:
    """Labels [N] and logits [N, K] -> what each active metric says; the mean over images of one that gives a number for each.

    None where a metric fails or gives no finite number: no training is lost for it.
    """
    given = labels.numpy(), logits.double().softmax(1).numpy()
    return {name: None if (said := one.of(*given)) is None else float(said.mean()) for name, one in metrics().items()}


def _check_names(plugins: Sequence[Plugin]) -> None:
    """Raise UsageError where two plugins hold a network or a metric of one name."""
    known: dict[str, Plugin] = {}
    for plugin in plugins:
        for name in (*plugin.networks, *plugin.metrics):
            if other := known.get(name):
                raise UsageError(f"{other.origin} and {plugin.origin} both hold {name}. Rename one of the two.")
            known[name] = plugin


def _register(plugin: Plugin) -> None:
    """Have timm build this content's networks, should another content of the same file have been read since."""
    for name in plugin.networks:
        import timm

        own = getattr(plugin.module, name)
        if timm.model_entrypoint(name) is not own:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Overwriting .* in registry")
                timm.models.register_model(own)


def _kept(folder: Path) -> list[Plugin]:
    """The plugins that a run's or a study's folder holds. Raises UsageError where it may be another's code."""
    found = []
    for file in sorted((folder / KEPT).glob("*.py")) if os.path.isdir(folder / KEPT) else ():
        try:
            source = files.content(file)
        except OSError as error:
            raise TrickbagError(f"{file} cannot be read: {files.reason(error)}. Restore it from a copy.") from None
        given, held = _ACTIVE.get().get(file.stem), glance.installed().get(file.stem)
        if given and given.source == source:
            found.append(given)
        elif held and held.file.read_bytes() == source:
            found.append(entered(file.stem))
        elif _trusted(source):
            found.append(loaded(file.stem, str(file), source))
        else:
            raise UsageError(
                f"{folder} was made with the plugin {file.name}, code that has not been used here yet. Read {file}; where you "
                f"trust it, give it once, as in trickbag tricks --plugin {file}."
            )
    return found


def _mark(source: bytes) -> Path:
    return cache_dir() / KEPT / hashlib.sha256(source).hexdigest()


def _trusting(plugin: Plugin) -> Plugin:
    """Remember that the user named a file with this content: a run's folder that holds it can be loaded from now on."""
    with suppress(OSError, TrickbagError):
        if not _mark(plugin.source).exists():
            store.write(_mark(plugin.source), plugin.source)
    return plugin


def _trusted(source: bytes) -> bool:
    return any(plugin.source == source for plugin in active()) or _mark(source).is_file()
