"""Code that a model's author wrote: reading a file of it, calling its functions, and what they return as tensors.

Owns every sentence about such code that is wrong: a file that is no Python, a function that cannot be called as it will
be, an answer that is no array. `python.py` and `pipeline.py` say which functions there are and when each is called.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from worker_image.server.backends.base import missing_module, unreadable
from worker_image.server.backends.coroutines import Coroutines
from worker_image.server.bfloat16 import narrow
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import NUMPY_TYPES, Tensor, Tensors, TensorSpec

UNNAMED_OUTPUT = "output"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def read(file: Path) -> ModuleType:
    """The module that `file` is, under its own name, so that what lies beside it may import it."""
    # Beside it may lie modules of its author, which it imports by name.
    if (directory := str(file.parent)) not in sys.path:
        sys.path.insert(0, directory)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    with_reasons(file, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def with_reasons(file: Path, run: Callable[[], Any]) -> Any:
    """What `run`, which is code of `file`, gives; two of its failures are told in words."""
    try:
        return run()
    except ModuleNotFoundError as exc:
        raise missing_module(file, exc) from exc
    except SyntaxError as exc:
        place = f"{exc.filename}:{exc.lineno}"
        raise unreadable(file, f"is not Python ({place}: {exc.msg})", "correct the line") from exc


class Function:
    """One function of the author's. `where` is its name in sentences, `takes` the names of its arguments: the first is
    always given, each of the others if the function names it. One that is `async def` is awaited.
    """

    def __init__(
        self, file: Path, where: str, function: Any, takes: tuple[str, ...], coroutines: Coroutines | None = None
    ) -> None:
        self.where = where
        self._function = function
        self._coroutines = coroutines
        self.is_async = inspect.iscoroutinefunction(function)
        _check_callable(file, where, function, takes)
        self.named = _names(file, where, function, takes)
        if coroutines is None and (self.is_async or inspect.isasyncgenfunction(function)):
            advice = "it stands between the request and the model, which waits for it; write it with def"
            raise unreadable(file, f"{where}() is `async def`", advice)

    def __call__(self, first: Any, **others: Any) -> Any:
        answer = self._function(first, **{name: value for name, value in others.items() if name in self.named})
        # A decorator may hide that a function is async, so the answer decides.
        return self._coroutines.run(answer) if self._coroutines and inspect.iscoroutine(answer) else answer


def refuse_yield(file: Path, where: str, function: Any) -> None:
    """A generator that is called like a function would answer with itself."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        advice = "return the whole answer, or name it predict_stream to give one answer after the other"
        raise unreadable(file, f"{where}() yields", advice)


def specs(where: str, declared: Any) -> tuple[TensorSpec, ...]:
    """`inputs` or `outputs` as the author declared them."""
    try:
        return tuple(_spec(entry) for entry in declared)
    except (KeyError, TypeError, ValueError) as exc:
        form = '[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]'
        reason = f"{where}: {declared!r} ({one_line(exc)}); it has the form {form}; correct it"
        raise ModelFailed("ARTIFACT_UNREADABLE", reason) from exc


def example(values: Any, inputs: Iterable[TensorSpec]) -> Tensors:
    """`warmup_example` as tensors, of the datatypes that are declared for them."""
    types = {spec.name: NUMPY_TYPES[spec.datatype] for spec in inputs}
    return {str(name): _example(value, types.get(name)) for name, value in dict(values).items()}


def answer(where: str, value: Any, names: tuple[str, ...], bf16: frozenset[str] = frozenset()) -> Tensors:
    """What a function returned: {name: array}, or one array that gets the first of `names`. Those in `bf16` are
    rounded to it.
    """
    if not isinstance(value, dict):
        value = {names[0] if names else UNNAMED_OUTPUT: value}
    return {str(name): _array(where, tensor, is_bf16=name in bf16) for name, tensor in value.items()}


def _check_callable(file: Path, where: str, function: Any, takes: tuple[str, ...]) -> None:
    if not callable(function):
        raise unreadable(file, f"{where} is a {type(function).__name__}", f"define it as {_forms(where, takes)}")


def _names(file: Path, where: str, function: Any, takes: tuple[str, ...]) -> frozenset[str]:
    """Which of the arguments beyond the first it has. By name, so that an optional argument of the author's own never
    gets what clients send.
    """
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except ValueError:
        return frozenset()  # a callable of some extension module, which says nothing of its arguments
    named = frozenset(each.name for each in arguments if each.kind in _BY_NAME and each.name in takes[1:])
    form = f"it is called as {_forms(where, takes)}; name its arguments so"
    others = [each for each in arguments if each.name not in named]
    needed = [each.name for each in others if each.default is each.empty and each.kind in (*_POSITIONAL, *_BY_NAME)]
    if len(needed) > 1:
        raise unreadable(file, f"{where}() needs {', '.join(map(repr, needed))}", form)
    if not any(each.kind in (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL) for each in others):
        raise unreadable(file, f"{where}() takes no {takes[0]}", form)
    return named


def _forms(where: str, takes: tuple[str, ...]) -> str:
    name = where.rpartition(".")[2]
    return " or ".join(f"{name}({', '.join(takes[:count])})" for count in range(1, len(takes) + 1))


def _spec(entry: dict[str, Any]) -> TensorSpec:
    if entry["datatype"] not in NUMPY_TYPES:
        raise ValueError(f"datatype {entry['datatype']!r} is not one of {', '.join(NUMPY_TYPES)}")
    labels = tuple(str(label) for label in entry.get("labels", ()))
    return TensorSpec(str(entry["name"]), entry["datatype"], tuple(int(each) for each in entry["shape"]), labels=labels)


def _example(values: Any, dtype: np.dtype[Any] | None) -> Tensor:
    tensor = np.asarray(values, dtype=dtype)
    return tensor.astype(object) if tensor.dtype.kind in "US" else tensor


def _array(where: str, value: Any, *, is_bf16: bool) -> Tensor:
    try:
        tensor = np.asarray(value)
    except ValueError as exc:  # which would say that the caller is at fault
        raise TypeError(f"{where}() returned rows that differ in length ({one_line(exc)})") from exc
    # The second is the type of ml_dtypes, which JAX and others bring: it knows how to become numbers.
    if (is_bf16 and tensor.dtype.kind == "f") or tensor.dtype.name == "bfloat16":
        return narrow(tensor)
    if tensor.dtype.kind == "O" and not all(isinstance(item, (str, bytes)) for item in tensor.flat):
        raise TypeError(f"{where}() returned a {type(value).__name__} that is no array of numbers or strings")
    return tensor
