"""A nested state as tensors and JSON, and back exactly: what a checkpoint holds, without a pickle."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """A nest of dicts, lists, tuples, tensors, numbers, strings, truth values and None -> its tensors and a JSON value.

    Dicts keep their order and keys of any such kind, floats every value. Subclasses come back as what they derive from.
    Raises TypeError for anything else.

    >>> tensors, value = pack({"lr": (0.1, float("inf")), 3: [None]})
    >>> value
    {'dict': [['lr', {'tuple': [0.1, {'float': 'inf'}]}], [3, [None]]]}
    >>> unpack(tensors, value)
    {'lr': (0.1, inf), 3: [None]}
    """
    tensors: dict[str, Tensor] = {}

    def put(value: Any) -> Any:
        match value:
            case Tensor():
                tensors[name := str(len(tensors))] = value.detach()
                return {"tensor": name}
            case dict():
                return {"dict": [[put(k), put(v)] for k, v in value.items()]}
            case tuple():
                return {"tuple": list(map(put, value))}
            case list():
                return list(map(put, value))
            case float() if not math.isfinite(value):
                return {"float": str(float(value))}
            case None | bool() | int() | float() | str():
                return value
        raise TypeError(f"a state cannot hold a {type(value).__name__}")

    return tensors, put(state)


def unpack(tensors: dict[str, Tensor], value: Any) -> Any:
    """The inverse of ``pack``."""

    def get(value: Any) -> Any:
        match value:
            case {"tensor": name}:
                return tensors[name]
            case {"dict": pairs}:
                return {get(k): get(v) for k, v in pairs}
            case {"tuple": values}:
                return tuple(map(get, values))
            case {"float": text}:
                return float(text)
            case list():
                return list(map(get, value))
        return value

    return get(value)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors, bit for bit."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
