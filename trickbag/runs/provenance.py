"""What a run or a study was asked for, kept beside it: another request for the same folder is answered with what differs."""

import csv
import gzip
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from trickbag import plugins
from trickbag.data.findings import some
from trickbag.data.images import Images
from trickbag.engine.loop import ENGINE
from trickbag.ground import files, records, store
from trickbag.ground.cache import cache_dir
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Tell
from trickbag.ground.records import Open
from trickbag.ground.text import counted, duration, file_name, show
from trickbag.recipe import Recipe
from trickbag.runs.folder import ASKED, BEGUN, COLUMNS, GROUP, IMAGES, UNREADABLE, Asked, Begun, Table, kept_table
from trickbag.runs.request import Request, identity, request

SOURCE = ".work/source.json"
"""As long as the run may go on: a finished one is handed around, and need not say where the photos lay."""
LONGER = {"epochs", "budget"}
"""What differs where the same training is wanted for longer or shorter."""
ANEW = "To finish this run, put back what it began with; or train anew into another folder."
PUT_BACK = "Put it back from a copy, or give the command that began it."


def keep(wanted: Request, folder: Path, **more: Any) -> None:
    """Write what was asked for, and ``more`` of it, its plugins, its images, and where a run finds them again."""
    plugins.keep(wanted.own, folder)
    if wanted.source:
        store.write(folder / SOURCE, json.dumps(wanted.source))
    remember(wanted.data.fingerprint, wanted.data.images.root)
    store.write(folder / ASKED, store.to_json(fields(wanted) | more, indent=2))
    lines, rows = io.StringIO(), [(path, *row) for path, row in table(wanted.data.images).items()]
    csv.writer(lines, lineterminator="\n").writerows([(*COLUMNS, GROUP)[: len(rows[0])], *rows])
    store.write(folder / IMAGES, gzip.compress(lines.getvalue().encode("utf-8", "surrogateescape"), 1, mtime=0))


def remember(fingerprint: str, root: Path) -> None:
    """Keep in the cache of this machine where a data set lies: a finished run, which is handed around, does not say."""
    with suppress(TrickbagError, OSError):
        store.write(_place(fingerprint), str(root))


def remembered(fingerprint: str) -> Path | None:
    """Where the images of the data set of this fingerprint lay on this machine; None where it is not known."""
    try:
        return Path(files.text(_place(fingerprint)))
    except OSError:
        return None


def _place(fingerprint: str) -> Path:
    return cache_dir() / "places" / file_name(fingerprint)


def again(folder: Path, tell: Tell) -> Request:
    """The request of the unfinished run in a folder, its data read anew. Raises UsageError where it is another by now."""
    try:
        if not os.path.exists(folder / BEGUN):
            raise FileNotFoundError(folder / BEGUN)
        source, held = (records.read(folder / name, kind, PUT_BACK).plain() for name, kind in ((SOURCE, Open), (ASKED, Asked)))
        key = Begun.load(folder).request
        recipe = Recipe.build({name: held[name] for name in Recipe.model_fields}, f"{folder / ASKED}")
        wanted = _asked_again(folder, recipe=recipe, budget=held["budget"], seed=held["seed"], tell=tell, **source)
        wanted = replace(wanted, auto=held["recipe"] == "auto", chosen=frozenset(held["set by you"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder} holds no run that was stopped. Give the folder that train wrote.") from None
    if wanted.key != key:
        said = "; ".join(compared(wanted, folder, {})[0]) or "it was begun by another version of trickbag"
        raise UsageError(f"{folder} cannot be finished, since what it began with is another by now: {said}. {ANEW}")
    return wanted


def _asked_again(folder: Path, **asked: Any) -> Request:
    try:
        return request(**asked)
    except UsageError as error:
        raise UsageError(f"{folder} cannot be finished, since what it began with is gone or changed: {error} {ANEW}") from None


def fields(wanted: Request) -> dict[str, Any]:
    """What decides a result, but for the images, in plain values."""
    spelled = wanted.recipe.spelled()
    found = {"made by": f"trickbag {version('trickbag')}, engine {ENGINE}"} | spelled
    found |= {f"content of {name}": value for name, value in contents(wanted).items()}
    found |= {f"plugin {name}": plugin.digest for name, plugin in wanted.own.items()}
    found |= {"recipe": "auto" if wanted.auto else "as given", "budget": wanted.budget, "seed": wanted.seed}
    found |= {"corrections": str(applied)} if (applied := wanted.data.images.correction) else {}
    plain: dict[str, Any] = json.loads(store.to_json(found | {"set by you": sorted(wanted.chosen)}))
    return plain


def contents(wanted: Request) -> dict[str, str]:
    """Name -> hash of the files that a recipe names."""
    found = identity(wanted.recipe)
    named: dict[str, str] = dict(found.get("teachers", {}))
    if found["weights"] != wanted.recipe.weights:
        named[wanted.recipe.weights] = found["weights"]
    return named


def table(images: Images) -> Table:
    """The images as they are kept."""
    names = (images.classes[label] for label in images.labels.tolist())
    columns = [names, images.splits.tolist(), images.hashes]
    if len(np.unique(images.groups)) < len(images):
        first = dict(zip(images.groups[::-1].tolist(), images.paths[::-1], strict=True))
        columns.append([first[group] for group in images.groups.tolist()])
    return dict(zip(images.paths, zip(*columns, strict=True), strict=True))


def another(wanted: Request, folder: Path, what: str = "run", **more: Any) -> str:
    """A sentence on how a folder's run or study differs from what is asked for, and what can be done."""
    differences, names = compared(wanted, folder, more)
    said = "; ".join(differences) or "it was made by another version of trickbag"
    other = "Choose another --out"
    if any("is gone" in text or "are gone" in text for text in differences):
        other += f", or put back what is gone to return to this {what}"
    if any(text.startswith("the plugin ") for text in differences):
        other += f", or give what lies in {folder / plugins.KEPT} to return to this {what}"
    if what == "run" and names and names <= LONGER | {"set by you"}:
        other += f"; to train on from its weights, add --weights {quote(str(folder))}"
        if (folder / ".work").exists():
            other += f" after trickbag finish {quote(str(folder))}"
    return f"{folder} holds another {what}: {said}. {other}."


def compared(wanted: Request, folder: Path, more: Mapping[str, Any]) -> tuple[list[str], set[str]]:
    """The differences in words, and the names of the fields that differ, where the data are the same; else none."""
    try:
        held, old = records.read(folder / ASKED, Asked, PUT_BACK).plain(), kept_table(folder)
        now = fields(wanted) | dict(more)
        names = [name for name in now.keys() | held.keys() if held.get(name) != now.get(name)]
    except (*UNREADABLE, TrickbagError):
        return ["what it was asked for is not known"], set()
    order = list(now)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    told = [name for name in names if name != "made by"]
    if len(told) > 1:  # that a field was set is seen by its value
        told = [name for name in told if name != "set by you"]
    images = about_images(old, new := table(wanted.data.images))
    if not images and not told and (moved := [path for path in new if new[path][1] != old[path][1]]):
        images = [_counted(moved, "is in another split")]
    said = images + [about(name, held.get(name), now.get(name)) for name in told or ([] if images else names)]
    return said, set() if images else set(told)


def about(name: str, old: Any, new: Any) -> str:
    """How a field differs, in words.

    >>> about("budget", 120.0, 300.0), about("tricks", ["flip", "ema"], ["flip", "mixup"])
    ('budget was 2 min 0 s and is now 5 min 0 s', 'tricks: without mixup and with ema')
    """
    if name == "tricks":
        here, there = ([str(trick) for trick in value or []] for value in (new, old))
        missing, extra = [t for t in here if t not in there], [t for t in there if t not in here]
        said = [f"{word} {', '.join(tricks)}" for word, tricks in (("without", missing), ("with", extra)) if tricks]
        return f"tricks: {' and '.join(said) or 'in another order'}"
    if name.startswith("content of"):
        return f"the {name} has changed"
    if name.startswith("plugin "):
        return f"the {name} {'has changed' if old and new else 'is new' if new else 'is not given'}"
    if name == "set by you":
        only = sorted(set(old or []) ^ set(new or []))
        return f"what you choose yourself differs ({', '.join(only)})"
    return f"{name} was {_value(name, old)} and is now {_value(name, new)}"


def _value(name: str, value: Any) -> str:
    if name == "budget":
        return duration(value) if value else "without limit"
    return "unset" if value is None else str(value)


def about_images(old: Table, new: Table) -> list[str]:
    """How two tables of images differ but for their splits, which change with other things, in words.

    >>> about_images({"a.png": ("cat", "train", "1")}, {"b.png": ("cat", "train", "1")})
    ['1 image is renamed (a.png is now b.png)']
    """
    places = {row[2]: path for path, row in new.items() if path not in old}
    gone = [path for path in old if path not in new]
    renamed = {path: places[old[path][2]] for path in gone if old[path][2] in places}
    both = [path for path in old if path in new]
    changes = {
        "is gone": [path for path in gone if path not in renamed],
        "is new": [path for path in new if path not in old and path not in renamed.values()],
        "is renamed": [f"{path} is now {place}" for path, place in renamed.items()],
        "has another content": [path for path in both if old[path][2] != new[path][2]],
        "is of another class": [path for path in both if old[path][0] != new[path][0]],
    }
    return [_counted(names, said) for said, names in changes.items() if names]


def _counted(names: Sequence[str], said: str) -> str:
    verb, _, rest = said.partition(" ")
    verb = verb if len(names) == 1 else {"is": "are", "has": "have"}[verb]
    return f"{counted(len(names), 'image')} {verb} {rest} ({some([show(name) for name in names], 3)})"
