"""One's own metrics: functions of labels and probabilities, in ``result.json`` and in evaluations under their names."""

import inspect
import reprlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from trickbag.ground.arguments import public
from trickbag.ground.errors import UsageError
from trickbag.ground.text import line

Better = Literal["higher", "lower"]
Function = TypeVar("Function", bound=Callable[..., Any])
Values = NDArray[np.float64]
LABELS = np.array([0, 1, 2, 0])
PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.3, 0.4, 0.3]])
"""What a metric is tried on."""
_MARK = "_trickbag_better"


@overload
def metric(function: Function, /) -> Function: ...
@overload
def metric(*, better: Better = "higher") -> Callable[[Function], Function]: ...
@public
def metric(function: Callable[..., Any] | None = None, /, *, better: Better = "higher") -> Any:
    """Mark a plugin's function as a metric: it appears in ``result.json`` and in evaluations under its name.

    The function takes labels [N], int64, and probabilities [N, K], float64 with rows that sum to 1. It returns a number, or one
    for each image [N], whose mean is shown; a study needs one for each. ``better`` says which values are.

    Examples:
        >>> import numpy as np
        >>> import trickbag as tb
        >>> @tb.metric
        ... def top2(labels, probabilities):
        ...     return (probabilities.argsort(1)[:, -2:] == labels[:, None]).any(1)
        >>> top2(np.array([1]), np.array([[0.2, 0.3, 0.5]]))
        array([ True])

    """
    if function is None:
        return lambda marked: _marked(marked, better)
    return _marked(function, better)


def _marked(function: Function, better: Better) -> Function:
    if not inspect.isfunction(function):
        raise UsageError(f"{line(reprlib.repr(function))} is no metric. Mark a function of labels and probabilities.")
    setattr(function, _MARK, better)
    return function


@dataclass(frozen=True)
class Metric:
    """A metric of a plugin."""

    function: Callable[..., Any]
    better: Better
    each: bool
    """Whether it gives a number for each image."""

    def of(self, labels: NDArray[np.int64], probabilities: Values) -> Values | None:
        """Labels [N] and probabilities [N, K] -> a number [], or one for each image [N]; None where there is no finite one."""
        with suppress(Exception, SystemExit):
            found = np.asarray(self.function(labels.copy(), probabilities.copy()), np.float64)
            if found.shape == (labels.shape if self.each else ()) and np.isfinite(found).all():
                return found
        return None


def metrics_of(module: ModuleType) -> dict[str, Metric]:
    """The metrics that a module defines, by name. Raises UsageError, with file and line, for one that cannot be used."""
    held = {name: value for name, value in vars(module).items() if inspect.isfunction(value) and hasattr(value, _MARK)}
    own = {name: value for name, value in held.items() if value.__module__ == module.__name__}
    return {name: Metric(one, getattr(one, _MARK), _tried(name, one).ndim == 1) for name, one in own.items()}


def _tried(name: str, function: Any) -> Values:
    """What a metric says of a few images. Raises UsageError where that is nothing: better now than after a training."""
    where = f"{function.__code__.co_filename}, line {function.__code__.co_firstlineno}: the metric {name}"
    try:
        found = np.asarray(function(LABELS.copy(), PROBABILITIES.copy()), np.float64)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's own code
        raise UsageError(f"{where} fails on labels [4] and probabilities [4, 3]: {type(error).__name__}: {error}.") from None
    if found.shape not in ((), (4,)) or not np.isfinite(found).all():
        raise UsageError(f"{where} gives {found.tolist()} for 4 images. Return a number, or one for each image.")
    return found
