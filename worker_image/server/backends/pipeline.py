"""Functions around any backend's model: `pipeline.py` beside the model's file. docs/models/python.md has an example.

    def preprocess(inputs): ...             # what clients send -> what the model takes
    def postprocess(outputs, inputs): ...   # what the model gave, and what was sent -> what clients get

Owns the reading of that file and the model that it makes of another one. Rows stay rows: both functions get those of
several requests at once, and what comes out is checked like any model's answer. A `pipeline.py` with neither function
at its top is somebody's own module and is left alone, unread: repositories of models have files of that name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from worker_image.server import log
from worker_image.server.backends import author
from worker_image.server.backends.author import Function
from worker_image.server.backends.base import Custom, Model, Parametrised, blank, unreadable
from worker_image.server.errors import RequestError, last_line_of, one_line
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensors, TensorSpec, fit

PREPROCESS = "preprocess"
POSTPROCESS = "postprocess"
_ONE_OF_THEM = frozenset({PREPROCESS, POSTPROCESS})


def is_pipeline(file: Path) -> bool:
    return file.is_file() and bool(_top_level_names(file) & _ONE_OF_THEM)


def wrap(model: Model, file: Path) -> Model:
    """`model` with the functions of `file` around it; `model` itself when the file has none."""
    if not is_pipeline(file):
        reason = f"has neither {PREPROCESS}() nor {POSTPROCESS}()"
        log.event("pipeline.py left alone", reason=reason, file=str(file))
        return model
    if more := model.signature.verbs - {"predict", "unload"}:
        problem = f"goes around predict() alone, and the model has more ({', '.join(sorted(more))})"
        raise unreadable(file, problem, "do in model.py what is to happen before and after, and remove the file")
    module = author.read(file)
    if loader := getattr(module, "load", None):
        author.with_reasons(file, lambda: Function(file, "load", loader, ("path",))(file.parent))
    return PipelineModel(model, module, file)


class PipelineModel:
    is_steady = False

    def __init__(self, model: Model, module: ModuleType, file: Path) -> None:
        self._model = model
        self._module = module
        self._file = file
        self._before = _function(file, module, PREPROCESS, ("inputs", "parameters"))
        self._after = _function(file, module, POSTPROCESS, ("outputs", "inputs", "parameters"))
        self._model_outputs = _model_outputs(file, module, model.signature)
        self.signature = self._signature()
        self._outputs = tuple(spec.name for spec in self.signature.outputs) if self._after else ()
        self._bf16 = frozenset(spec.name for spec in self.signature.outputs if spec.datatype == "BF16")

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        return self.predict_with(inputs, outputs, NO_PARAMETERS)

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        given = inputs if self._before is None else self._prepared(self._before, inputs, parameters)
        if self._after is None:
            return self._predicted(given, outputs, parameters)
        answer = self._predicted(given, self._model_outputs, parameters)
        return self._finished(self._after, answer, inputs, parameters, outputs)

    def warmup(self) -> Tensors | None:
        example = getattr(self._module, "warmup_example", None)
        if example is not None:
            return author.example(example, self.signature.inputs)
        if self._before is None:
            return self._model.warmup()
        return {spec.name: blank(spec) for spec in self.signature.inputs} or None

    def unload(self) -> None:
        cast(Custom, self._model).unload()

    def _prepared(self, before: Function, inputs: Tensors, parameters: Parameters) -> Tensors:
        with self._told(before):
            names = tuple(spec.name for spec in self._model.signature.inputs)
            made = author.answer(before.where, before(inputs, parameters=dict(parameters)), names)
        try:
            return fit(self._model.signature, made)
        except RequestError as exc:
            said = f"pipeline: {PREPROCESS}() gave what the model does not take: {exc.sentence}"
            raise RequestError("MODEL_FAILED", said) from exc

    def _predicted(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        if parameters and self._model.signature.takes_parameters:
            return cast(Parametrised, self._model).predict_with(inputs, outputs, parameters)
        return self._model.predict(inputs, outputs)

    def _finished(
        self, after: Function, answer: Tensors, inputs: Tensors, parameters: Parameters, outputs: tuple[str, ...]
    ) -> Tensors:
        with self._told(after):
            finished = after(answer, inputs=inputs, parameters=dict(parameters))
            named = author.answer(after.where, finished, self._outputs, self._bf16)
            if missing := [name for name in outputs if name not in named]:
                raise TypeError(f"{after.where}() returned {sorted(named)}, without the output {missing[0]!r}")
        return {name: named[name] for name in outputs} if outputs else named

    @contextmanager
    def _told(self, function: Function) -> Iterator[None]:
        """Says which function failed, and at which line: the model did not."""
        try:
            yield
        except ValueError as exc:
            sentence = f"pipeline: {function.where}() refused the input: {self._failure(exc)}; correct the input"
            raise RequestError("BAD_REQUEST", sentence) from exc
        except (Exception, SystemExit) as exc:
            sentence = f"pipeline: {function.where}() raised {self._failure(exc)}; the model's log has the details"
            raise RequestError("MODEL_FAILED", sentence) from exc

    def _failure(self, exc: BaseException) -> str:
        return one_line(exc) + last_line_of(exc, self._file.parent)

    def _signature(self) -> Signature:
        """Nothing is known of what the functions take and give but what their author declares."""
        of_model, file = self._model.signature, self._file.name
        inputs = author.specs(f"{file}: inputs", getattr(self._module, "inputs", ()))
        outputs = author.specs(f"{file}: outputs", getattr(self._module, "outputs", ()))
        is_same_input, is_same_output = self._before is None, self._after is None
        functions = [function for function in (self._before, self._after) if function]
        takes = of_model.takes_parameters or any("parameters" in function.named for function in functions)
        return Signature(
            platform=of_model.platform,
            inputs=of_model.inputs if is_same_input else inputs,
            outputs=of_model.outputs if is_same_output else outputs,
            default_outputs=of_model.default_outputs if is_same_output else _names_of(outputs),
            matrix=of_model.matrix if is_same_input else None,
            scores=of_model.scores if is_same_output else None,
            labels=of_model.labels if is_same_output else (),
            value=of_model.value if is_same_output else None,
            takes_parameters=takes,
            joins_rows=of_model.joins_rows,
            optional=of_model.optional if is_same_input else (),
            facts=of_model.facts,
            verbs=of_model.verbs,
        )


def _top_level_names(file: Path) -> set[str]:
    """Read without running it. A file that is no Python is told when it turns out to be ours: it is not known."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as exc:
        place = f"{exc.filename}:{exc.lineno}: {exc.msg}" if isinstance(exc, SyntaxError) else str(exc)
        raise unreadable(file, f"is not Python ({place})", "correct the line") from exc
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def _function(file: Path, module: ModuleType, name: str, takes: tuple[str, ...]) -> Function | None:
    found: Any = getattr(module, name, None)
    if found is None:
        return None
    author.refuse_yield(file, name, found)
    return Function(file, name, found, takes)


def _model_outputs(file: Path, module: ModuleType, signature: Signature) -> tuple[str, ...]:
    """What the model computes for `postprocess`."""
    wanted = getattr(module, "model_outputs", None)
    if wanted is None:
        return signature.default_outputs
    known = _names_of(signature.outputs)
    if isinstance(wanted, str) or not all(isinstance(name, str) and (name in known or not known) for name in wanted):
        advice = f"it is a list of the model's outputs, such as [{known[0]!r}]" if known else "it is a list of names"
        raise unreadable(file, f"model_outputs: {wanted!r}", f"{advice} ({', '.join(map(repr, known))})")
    return tuple(wanted)


def _names_of(specs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs)
