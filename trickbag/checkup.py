"""What is to be known of an installation and its machine before a training, or for a report of a fault.

Each look stands for itself and imports what it looks at: where torch cannot be imported, that is what there is to say.
"""

import difflib
import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from trickbag.ground import clearing, environment, files, memory
from trickbag.ground.arguments import public
from trickbag.ground.cache import cache_dir, expanded
from trickbag.ground.errors import TrickbagError
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import brief, clipped, counted, show, volume

PACKAGES = ("trickbag", "torch", "torchvision", "timm", "numpy", "pillow", "lightning-fabric", "huggingface-hub")
EXTRAS = {
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "ray": ("ray",),
    "serve": ("fastapi", "python-multipart", "uvicorn"),
}
"""Of trickbag's package, but those for work on trickbag itself, and what they install."""
FOLDERS = ("TRICKBAG_CACHE", "TRICKBAG_DATA")
TEXTS = ("TRICKBAG_TOKEN",)
NUMBERS: dict[str, Callable[[str, int], float]] = {
    "TRICKBAG_CACHE_LIMIT": environment.number,
    "TRICKBAG_CHECKPOINT_SECONDS": environment.number,
    "TRICKBAG_WORKERS": environment.whole,
}
LITTLE = 2e9
"""Bytes of free disk below which a training may fail."""
MOST_WEIGHTS = 12
"""That a person is shown."""
T = TypeVar("T")


@dataclass(frozen=True)
class Machine:
    """What a training would run on."""

    system: str = "unknown"
    cores: int = 0
    memory: int | None = None
    """Bytes that programs may still take; None where the system does not tell."""
    device: str = "unknown"
    """That torch computes on."""
    threads: int = 0
    """Of torch; 0 where it cannot be imported."""


@dataclass(frozen=True)
class Place:
    """A folder to write to, and the disk that it is on."""

    folder: str = ""
    free: int = 0
    """Bytes."""
    holds: dict[str, int] = field(default_factory=dict)
    """Bytes of each kind of ``trickbag.ground.clearing.KINDS``, in the cache."""


@dataclass(frozen=True)
class Weights:
    """A file of weights."""

    name: str
    """The path that ``--weights`` takes; or of what ``--weights hub`` takes, the name there."""
    file: str
    bytes: int


@dataclass(frozen=True, repr=False)
class Checkup(Shown):
    """What ``trickbag.doctor`` found.

    Examples:
        >>> import trickbag as tb
        >>> found = tb.doctor()
        >>> found.versions["trickbag"], found.freed
        ('0.1.0', None)

    """

    versions: dict[str, str]
    """Of Python and of packages; empty for one that is missing."""
    machine: Machine
    cache: Place
    runs: Place
    """The current folder, below which runs are written."""
    weights: tuple[Weights, ...]
    """In the hub's cache, in the current folder, and of the runs in it."""
    extras: dict[str, tuple[str, ...]]
    """The packages that each extra lacks."""
    problems: tuple[str, ...]
    """What is wrong, and what to do about it."""
    freed: int | None = None
    """Bytes that were removed from the cache; None where it was not to be cleared."""
    in_use: tuple[str, ...] = ()
    """Folders of the cache that were left, because a process works with them."""

    def _sheet(self) -> Sheet:
        title = counted(len(self.problems), "problem") if self.problems else "no problem found"
        facts = {name: self.versions.get(name, "") or "missing" for name in ("Python", "trickbag", "torch")}
        facts |= {"device": self.machine.device, "cache": volume(sum(self.cache.holds.values()))}
        return Sheet(title, facts, ("problem",) if self.problems else (), [(text,) for text in self.problems])

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        machine, cache = self.machine, self.cache
        versions = ", ".join(f"{name} {version or 'missing'}" for name, version in self.versions.items())
        held = ", ".join(f"{clearing.KINDS[kind]} {volume(count)}" for kind, count in cache.holds.items())
        named = [f"{show(one.name)} ({volume(one.bytes)})" for one in self.weights[:MOST_WEIGHTS]]
        named += [f"{more} more"] if (more := len(self.weights) - MOST_WEIGHTS) > 0 else []
        extras = ", ".join(f"{name} lacks {' and '.join(p)}" if p else f"{name} is there" for name, p in self.extras.items())
        lacking = ",".join(name for name, packages in self.extras.items() if packages)
        return [
            f"versions: {versions}",
            f"machine: {machine.system}, {counted(machine.cores, 'core')}"
            + (f", {volume(machine.memory)} of memory available" if machine.memory is not None else ""),
            f"device: {machine.device}" + (f", torch with {counted(machine.threads, 'thread')}" if machine.threads else ""),
            f"cache: {show(cache.folder)} holds {held or 'nothing'}; {volume(cache.free)} free",
            f"runs: new ones are written below {show(self.runs.folder)}; {volume(self.runs.free)} free",
            f"weights: {', '.join(named) or 'none at hand'}",
            f"extras: {extras}" + (f"; to install: pip install 'trickbag[{lacking}]'" if lacking else ""),
            *([] if self.freed is None else [f"cleared: {volume(self.freed)}"]),
            *(f"left, as a process works with it: {show(folder)}" for folder in self.in_use),
            *(f"problem: {text}" for text in self.problems),
            *([] if self.problems else ["no problem found"]),
        ]


@public
def doctor(*, clear: bool = False) -> Checkup:
    """Versions, device, memory, cache, disks, weights at hand, missing extras, and what is wrong with them.

    Looks only, unless asked to clear; what cannot be found out is a problem in the list and no error.

    Examples:
        >>> import trickbag as tb
        >>> sorted(tb.doctor().extras)
        ['export', 'ray', 'serve']

    Args:
        clear: Empty the cache of all that can be made again without a network, but for what a process works with.

    Raises:
        TrickbagError: With ``clear``, where the disk refuses.

    """
    problems = _environment()
    cleared = clearing.clear() if clear else None

    def look(what: str, at: Callable[[list[str]], T], otherwise: T) -> T:
        try:
            return at(problems)
        except TrickbagError as error:
            problems.append(str(error))
            return otherwise
        except Exception as error:  # noqa: BLE001  one look that fails, however it does, must not take the others away
            problems.append(f"{what} cannot be told ({type(error).__name__}: {clipped(str(error), 200)}).")
            return otherwise

    return Checkup(
        versions=look("versions", _versions, {}),
        machine=look("the machine", _machine, Machine()),
        cache=look("the cache", _cache, Place()),
        runs=look("the current folder", _runs, Place()),
        weights=look("weights at hand", _weights, ()),
        extras=look("extras", _extras, {}),
        problems=tuple(problems),
        freed=cleared.freed if cleared else None,
        in_use=tuple(map(str, cleared.in_use)) if cleared else (),
    )


def _environment() -> list[str]:
    """What is wrong with the variables of trickbag."""
    ours = sorted((name, given) for name, given in os.environ.items() if name.startswith("TRICKBAG_"))
    return [wrong for name, given in ours if (wrong := _wrong(name, given))]


def _wrong(name: str, given: str) -> str:
    """What is wrong with a variable; empty where nothing is."""
    try:
        if name in NUMBERS:
            NUMBERS[name](name, 0)
        elif name in FOLDERS:
            if given and not os.path.isdir(expanded(given)):
                return f"the environment has {name}={brief(given)}, which is no folder. Correct it, or make the folder."
        elif name not in TEXTS:
            near = difflib.get_close_matches(name, (*FOLDERS, *NUMBERS, *TEXTS), 1)
            return f"the environment has {name}, which nothing reads. {f'Did you mean {near[0]}?' if near else 'Unset it.'}"
    except TrickbagError as error:
        return str(error)
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _versions(problems: list[str]) -> dict[str, str]:
    found = {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    problems += [f"{name} is not installed: pip install {name}" for name, version in found.items() if not version]
    return found


def _machine(problems: list[str]) -> Machine:
    free = memory.available()
    here = Machine(f"{platform.system()} {platform.machine()}", os.cpu_count() or 1, free if free < memory.UNKNOWN else None)
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")  # fails where it was made for another torch
    except Exception as error:  # noqa: BLE001  whatever a broken installation raises
        problems.append(
            f"torch {_version('torch')} with torchvision {_version('torchvision')} cannot be imported ({type(error).__name__}: "
            f"{clipped(str(error), 200)}). Install both again, together: pip install --force-reinstall torch torchvision"
        )
        return here
    device = "cpu"
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, {volume(torch.cuda.mem_get_info()[0])} of its memory free"
    elif os.path.exists("/dev/nvidia0"):
        problems.append(
            f"there is an NVIDIA GPU, and torch {torch.__version__} cannot use it. Install a torch for its driver: "
            "https://pytorch.org/get-started/locally"
        )
    return replace(here, device=device, threads=torch.get_num_threads())


def _cache(problems: list[str]) -> Place:
    free = _room(cache_dir(), "the cache", "Set TRICKBAG_CACHE to another folder", problems)
    return Place(str(cache_dir()), free, clearing.sizes())


def _runs(problems: list[str]) -> Place:
    return Place(str(Path.cwd()), _room(Path.cwd(), "runs", "Name another folder with --out", problems))


def _room(folder: Path, what: str, remedy: str, problems: list[str]) -> int:
    """Bytes that are free where a folder lies, or will; whether it can be written is tried."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.isdir(parent))
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        problems.append(f"{show(str(folder))} for {what} cannot be written ({files.reason(error)}). {remedy}.")
    free = shutil.disk_usage(there).free
    if free < LITTLE:
        problems.append(f"only {volume(free)} are free in {show(str(folder))}, the place of {what}. Free some space. {remedy}.")
    return free


def _weights(_: list[str]) -> tuple[Weights, ...]:
    hub, here = Path(importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE), Path()
    found = {"/".join(file.parts[-4].split("--")[1:]): file for file in hub.glob("models--*/snapshots/*/model.safetensors")}
    found |= {str(file): file for file in here.glob("*.safetensors")}
    found |= {str(file.parent): file for where in ("*", "runs/*") for file in here.glob(f"{where}/model.safetensors")}
    return tuple(Weights(name, str(file), file.stat().st_size) for name, file in sorted(found.items()) if file.is_file())


def _extras(_: list[str]) -> dict[str, tuple[str, ...]]:
    return {extra: tuple(name for name in names if not _version(name)) for extra, names in EXTRAS.items()}
