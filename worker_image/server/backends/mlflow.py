"""MLflow models: a folder with an `MLmodel` file, loaded by its pyfunc flavour with the packages that it asked for.

Owns the way from tensors to what the model was logged with (a DataFrame, an array, arrays by name) and from whatever it
answers back to tensors. The signature becomes the metadata (`mlflow_schema.py`), its params those of a request. Loading
such a folder runs the code and the pickles in it: the container is what holds them.
"""

from __future__ import annotations

import os
import pickle

# Before the import, which reads them.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")

import warnings
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from worker_image.server import log
from worker_image.server.backends import mlflow_schema as schemas
from worker_image.server.backends.base import blank, missing_module, unreadable
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Signature, Tensor, Tensors

FILE = "MLmodel"
FLAVOUR = "python_function"
UNNAMED_OUTPUT = "predict"
_LOG_AGAIN = "log the model again, or fetch its whole folder"


def load(directory: Path, threads: int) -> MlflowModel:  # noqa: ARG001 - the framework below reads the environment
    metadata = _metadata(directory / FILE)
    flavours = [name for name in metadata.flavors if name != FLAVOUR]
    if FLAVOUR not in metadata.flavors:
        problem = f"has no flavour {FLAVOUR}, but {', '.join(flavours) or 'none'}"
        raise unreadable(directory / FILE, problem, "log it with a flavour that mlflow.pyfunc can load")
    warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
    model = _model(directory)
    example = _example(metadata, directory)
    written = metadata.mlflow_version or "unknown"
    log.event("mlflow model read", flavours=flavours, written_by=written, mlflow=mlflow.__version__)
    return MlflowModel(model, flavours[0] if flavours else "pyfunc", example)


class MlflowModel:
    is_steady = False

    def __init__(self, model: Any, flavour: str, example: Any) -> None:
        self._model = model
        self._example = example
        said = model.metadata.signature
        self._inputs = said.inputs.to_dict() if said and said.inputs else []
        self._outputs = said.outputs.to_dict() if said and said.outputs else []
        self._parameters = [each.name for each in said.params] if said and said.params else []
        inputs = schemas.specs(self._inputs)
        is_unnamed = schemas.is_tensors(self._inputs) and self._inputs[0].get("name") is None
        self.signature = Signature(
            platform=f"mlflow_{flavour}",
            inputs=inputs,
            outputs=(),
            matrix=inputs[0] if is_unnamed else schemas.matrix(self._inputs),
            takes_parameters=bool(self._parameters),
            optional=schemas.specs(self._inputs, required=False),
            facts=(("flavour", flavour),),
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        return self.predict_with(inputs, outputs, NO_PARAMETERS)

    def predict_with(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        for name in parameters:
            if name not in self._parameters:
                known = ", ".join(map(repr, self._parameters))
                raise ValueError(f"parameter {name!r} is not one of the model's; it takes {known}")
        answer = self._named(self._predict(self._data(inputs), dict(parameters)))
        if missing := [name for name in outputs if name not in answer]:
            raise ValueError(f"the model answered {', '.join(map(repr, answer))}, without the output {missing[0]!r}")
        return {name: answer[name] for name in outputs or answer}

    def warmup(self) -> Tensors | None:
        if self._example is not None:
            return _tensors(self._example)
        specs = self.signature.inputs
        if not specs or any(spec.datatype == "BYTES" for spec in specs):
            return None  # which strings it knows is the author's to say
        return {spec.name: blank(spec) for spec in specs}

    def _predict(self, data: Any, parameters: dict[str, Any]) -> Any:
        try:
            return self._model.predict(data, params=parameters) if self._parameters else self._model.predict(data)
        except MlflowException as exc:
            if exc.get_http_status_code() == 400:
                raise ValueError(exc.message) from exc
            raise

    def _data(self, inputs: Tensors) -> Any:
        """In the form in which the model was logged."""
        if not self._inputs:
            return _guessed(inputs)
        if schemas.is_tensors(self._inputs):
            is_named = self._inputs[0].get("name") is not None
            return dict(inputs) if is_named else next(iter(inputs.values()))
        names = [schemas.name_of(column, place) for place, column in enumerate(self._inputs)]
        if len(inputs) == 1 and (grid := next(iter(inputs.values()))).ndim == 2:
            inputs = dict(zip(names, grid.T, strict=True))
        columns = {
            name: schemas.cast(column, inputs[name])
            for name, column in zip(names, self._inputs, strict=True)
            if name in inputs
        }
        return pd.DataFrame(columns)

    def _named(self, answer: Any) -> Tensors:
        if isinstance(answer, list) and answer and isinstance(answer[0], dict):
            answer = pd.DataFrame(answer)
        if isinstance(answer, pd.DataFrame):
            return {str(name): _column(answer[name]) for name in answer}
        if isinstance(answer, pd.Series):
            return {self._only_name(answer.name): _column(answer)}
        if isinstance(answer, dict):
            return {str(name): schemas.as_tensor(value) for name, value in answer.items()}
        if hasattr(answer, "toarray"):  # a sparse matrix
            answer = answer.toarray()
        values = schemas.as_tensor(answer)
        return {self._only_name(None): values if values.ndim else values.reshape(1)}

    def _only_name(self, name: Any) -> str:
        if name is not None:
            return str(name)
        said = [column.get("name") for column in self._outputs]
        return str(said[0]) if len(said) == 1 and said[0] else UNNAMED_OUTPUT


def _metadata(file: Path) -> Any:
    if not file.is_file():
        names = ", ".join(sorted(entry.name for entry in file.parent.iterdir())[:8]) if file.parent.is_dir() else ""
        wanted = f"the mlflow backend reads a folder with a file {FILE}"
        raise ModelFailed("ARTIFACT_MISSING", f"{file.parent}: holds {names or 'nothing'}; {wanted}; {_LOG_AGAIN}")
    try:
        return mlflow.models.Model.load(str(file))
    except Exception as exc:
        raise unreadable(file, f"cannot be read by MLflow {mlflow.__version__} ({one_line(exc)})", _LOG_AGAIN) from exc


def _model(directory: Path) -> Any:
    try:
        return mlflow.pyfunc.load_model(str(directory))
    except MemoryError:
        raise
    except ModuleNotFoundError as exc:
        raise missing_module(directory, exc) from exc
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as exc:
        raise unreadable(directory, f"is not whole ({one_line(exc)})", _LOG_AGAIN) from exc


def _example(metadata: Any, directory: Path) -> Any:
    """The example that the model was logged with; a broken one is no reason not to serve the model."""
    try:
        return metadata.load_input_example(str(directory))
    except Exception as exc:
        log.event("input example not read", level="warning", reason=one_line(exc))
        return None


def _tensors(data: Any) -> Tensors | None:
    if isinstance(data, pd.DataFrame):
        return {str(name): _column(data[name]) for name in data}
    if isinstance(data, dict):
        return {str(name): schemas.as_tensor(value) for name, value in data.items()}
    if isinstance(data, np.ndarray):
        return {schemas.UNNAMED_TENSOR: data}
    return None


def _column(series: Any) -> Tensor:
    is_text = isinstance(series.dtype, (pd.StringDtype, pd.CategoricalDtype))
    return schemas.as_tensor(series.to_numpy(dtype=object) if is_text else series.to_numpy())


def _guessed(inputs: Tensors) -> Any:
    """A model without a signature: one grid goes as it is, columns as a DataFrame, other arrays by name."""
    first = next(iter(inputs.values()))
    if len(inputs) == 1 and first.ndim > 1:
        return first
    return pd.DataFrame(inputs) if all(each.ndim == 1 for each in inputs.values()) else dict(inputs)
