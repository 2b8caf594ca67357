"""A pretended accelerator for machines without one: tensors that say they lie on cuda:0 and hold the CPU's numbers.

As on a real one, tensors of two devices do not meet, a generator draws on its own device only, and the host waits where it
asks for a number, for a shape that depends on numbers, or for a copy that does not go on by itself. The waits are counted.
"""

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

import trickbag

CUDA = torch.device("cuda", 0)
AS_CPP_SEES_IT = torch.device("meta")
"""A device that torch builds without a GPU know, and that is not the CPU."""
PACKAGE = str(Path(trickbag.__file__).parent)
aten: Any = torch.ops.aten
ASKS = {
    aten._local_scalar_dense, aten.bincount, aten.equal, aten.masked_select, aten.nonzero, aten._unique, aten._unique2,
    aten.unique_consecutive, aten.unique_dim,
}  # fmt: skip
"""Operations that give the host a number, or a shape that depends on numbers."""
BETWEEN = {aten._to_copy, aten.copy_}
"""Operations that tensors of both devices may take part in."""


class Far(Tensor):
    """A tensor of the accelerator. Its operations are the ``Accelerator``'s."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Far":
        made: Far = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=AS_CPP_SEES_IT,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of the accelerator's tensors, outside of it or in a thread that knows nothing of it")

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Far":
        made = Far(self.held.detach().clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made._is_param = True
        memo[id(self)] = made
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Far({self.held!r})"


class Accelerator(TorchDispatchMode):
    """Carries out all operations of the thread that enters it; ``waits`` counts, by place in the package, those of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled():  # in which torch cannot count the changes of a tensor that holds another
            with torch.inference_mode(False), torch.no_grad():
                return self.carry_out(func, args, kwargs or {})
        return self.carry_out(func, args, kwargs or {})

    def carry_out(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation on the tensors that are held, and its results where they belong."""
        leaves = [*flat(args), *flat(kwargs.values())]
        asked = kwargs.get("device")
        ours = any(isinstance(leaf, Far) for leaf in leaves)
        far = ours if asked is None else asked.type != "cpu"
        self.check(func, leaves, far)
        if waits(func, args, kwargs, leaves, far):
            self.waits[f"{func} in {place()}"] += 1
        plain_args, plain_kwargs = held(args), {name: held(value) for name, value in kwargs.items()}
        if asked is not None:
            plain_kwargs["device"] = torch.device("cpu")
        out = func(*plain_args, **plain_kwargs | ({"pin_memory": False} if "pin_memory" in kwargs else {}))
        if func.overloadpacket is aten._to_copy and out is plain_args[0]:
            out = out.clone()
        out = tree_map_only(Tensor, Far, out) if far else out
        return return_and_correct_aliasing(func, args, kwargs, out) if ours and far else out

    def check(self, func: Any, leaves: list[Any], far: bool) -> None:
        """Raise RuntimeError where tensors, or a tensor and a generator, of two devices meet."""
        near = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Far)]
        mixed = far and any(tensor.dim() for tensor in near) and func.overloadpacket not in BETWEEN
        if mixed and not indices_alone(func, leaves):
            raise RuntimeError(f"{func} of tensors on cuda:0 and the CPU in {place()}")
        if far and any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise RuntimeError(f"{func} on cuda:0 with a generator of the CPU in {place()}")


class FromNumbers(TorchFunctionMode):
    """Makes tensors of Python's numbers on the CPU and sends them on, as torch does, but without asking for a driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and asked is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(asked)
        return func(*args, **kwargs)


def flat(values: Iterable[Any]) -> Iterator[Any]:
    """What lies in lists and tuples of any depth; pytree's walk does the same in five times the time."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


def held(value: Any) -> Any:
    """A value, or lists and tuples of values, with the tensors that those of the accelerator hold."""
    if isinstance(value, list | tuple):
        return type(value)(map(held, value))
    return value.held if isinstance(value, Far) else value


def indices_alone(func: Any, leaves: list[Any]) -> bool:
    """Whether what lies on the CPU are indices, which torch takes to the device itself."""
    return func.overloadpacket is aten.index and isinstance(leaves[0], Far)


def waits(func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Any], far: bool) -> bool:
    """Whether the host waits in an operation whose result is ``far`` or not."""
    name, ours = func.overloadpacket, any(isinstance(leaf, Far) for leaf in leaves)
    if name in BETWEEN:
        source, target = (args[0], far) if name is aten._to_copy else (args[1], isinstance(args[0], Far))
        moves = isinstance(source, Far) != target
        return moves and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True))
    if not ours:
        return False
    if name in (aten.index, aten.index_put_, aten.index_put):
        chosen = [index for index in args[1] if index is not None]
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in chosen)
        filled = name is not aten.index and len(chosen) == 1 and args[2].numel() == 1
        return (masks and not filled) or not all(isinstance(index, Far) for index in chosen)
    if name is aten.repeat_interleave:
        return kwargs.get("output_size") is None and func._overloadname == "Tensor"
    return name in ASKS


def place() -> str:
    """The innermost line of the package that is being carried out."""
    for frame, line in traceback.walk_stack(None):
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{line}"
    return "a test"


class OnAccelerator(Fabric):
    """A Fabric of the CPU that says that its device is the accelerator."""

    @property
    def device(self) -> torch.device:
        return CUDA


@contextmanager
def accelerator() -> Iterator[Accelerator]:
    """Inside, this thread has a pretended accelerator, ``CUDA``; outside, torch is as it was."""
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    pinned = patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor)
    started = patch.object(torch.cuda, "_lazy_init", lambda: None)
    try:
        with pinned, started, FromNumbers(), Accelerator() as entered:
            yield entered
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwritten)
