"""The graph as an ONNX file, and such a file as a program that onnxruntime runs."""

import ast
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxscript  # noqa: F401  what torch converts with: better missed here than in the middle
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults
from torch.export import ExportedProgram

from trickbag.exports.graph import quiet
from trickbag.exports.parity import Program
from trickbag.ground.errors import TrickbagError

OPSET = 18
IMAGES, PROBABILITIES, SQUARES = "images", "probabilities", "squares"
NETWORK = "network/"
"""What the names of the network's nodes begin with; those before and after it are of other parts."""
FAILURES = (faults.Fail, faults.InvalidArgument, faults.InvalidGraph, faults.NotImplemented, faults.RuntimeException)
SCOPES = {"square": "square/", "model": NETWORK}
MOST = 2_000_000_000
"""Bytes that one ONNX file holds; the format wants larger weights in files of their own."""


def converted(program: ExportedProgram, described: Mapping[str, str]) -> onnx.ModelProto:
    """The program in ONNX, all in one: weights, and ``described`` in its metadata.

    Raises TrickbagError where torch's converter lacks an operator, and where one file cannot hold the weights.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in [*program.state_dict.values(), *program.constants.values()])
    if size > MOST:
        raise TrickbagError(f"the weights take {size / 1e9:.1f} GB and one ONNX file holds 2. Choose --to torch.")
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[IMAGES],
                output_names=[PROBABILITIES],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = textwrap.shorten(str(cause), 200, placeholder=" …").rstrip(".")
        what = f"{described['network']} with the tricks {described['tricks']}"
        raise TrickbagError(f"torch's converter to ONNX cannot write {what} ({reason}). Choose --to torch.") from error
    assert made is not None
    model = made.model_proto
    _tidied(model)
    onnx.helper.set_model_props(model, dict(described))
    onnx.checker.check_model(model, full_check=True)
    return model


def _tidied(model: onnx.ModelProto) -> None:
    """Give names that say something, and take out where on this machine the code lay of which each node comes."""
    graph = model.graph
    for node in graph.node:
        scopes: Sequence[str] = next(
            (ast.literal_eval(p.value) for p in node.metadata_props if p.key.endswith("name_scopes")), ()
        )
        node.name = SCOPES.get(scopes[1] if len(scopes) > 2 else "", "judging/") + node.name
    squares = next(node.output[0] for node in reversed(graph.node) if node.name.startswith("square/"))
    renamed = {squares: SQUARES}
    given = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    sizes = dict(zip(given, ("batch", "", "height", "width"), strict=True))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = renamed.get(value.name, value.name)
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in sizes:  # setting an empty one would clear a number
                dim.dim_param = sizes[dim.dim_param]
    for holder in [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del holder.metadata_props[:]
    model.producer_name = "trickbag"


def opened(path: Path, more: tuple[str, ...] = ()) -> onnxruntime.InferenceSession:
    """A file as onnxruntime runs it, on this machine's processor, with ``more`` of its values handed out."""
    model = onnx.load(path)
    for name in more:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except FAILURES as error:
        raise TrickbagError(f"onnxruntime cannot run {path.name}: {str(error)[:300]}") from error


def program(path: Path) -> Program:
    """A shipped file -> what it says of images, and the squares that its network sees."""
    session = opened(path, (SQUARES,))

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            said, squares = session.run([PROBABILITIES, SQUARES], {IMAGES: images})
        except FAILURES as error:
            raise RuntimeError(str(error)) from error
        return said, squares

    return run
