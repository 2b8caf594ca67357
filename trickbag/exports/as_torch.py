"""The graph as a file of ``torch.export``, and such a file as a program."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from trickbag.exports.graph import quiet
from trickbag.exports.parity import Program

DESCRIBED = "trickbag.json"


def save(program: ExportedProgram, described: Mapping[str, str], path: Path) -> None:
    """Write the program, and beside it in the file what is ``described``."""
    file = io.BytesIO()  # torch ends the process where its own writer meets a full disk
    with quiet():
        torch.export.save(program, file, extra_files={DESCRIBED: json.dumps(dict(described))})
    path.write_bytes(file.getbuffer())


class _Watched(Interpreter):
    """Keeps the squares, the last numbers that are rounded."""

    squares: Tensor

    def run_node(self, n: Node) -> Any:
        found = super().run_node(n)
        if n.target is torch.ops.aten.floor.default:
            self.squares = found
        return found


def program(path: Path) -> Program:
    """A shipped file -> what it says of images, and the squares that its network sees."""
    with quiet(), path.open("rb") as file:
        module = torch.export.load(file).module()
    watched = _Watched(module)

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            said = watched.run(torch.from_numpy(images))
        return said.numpy(), watched.squares.numpy()

    return run
