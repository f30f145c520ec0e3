"""ONNX models, run by onnxruntime on the CPU.

Names, datatypes and shapes are the file's own and are held strictly. Refuses outputs that are no tensors
(scikit-learn's exporter makes a list of dictionaries unless it is told not to), for no protocol can carry them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from worker_image.server.backends.base import blank, find_file, unreadable
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import Signature, Tensors, TensorSpec

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
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def load(directory: Path, threads: int) -> OnnxModel:
    file = find_file(directory, SUFFIXES, "onnx")
    return OnnxModel(file, _session(file, threads))


class OnnxModel:
    is_steady = True

    def __init__(self, file: Path, session: Any) -> None:
        self._session = session
        inputs = tuple(_spec(file, node) for node in session.get_inputs())
        outputs = tuple(_spec(file, node) for node in session.get_outputs())
        self.signature = Signature(
            platform="onnx_onnxruntime",
            inputs=inputs,
            outputs=outputs,
            default_outputs=tuple(spec.name for spec in outputs),
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        answers = self._session.run(list(outputs), inputs)
        return dict(zip(outputs, map(np.asarray, answers), strict=True))

    def warmup(self) -> Tensors | None:
        return {spec.name: blank(spec) for spec in self.signature.inputs}


def _session(file: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin for the next call would take the CPU time that the event loop needs to read it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as exc:
        raise _load_error(file, exc) from exc


def _load_error(file: Path, exc: Exception) -> ModelFailed:
    problem = one_line(exc)
    if "IR version" in problem or "opset" in problem.lower():
        reason = f"{file}: {problem}; onnxruntime here is {ort.__version__}; export it again with an older opset"
        return ModelFailed("VERSION_SKEW", reason)
    said = f"cannot be read as ONNX ({file.stat().st_size} bytes, {problem})"
    return unreadable(file, said, "it may be truncated or of another format; export it again")


def _spec(file: Path, node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        advice = "export it with tensors alone (skl2onnx: options={'zipmap': False})"
        raise unreadable(file, f"{node.name!r} is a {node.type}", advice)
    shape = tuple(length if isinstance(length, int) and length >= 0 else -1 for length in node.shape)
    return TensorSpec(node.name, datatype, shape)
