"""Makes a model ready: imports its framework, loads its file, and predicts once.

Runs in the model's thread from `load`, which reports each phase as it begins. Every failure leaves as `ModelFailed`,
so that the process ends with the exit code and the sentence that docs/CONTRACTS.md promises. `lifecycle.py` decides
when and for how long.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from worker_image.server import declared, log, recorded
from worker_image.server.backends import deferred
from worker_image.server.backends.base import Custom, Model, Parametrised, blank
from worker_image.server.codecs import v2
from worker_image.server.errors import ModelFailed, RequestError, last_line_of, one_line
from worker_image.server.settings import Settings
from worker_image.server.tensors import (
    NO_PARAMETERS,
    Parameters,
    Signature,
    Tensors,
    TensorSpec,
    datatype_of,
    rows_of,
    with_roles,
)

if TYPE_CHECKING:
    from worker_image.server.backends.steps import Steps

# One file each in `backends/`.
BACKENDS = (
    "sklearn",
    "onnx",
    "lightgbm",
    "xgboost",
    "catboost",
    "pytorch",
    "transformers",
    "mlflow",
    "python",
)
# Their frameworks compute without the interpreter's lock and may be called by several threads at once: instances share
# one copy of the model. The others need a process for each.
RELEASES_GIL = frozenset(
    {
        "onnx",
        "lightgbm",
        "xgboost",
        "catboost",
        "pytorch",
    }
)
# They import scikit-learn, of which a prediction needs half.
IMPORTS_SKLEARN = frozenset({"sklearn"})
# Functions before and after any backend's model: see `backends/pipeline.py`.
PIPELINE_FILE = "pipeline.py"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model that has predicted once. `signature` names its outputs as that prediction showed them. Its calls raise
    `RequestError` alone, so that whoever waits for one has a sentence; `directory` is where the author's code is.
    """

    model: Model
    signature: Signature
    directory: Path | None = None

    def predict(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters = NO_PARAMETERS) -> Tensors:
        with _in_words(self.directory):
            if parameters:
                return cast(Parametrised, self.model).predict_with(inputs, outputs, parameters)
            return self.model.predict(inputs, outputs)

    def predict_many(self, inputs: list[Tensors], outputs: tuple[str, ...], parameters: Parameters) -> list[Tensors]:
        with _in_words(self.directory):
            return cast(Custom, self.model).predict_many(inputs, outputs, parameters)

    def explain(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        with _in_words(self.directory):
            return cast(Custom, self.model).explain(inputs, outputs, parameters)

    def open_stream(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Steps:
        with _in_words(self.directory):
            return cast(Custom, self.model).open_stream(inputs, outputs, parameters)

    def take_step(self, steps: Steps) -> Tensors | None:
        """The next answer of an open stream, None at its end."""
        with _in_words(self.directory):
            return steps.take()

    def unload(self) -> None:
        """Lets the model put away what it holds. Whatever it raises is logged: nobody waits for it any more."""
        try:
            cast(Custom, self.model).unload()
        except BaseException as exc:
            log.event("unload failed", level="error", reason=one_line(exc), stack=log.stack(exc))


@contextmanager
def _in_words(directory: Path | None) -> Iterator[None]:
    """Whatever the model raises leaves as `RequestError`."""
    try:
        yield
    except RequestError:
        raise
    except ValueError as exc:
        raise RequestError("BAD_REQUEST", f"the model refused the input: {one_line(exc)}; correct the input") from exc
    except MemoryError as exc:
        sentence = "the model ran out of memory; send fewer rows, or raise `resources.memory`"
        raise RequestError("MODEL_FAILED", sentence) from exc
    except BaseException as exc:
        sentence = f"the model raised {one_line(exc)}{last_line_of(exc, directory)}; its log has the details"
        raise RequestError("MODEL_FAILED", sentence) from exc


def load(settings: Settings, begin: Callable[[str], None]) -> Loaded:
    """`begin` is told "importing", "loading" and "warming"."""
    begin("importing")
    module = _import_backend(settings.backend)
    try:
        begin("loading")
        model: Model = module.load(settings.model_dir, settings.threads)
        if (settings.model_dir / PIPELINE_FILE).is_file():
            from worker_image.server.backends import pipeline

            model = pipeline.wrap(model, settings.model_dir / PIPELINE_FILE)
        begin("warming")
        return _with_roles(_settled(_warm(model, settings.model_dir), settings.tuning.outputs))
    except ModelFailed:
        raise
    except MemoryError as exc:
        reason = f"{settings.model_dir}: the model needs more memory than it may have; raise `resources.memory`"
        raise ModelFailed("OUT_OF_MEMORY", reason) from exc
    except BaseException as exc:
        where = last_line_of(exc, settings.model_dir)
        raise ModelFailed(
            "MODEL_RAISED", f"the model raised {one_line(exc)} while it was loaded{where}; correct the model"
        ) from exc


def _import_backend(name: str):  # type: ignore[no-untyped-def]  # a module: each backend is one
    if name not in BACKENDS:
        reason = f"MODELFLEET_BACKEND: {name!r}; it is one of {', '.join(BACKENDS)}; correct `backend`"
        raise ModelFailed("UNKNOWN_BACKEND", reason)
    if name in IMPORTS_SKLEARN:
        deferred.defer()
    try:
        return importlib.import_module(f"worker_image.server.backends.{name}")
    except (ImportError, OSError) as exc:
        reason = (
            f"backend {name!r}: cannot be imported here ({one_line(exc)}); {sys.executable} has no such framework; "
            f"use the {name} image, or `pip install modelfleet[{name}]`"
        )
        raise ModelFailed("UNKNOWN_BACKEND", reason) from exc


def _warm(model: Model, directory: Path) -> Loaded:
    by_author = declared.read(directory)
    signature = declared.apply(model.signature, by_author)
    if not signature.verbs & _WARMED:
        return Loaded(model, signature, directory)
    requests = [each.fitted(signature) for each in recorded.read(directory)]
    if not requests and (inputs := model.warmup() or _blank(by_author.inputs)) is not None:
        requests = [v2.Decoded(inputs, (), None)]
    if not requests:
        log.event("warm-up skipped", level="warning", reason=f"inputs are unknown; put a request into {recorded.FILE}")
        return Loaded(model, signature, directory)
    try:
        answers = [_predict(model, signature, request) for request in requests]
        outputs = _observed(signature, answers[0], rows_of(requests[0].inputs))
    except MemoryError:
        raise
    except BaseException as exc:
        where = last_line_of(exc, directory)
        said = f"warm-up: the model raised {one_line(exc)}{where}"
        reason = f"{said}; correct it, or put a request that it accepts into {recorded.FILE}"
        raise ModelFailed("MODEL_RAISED", reason) from exc
    default = signature.default_outputs or tuple(answers[0])
    return Loaded(model, dataclasses.replace(signature, outputs=outputs, default_outputs=default), directory)


# A model that does nothing but explain or serve HTTP has no first prediction.
_WARMED = frozenset({"predict", "batch", "stream"})


def _first_of_stream(model: Custom, request: v2.Decoded) -> Tensors:
    """All of it may take minutes, and shows no more."""
    steps = model.open_stream(request.inputs, (), v2.of_the_model(request.parameters))
    try:
        return steps.take() or {}
    finally:
        steps.close()


def _predict(model: Model, signature: Signature, request: v2.Decoded) -> Tensors:
    """Every output that is known, so that each of them is warm and shows its shape."""
    if not signature.verbs & {"predict", "batch"}:
        return _first_of_stream(cast(Custom, model), request)
    wanted = tuple(spec.name for spec in signature.outputs if not spec.lazy) or signature.default_outputs
    if signature.takes_parameters:
        return cast(Parametrised, model).predict_with(request.inputs, wanted, v2.of_the_model(request.parameters))
    return model.predict(request.inputs, wanted)


def _settled(loaded: Loaded, asked: tuple[str, ...]) -> Loaded:
    """`loaded` with the manifest's choice of outputs for clients that make none, and with a `value` only if that is one
    number for each row.
    """
    signature = loaded.signature
    shapes = {spec.name: spec.shape for spec in signature.outputs}
    for name in asked:
        if shapes and name not in shapes:
            known = ", ".join(repr(known) for known in shapes)
            raise ModelFailed("BAD_SETTINGS", f"outputs: {name!r}; the model gives {known}; correct `outputs`")
    value = signature.value if signature.value and shapes.get(signature.value) in ((-1,), (-1, 1)) else None
    default = asked or signature.default_outputs
    return dataclasses.replace(loaded, signature=dataclasses.replace(signature, value=value, default_outputs=default))


def _with_roles(loaded: Loaded) -> Loaded:
    for spec in loaded.signature.outputs:
        if spec.labels and (not spec.shape or spec.shape[-1] not in (-1, len(spec.labels))):
            said = f"outputs: {spec.name!r} has shape {list(spec.shape)} and {len(spec.labels)} labels"
            raise ModelFailed("ARTIFACT_UNREADABLE", f"{said}; a label names one of its columns; give one for each")
    return dataclasses.replace(loaded, signature=with_roles(loaded.signature))


def _blank(specs: tuple[TensorSpec, ...]) -> Tensors | None:
    return {spec.name: blank(spec) for spec in specs} or None


def _observed(signature: Signature, answer: Tensors, rows: int | None) -> tuple[TensorSpec, ...]:
    """What the outputs really are. An output that has as many rows as the inputs has a free first dimension."""
    specs = {spec.name: spec for spec in signature.outputs}
    for name, tensor in answer.items():
        shape = tensor.shape
        if shape and shape[0] == rows and signature.can_batch:
            shape = (-1, *shape[1:])
        declared = specs.get(name)
        if declared is not None and "batch" in signature.verbs:
            continue  # other requests' answers may have other shapes: the author's word stands
        if declared is None or len(declared.shape) != len(shape) or declared.datatype != datatype_of(tensor.dtype):
            labels = () if declared is None else declared.labels
            specs[name] = TensorSpec(name, datatype_of(tensor.dtype), shape, labels=labels)
        elif -1 in declared.shape[1:]:
            specs[name] = dataclasses.replace(declared, shape=(*shape[:1], *declared.shape[1:]))
        else:
            specs[name] = dataclasses.replace(declared, shape=shape)
    return tuple(specs.values())


def print_cause(failed: ModelFailed) -> None:
    """The stack of the author's own error, for the author; our own sentences need none."""
    if failed.code == "MODEL_RAISED" and failed.__cause__ is not None:
        traceback.print_exception(failed.__cause__)
