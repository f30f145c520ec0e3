"""A class of your own: `model.py` with a class `Model`. docs/models/python.md is the contract, with examples.

    class Model:
        inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        outputs = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
        warmup_example = {"text": ["good"]}

        def load(self, path): ...
        def predict(self, inputs): ...

Owns which functions such a class may have, what each means, and the sentences about a class that is not one. What is
async runs on a loop of its own (`coroutines.py`); an ASGI app is only found here and served by `site.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from worker_image.server.backends import author
from worker_image.server.backends.author import Function
from worker_image.server.backends.base import blank, unreadable
from worker_image.server.backends.coroutines import Coroutines
from worker_image.server.backends.steps import AsyncSteps, Steps, SyncSteps
from worker_image.server.errors import ModelFailed, bad_request
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensors

FILE = "model.py"
CLASS = "Model"
APP = "app"
# Functions of the class, and what a request asks for to reach each. One of these is enough.
VERBS = {"predict": "predict", "predict_batch": "batch", "explain": "explain", "predict_stream": "stream"}
_ADVICE = f"define `class {CLASS}` with load(path) and predict(inputs)"


def load(directory: Path, threads: int) -> PythonModel:  # noqa: ARG001 - model code reads the environment
    file = directory / FILE
    if not file.is_file():
        reason = f"{directory}: holds no {FILE}; the python backend loads its class {CLASS}; add the file"
        raise ModelFailed("ARTIFACT_MISSING", reason)
    module = author.read(file)
    coroutines = Coroutines()
    model = _made(file, module)
    functions = _functions(file, model, coroutines)
    if model is not None:
        loader = Function(file, f"{CLASS}.load", model.load, ("path",), coroutines)
        author.with_reasons(file, lambda: loader(directory))
    app = _app(file, model, module)
    if not functions and app is None:
        raise unreadable(file, f"class {CLASS} has no predict()", _ADVICE)
    return PythonModel(file, model, functions, app, coroutines)


class PythonModel:
    """`functions` by their verbs. `app` is the author's ASGI app, None when there is none."""

    is_steady = False

    def __init__(
        self, file: Path, model: Any, functions: dict[str, Function], app: Any, coroutines: Coroutines
    ) -> None:
        self._model = model
        self._functions = functions
        self._coroutines = coroutines
        self.app = app
        self.is_async = any(functions[verb].is_async for verb in ("predict", "batch") if verb in functions)
        self.max_streams = _max_streams(file, model)
        inputs = author.specs(f"{FILE}: {CLASS}.inputs", getattr(model, "inputs", ()))
        outputs = author.specs(f"{FILE}: {CLASS}.outputs", getattr(model, "outputs", ()))
        self._outputs = tuple(spec.name for spec in outputs)
        self._bf16 = frozenset(spec.name for spec in outputs if spec.datatype == "BF16")
        self.signature = Signature(
            platform="python",
            inputs=inputs,
            outputs=outputs,
            default_outputs=self._outputs,
            takes_parameters=any("parameters" in functions[v].named for v in ("predict", "batch") if v in functions),
            joins_rows="batch" not in functions,
            verbs=frozenset([*functions, *self._more()]),
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        return self.predict_with(inputs, outputs, NO_PARAMETERS)

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        predict = self._functions.get("predict")
        if predict is not None:
            return self._selected(predict, predict(inputs, parameters=dict(parameters)), outputs)
        if "batch" not in self._functions:
            raise bad_request(f"this model has no predict(); it answers {self._other_ways()}; ask so")
        return self.predict_many([inputs], outputs, parameters)[0]

    def predict_many(self, inputs: list[Tensors], outputs: tuple[str, ...], parameters: Parameters) -> list[Tensors]:
        """One answer for each, whose rows are not joined."""
        batch = self._functions["batch"]
        answers = batch(inputs, parameters=dict(parameters))
        if not isinstance(answers, (list, tuple)):
            kind = type(answers).__name__
            raise TypeError(f"{batch.where}() returned a {kind}; it returns a list with one answer for each request")
        if len(answers) != len(inputs):
            raise TypeError(f"{batch.where}() returned {len(answers)} answers for {len(inputs)} requests")
        return [self._selected(batch, each, outputs) for each in answers]

    def explain(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        explain = self._functions["explain"]
        explained = author.answer(explain.where, explain(inputs, parameters=dict(parameters)), (), self._bf16)
        return {name: tensor for name, tensor in explained.items() if not outputs or name in outputs}

    def open_stream(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Steps:
        """An answer has those of `outputs` that it happens to have: one may be of another kind than the next."""
        stream = self._functions["stream"]

        def convert(value: Any) -> Tensors:
            named = author.answer(stream.where, value, self._outputs, self._bf16).items()
            # A word alone is one row.
            return {name: each.reshape(each.shape or 1) for name, each in named if not outputs or name in outputs}

        answers = stream(inputs, parameters=dict(parameters))
        if isinstance(answers, AsyncIterator):
            return AsyncSteps(answers, convert, self._coroutines)
        if isinstance(answers, Iterator):
            return SyncSteps(answers, convert)
        raise TypeError(f"{stream.where}() returned a {type(answers).__name__}; it is a generator: `yield` each answer")

    def warmup(self) -> Tensors | None:
        example = getattr(self._model, "warmup_example", None)
        inputs = self.signature.inputs
        if example is not None:
            return author.example(example, inputs)
        return {spec.name: blank(spec) for spec in inputs} if inputs else None

    def unload(self) -> None:
        done = self._model.unload()
        if inspect.iscoroutine(done):
            self._coroutines.run(done)

    def _selected(self, function: Function, value: Any, outputs: tuple[str, ...]) -> Tensors:
        named = author.answer(function.where, value, self._outputs, self._bf16)
        if missing := [name for name in outputs if name not in named]:
            said = f"{function.where}() returned {sorted(named)}, without the output {missing[0]!r}"
            # A declared output that is not there is the model's fault; a name that nobody declared is the caller's.
            raise RuntimeError(said) if missing[0] in self._outputs else ValueError(said)
        return {name: named[name] for name in outputs} if outputs else named

    def _more(self) -> list[str]:
        """The verbs that are no function of a request."""
        has_unload = getattr(self._model, "unload", None) is not None
        return [verb for verb, has in (("http", self.app is not None), ("unload", has_unload)) if has]

    def _other_ways(self) -> str:
        ways = {"stream": "/infer_stream", "explain": "/explain", "http": "its own paths below /models/"}
        return " and ".join(way for verb, way in ways.items() if verb in self.signature.verbs)


def _made(file: Path, module: ModuleType) -> Any:
    """The author's object; None where an app is all there is."""
    found = getattr(module, CLASS, None)
    if found is None and hasattr(module, APP):
        return None
    if not isinstance(found, type):
        raise unreadable(file, f"has no class {CLASS}", _ADVICE)
    if not hasattr(found, "load"):
        raise unreadable(file, f"class {CLASS} has no load()", _ADVICE)
    return found()


def _functions(file: Path, model: Any, coroutines: Coroutines) -> dict[str, Function]:
    functions = {}
    for name, verb in VERBS.items():
        if (method := getattr(model, name, None)) is None:
            continue
        where = f"{CLASS}.{name}"
        first = "list_of_inputs" if verb == "batch" else "inputs"
        functions[verb] = Function(file, where, method, (first, "parameters"), coroutines)
        if verb != "stream":
            author.refuse_yield(file, where, method)
    return functions


def _app(file: Path, model: Any, module: ModuleType) -> Any:
    """`Model.app` comes first: `load` may have made it."""
    app = getattr(model, APP, None)
    where = f"{CLASS}.{APP}" if app is not None else APP
    app = getattr(module, APP, None) if app is None else app
    if app is not None and not callable(app):
        advice = "it is an ASGI application, such as FastAPI(); make it one, or give it another name"
        raise unreadable(file, f"{where} is a {type(app).__name__}", advice)
    return app


def _max_streams(file: Path, model: Any) -> int | None:
    most = getattr(model, "max_streams", None)
    if most is None or (isinstance(most, int) and most >= 1):
        return most
    raise unreadable(file, f"{CLASS}.max_streams is {most!r}", "it is how many streams may run at one time, 1 or more")
