"""A class of your own: `model.py` with a class `Model`.

    class Model:
        inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        outputs = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
        warmup_example = {"text": ["good"]}

        def load(self, path): ...
        def predict(self, inputs): ...

`load` is called once with the directory of model.py; `predict` gets {name: numpy array} and returns one array, or
{name: array}. `predict(self, inputs, parameters)` is given the request's parameters too, {name: value}; only requests
of equal parameters are then predicted together. The three attributes are optional: `inputs` are checked and shown as
metadata, `outputs` name what `predict` returns, `warmup_example` is the first prediction. A -1 that leads a shape is
the batch: `predict` gets the rows of several requests at once and answers one row for each. BYTES are `str`, and
`bytes` where they are no UTF-8 or were sent as base64; BF16 are float32, and what is returned for an output declared
so is rounded to it. What is returned is sent from where it lies: do not write to it later. A `ValueError` says that
the input is wrong (400), anything else that the model is (500).
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

from worker_image.server.backends.base import blank, missing_module, unreadable
from worker_image.server.bfloat16 import narrow
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import (
    NO_PARAMETERS,
    NUMPY_TYPES,
    Parameters,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
)

FILE = "model.py"
CLASS = "Model"
UNNAMED_OUTPUT = "output"


def load(directory: Path, threads: int) -> PythonModel:  # noqa: ARG001 - model code reads the environment
    file = directory / FILE
    if not file.is_file():
        reason = f"{directory}: holds no {FILE}; the python backend loads its class {CLASS}; add the file"
        raise ModelFailed("ARTIFACT_MISSING", reason)
    model = _class(file)()
    takes_parameters = _takes_parameters(file, model.predict)
    _load_author(file, model, directory)
    return PythonModel(model, takes_parameters=takes_parameters)


class PythonModel:
    is_steady = False

    def __init__(self, model: Any, *, takes_parameters: bool = False) -> None:
        self._model = model
        inputs = _specs("inputs", getattr(model, "inputs", ()))
        outputs = _specs("outputs", getattr(model, "outputs", ()))
        self._outputs = tuple(spec.name for spec in outputs)
        self._bf16 = frozenset(spec.name for spec in outputs if spec.datatype == "BF16")
        self.signature = Signature(
            platform="python",
            inputs=inputs,
            outputs=outputs,
            default_outputs=self._outputs,
            takes_parameters=takes_parameters,
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        return self.predict_with(inputs, outputs, NO_PARAMETERS)

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        predict = self._model.predict
        takes = self.signature.takes_parameters
        answer = self._named(predict(inputs, parameters=dict(parameters)) if takes else predict(inputs))
        if missing := [name for name in outputs if name not in answer]:
            said = f"predict() returned {sorted(answer)}, without the output {missing[0]!r}"
            # A declared output that is not there is the model's fault; a name that nobody declared is the caller's.
            raise RuntimeError(said) if missing[0] in self._outputs else ValueError(said)
        return {name: answer[name] for name in outputs} if outputs else answer

    def warmup(self) -> Tensors | None:
        example = getattr(self._model, "warmup_example", None)
        types = {spec.name: NUMPY_TYPES[spec.datatype] for spec in self.signature.inputs}
        if example is not None:
            return {name: _example(values, types.get(name)) for name, values in dict(example).items()}
        if not types:
            return None
        return {spec.name: blank(spec) for spec in self.signature.inputs}

    def _named(self, answer: Any) -> Tensors:
        if not isinstance(answer, dict):
            answer = {self._outputs[0] if self._outputs else UNNAMED_OUTPUT: answer}
        return {str(name): _array(value, is_bf16=name in self._bf16) for name, value in answer.items()}


def _class(file: Path) -> Any:
    # Beside model.py may lie modules of its author, which it imports by name.
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location("model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as exc:
        raise missing_module(file, exc) from exc
    except SyntaxError as exc:
        place = f"{exc.filename}:{exc.lineno}"
        raise unreadable(file, f"is not Python ({place}: {exc.msg})", "correct the line") from exc
    found = getattr(module, CLASS, None)
    if not isinstance(found, type):
        raise unreadable(file, f"has no class {CLASS}", f"define `class {CLASS}` with load(path) and predict(inputs)")
    if missing := [name for name in ("load", "predict") if not callable(getattr(found, name, None))]:
        raise unreadable(file, f"class {CLASS} has no {missing[0]}()", "define load(path) and predict(inputs)")
    return found


def _takes_parameters(file: Path, predict: Any) -> bool:
    """By its name, so that an optional argument of the author's own never gets what clients send."""
    try:
        arguments = list(inspect.signature(predict).parameters.values())
    except ValueError:
        return False  # a callable of some extension module, which says nothing of its arguments
    if any(argument.name == "parameters" and argument.kind in _BY_NAME for argument in arguments):
        return True
    needed = [argument.name for argument in arguments if argument.default is argument.empty and argument.kind in _PLAIN]
    if len(needed) > 1:
        problem = f"{CLASS}.predict() needs {', '.join(map(repr, needed))}"
        raise unreadable(file, problem, "it is called as predict(inputs) or predict(inputs, parameters); name it so")
    return False


_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _load_author(file: Path, model: Any, directory: Path) -> None:
    try:
        model.load(directory)
    except ModuleNotFoundError as exc:
        raise missing_module(file, exc) from exc


def _specs(attribute: str, declared: Any) -> tuple[TensorSpec, ...]:
    try:
        return tuple(_spec(entry) for entry in declared)
    except (KeyError, TypeError, ValueError) as exc:
        form = '[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]'
        reason = f"{FILE}: {CLASS}.{attribute}: {declared!r} ({one_line(exc)}); it has the form {form}; correct it"
        raise ModelFailed("ARTIFACT_UNREADABLE", reason) from exc


def _spec(entry: dict[str, Any]) -> TensorSpec:
    if entry["datatype"] not in NUMPY_TYPES:
        raise ValueError(f"datatype {entry['datatype']!r} is not one of {', '.join(NUMPY_TYPES)}")
    labels = tuple(str(label) for label in entry.get("labels", ()))
    return TensorSpec(str(entry["name"]), entry["datatype"], tuple(int(each) for each in entry["shape"]), labels=labels)


def _example(values: Any, dtype: np.dtype[Any] | None) -> Tensor:
    tensor = np.asarray(values, dtype=dtype)
    return tensor.astype(object) if tensor.dtype.kind in "US" else tensor


def _array(value: Any, *, is_bf16: bool) -> Tensor:
    try:
        tensor = np.asarray(value)
    except ValueError as exc:
        # Of what `predict` raises itself a ValueError is the caller's fault; this is not.
        raise TypeError(f"predict() returned rows that differ in length ({one_line(exc)})") from exc
    # The second is the type of ml_dtypes, which JAX and others bring: it knows how to become numbers.
    if (is_bf16 and tensor.dtype.kind == "f") or tensor.dtype.name == "bfloat16":
        return narrow(tensor)
    if tensor.dtype.kind == "O" and not all(isinstance(item, (str, bytes)) for item in tensor.flat):
        raise TypeError(f"predict() returned a {type(value).__name__} that is no array of numbers or strings")
    return tensor
