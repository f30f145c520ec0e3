"""CatBoost models in CatBoost's own binary format (`save_model("model.cbm")`): such a file runs no code.

Owns the reading of the file and what a model looks like from outside: one matrix of numbers, or columns by name (or by
number, where training had none) with categories and texts as they are. `predict` answers what CatBoost's own classes
answer: class labels for a classifier, values for a regressor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worker_image.server.backends.base import find_file, unreadable
from worker_image.server.backends.boosters import CONTRIBUTIONS, LEAF, PROBABILITIES, RAW, contributions_spec
from worker_image.server.backends.optional import hidden
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import NUMBERS, Signature, Tensor, Tensors, TensorSpec

# Without any pandas at all CatBoost 1.2 reads no input whatever.
with hidden("pandas", "DataFrame", "Series"):
    import catboost

SUFFIXES = (".cbm",)
_MAGIC = b"CBM1"
# A category is an integer or a text, and CatBoost takes 2 and "2" for the same one.
_CATEGORIES = frozenset(name for name in NUMBERS if "INT" in name) | {"BYTES"}
_KINDS = {PROBABILITIES: "Probability", RAW: "RawFormulaVal"}


def load(directory: Path, threads: int) -> CatboostModel:
    file = find_file(directory, SUFFIXES, "catboost")
    return CatboostModel(file, _model(file), threads)


class CatboostModel:
    is_steady = True

    def __init__(self, file: Path, model: Any, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._names = [str(name) for name in model.feature_names_]
        self._categorical = frozenset(model.get_cat_feature_indices())
        self._texts = frozenset(model.get_text_feature_indices())
        if model.get_embedding_feature_indices():
            problem = "has embedding features, of which one value is a list"
            raise unreadable(file, problem, "serve it with the python backend")
        self._is_named = self._names != [str(place) for place in range(len(self._names))]
        self.signature = self._signature()

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        rows = self._rows(inputs)
        try:
            return {name: self._output(name, rows) for name in outputs}
        except catboost.CatBoostError as exc:
            raise ValueError(one_line(exc)) from exc

    def warmup(self) -> Tensors | None:
        if self._has_columns:
            return {spec.name: np.zeros(1) if spec.datatype == "FP64" else _TEXT for spec in self.signature.inputs}
        return {"x": np.zeros((1, len(self._names)))}

    @property
    def _has_columns(self) -> bool:
        return self._is_named or bool(self._categorical | self._texts)

    def _rows(self, inputs: Tensors) -> Any:
        first = next(iter(inputs.values()))
        if first.ndim == 2:
            return first
        columns = [inputs[name] for name in self._names]
        if not self._categorical | self._texts:
            return np.column_stack(columns)
        rows = np.empty((len(first), len(columns)), dtype=object)
        for place, column in enumerate(columns):
            # As Python's own numbers: CatBoost takes no other for a category.
            rows[:, place] = column.tolist()
        return rows

    def _output(self, name: str, rows: Any) -> Tensor:
        if name == LEAF:
            return np.asarray(self._model.calc_leaf_indexes(self._pool(rows), thread_count=self._threads), np.int32)
        if name == CONTRIBUTIONS:
            values = self._model.get_feature_importance(self._pool(rows), type="ShapValues", thread_count=self._threads)
            return np.asarray(values)
        kind = {"prediction_type": _KINDS[name]} if name in _KINDS else {}
        answer = np.asarray(self._model.predict(rows, thread_count=self._threads, **kind))
        # One label of several classes comes as a column of its own.
        return answer.ravel() if name == "predict" and answer.ndim == 2 and answer.shape[1] == 1 else answer

    def _pool(self, rows: Any) -> Any:
        return catboost.Pool(
            rows, cat_features=sorted(self._categorical), text_features=sorted(self._texts), thread_count=1
        )

    def _signature(self) -> Signature:
        count = len(self._names)
        matrix = TensorSpec("x", "FP64", (-1, count), accepts=NUMBERS, missing=True)
        columns = tuple(self._column(place, name) for place, name in enumerate(self._names))
        labels = [str(label) for label in self._model.classes_]
        groups, outputs = _outputs(self._model, labels)
        is_single = groups == 1 and not labels
        return Signature(
            platform="catboost",
            inputs=columns if self._has_columns else (matrix,),
            outputs=(*outputs, contributions_spec(count, groups)),
            default_outputs=("predict",),
            matrix=None if self._categorical | self._texts else matrix,
            scores=PROBABILITIES if labels else None,
            labels=tuple(labels),
            value="predict" if is_single else None,
        )

    def _column(self, place: int, name: str) -> TensorSpec:
        if place in self._categorical:
            return TensorSpec(name, "BYTES", (-1,), accepts=_CATEGORIES)
        if place in self._texts:
            return TensorSpec(name, "BYTES", (-1,))
        return TensorSpec(name, "FP64", (-1,), accepts=NUMBERS, missing=True)


_TEXT = np.array([""], dtype=object)


def _outputs(model: Any, labels: list[str]) -> tuple[int, tuple[TensorSpec, ...]]:
    """With the numbers of one raw prediction: two classes have one."""
    groups = 1 if len(labels) == 2 else max(len(labels), 1)
    several = (-1,) if groups == 1 else (-1, groups)
    outputs = [TensorSpec("predict", "FP64", (-1,))]
    if labels:
        outputs.append(TensorSpec(PROBABILITIES, "FP64", (-1, len(labels))))
    outputs += [TensorSpec(RAW, "FP64", several), TensorSpec(LEAF, "INT32", (-1, model.tree_count_), lazy=True)]
    return groups, tuple(outputs)


def _model(file: Path) -> Any:
    with file.open("rb") as stream:
        start = stream.read(len(_MAGIC))
    advice = "it may be truncated or of another format; write it with save_model('model.cbm')"
    if start != _MAGIC:
        raise unreadable(file, f"is no CatBoost model ({file.stat().st_size} bytes)", advice)
    try:
        model = catboost.CatBoost().load_model(str(file))
        kind = catboost.CatBoostClassifier if len(model.classes_) else catboost.CatBoostRegressor
        return kind().load_model(str(file))
    except catboost.CatBoostError as exc:
        raise _load_error(file, exc, advice) from exc


def _load_error(file: Path, exc: Exception, advice: str) -> ModelFailed:
    said = one_line(exc)
    if "nsupported" in said:
        reason = (
            f"{file}: CatBoost {catboost.__version__} does not read it ({said}); save it with this release or older"
        )
        return ModelFailed("VERSION_SKEW", reason)
    return unreadable(file, f"cannot be read by CatBoost ({said})", advice)
