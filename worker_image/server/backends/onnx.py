"""ONNX models, run by onnxruntime on the CPU.

Names, datatypes and shapes are the file's own and are held strictly. Refuses inputs and outputs that are no tensors
(scikit-learn's exporter makes a list of dictionaries unless it is told not to), for no protocol can carry them.
Tensors go in and out by `run`: binding them to memory of ours took longer wherever it was measured
(docs/decisions/0022), and serves BF16 alone, of which numpy knows nothing.
"""

from __future__ import annotations

import ctypes
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from worker_image.server.backends.base import blank, find_file, unreadable
from worker_image.server.bfloat16 import BF16, narrow
from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import Signature, Tensor, Tensors, TensorSpec

SUFFIXES = (".onnx", ".ort")
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ONNX_BFLOAT16 = 16
# What the exporter of TensorFlow calls an axis that has no name: each has another number.
_NAMELESS_AXIS = "unk__"
_NUMBER = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
# A file, and the function in it with its arguments.
_SOURCE = re.compile(r"(?:Load model from \S+ failed:)?/onnxruntime_src/\S+:\d+ .*\) ")
_EXTERNAL = re.compile(r"External (?:data|initializer).*", re.DOTALL)


def load(directory: Path, threads: int) -> OnnxModel:
    file = find_file(directory, SUFFIXES, "onnx")
    return OnnxModel(file, _session(file, threads))


class OnnxModel:
    is_steady = True

    def __init__(self, file: Path, session: Any) -> None:
        self._session = session
        nodes = [*session.get_inputs(), *session.get_outputs()]
        inputs = tuple(_spec(file, node) for node in session.get_inputs())
        outputs = tuple(_spec(file, node) for node in session.get_outputs())
        self._needs_binding = any(spec.datatype == "BF16" for spec in (*inputs, *outputs))
        self.signature = Signature(
            platform="onnx_onnxruntime",
            inputs=inputs,
            outputs=outputs,
            default_outputs=tuple(spec.name for spec in outputs),
            joins_rows=_joins_rows(session),
            facts=tuple((f"axes.{node.name}", _axes(node)) for node in nodes if _has_named_axis(node)),
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        try:
            if self._needs_binding:
                return self._bound(inputs, outputs)
            answers = self._session.run(list(outputs), inputs)
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument as exc:
            raise ValueError(_said(exc)) from exc
        return dict(zip(outputs, map(np.asarray, answers), strict=True))

    def warmup(self) -> Tensors | None:
        return {spec.name: blank(spec) for spec in self.signature.inputs}

    def _bound(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        binding = self._session.io_binding()
        for spec in self.signature.inputs:
            binding.bind_ortvalue_input(spec.name, _ort_value(inputs[spec.name], is_bf16=spec.datatype == "BF16"))
        for name in outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        return dict(zip(outputs, map(_tensor, binding.get_outputs()), strict=True))


def _ort_value(tensor: Tensor, *, is_bf16: bool) -> Any:
    if not is_bf16:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor))
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(narrow(tensor).view(np.uint16), _ONNX_BFLOAT16)


def _tensor(value: Any) -> Tensor:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    shape = value.shape()
    bits = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    # The memory is onnxruntime's, which takes it back with `value`.
    owned: Tensor = np.array(bits, np.uint16)
    return owned.view(BF16).reshape(shape)


def _joins_rows(session: Any) -> bool:
    """Whether the first axis is a batch, as far as the file says: one name at all inputs, and no output of one row."""
    firsts = [node.shape[0] for node in session.get_inputs() if node.shape]
    named = {axis for axis in firsts if isinstance(axis, str) and not axis.startswith(_NAMELESS_AXIS)}
    is_fixed = any(not node.shape or isinstance(node.shape[0], int) for node in session.get_outputs())
    return len(named) <= 1 and not is_fixed


def _has_named_axis(node: Any) -> bool:
    return any(isinstance(axis, str) and not axis.startswith(_NAMELESS_AXIS) for axis in node.shape)


def _axes(node: Any) -> str:
    return f"[{', '.join('?' if axis is None else str(axis) for axis in node.shape)}]"


def _session(file: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Errors are raised, and told by us.
    options.log_severity_level = 4
    # Threads that spin for the next call would take the CPU time that the event loop needs to read it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as exc:
        raise _load_error(file, exc) from exc


def _load_error(file: Path, exc: Exception) -> ModelFailed:
    problem = _said(exc)
    if "IR version" in problem or "opset" in problem.lower():
        reason = f"{file}: {problem}; onnxruntime here is {ort.__version__}; export it again with an older opset"
        return ModelFailed("VERSION_SKEW", reason)
    if external := _EXTERNAL.search(problem):
        advice = "put that file beside it, whole, and name the folder as `source`"
        return unreadable(file, f"has weights in a file of their own, which cannot be read ({external[0]})", advice)
    if "is not a registered function/op" in problem:
        advice = "export it with ONNX's own operators, or run it with the python backend"
        return unreadable(file, f"uses an operator that onnxruntime has not ({problem})", advice)
    said = f"cannot be read as ONNX ({file.stat().st_size} bytes, {problem})"
    return unreadable(file, said, "it may be truncated or of another format; export it again")


def _spec(file: Path, node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise unreadable(file, f"{node.name!r} is a {node.type}", _advice(node.type))
    shape = tuple(length if isinstance(length, int) and length >= 0 else -1 for length in node.shape)
    return TensorSpec(node.name, datatype, shape)


def _advice(kind: str) -> str:
    if "map(" in kind:
        return "export it with tensors alone (skl2onnx: options={'zipmap': False})"
    if kind.startswith("tensor("):
        return "no protocol has this type; export it with a Cast to another one"
    return "no protocol carries more than tensors; export it with tensors alone"


def _said(exc: Exception, limit: int = 300) -> str:
    """What onnxruntime says, without the number that it begins with and the place of its source."""
    return _SOURCE.sub("", _NUMBER.sub("", " ".join(str(exc).split())))[:limit]
