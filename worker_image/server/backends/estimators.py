"""How a fitted scikit-learn estimator looks from outside: its one matrix, its named columns or its texts, and one
output for each of its methods, with class labels as answers.

Columns go to the estimator as training had them: as a pandas DataFrame where it needs one, else as a matrix in the
order of training. It reads no file (see `sklearn.py`).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worker_image.server.backends.base import missing_module, unreadable
from worker_image.server.backends.features import (
    Feature,
    features_of,
    is_scikit_learns,
    selects_by_name,
    takes_dictionaries,
    takes_text,
)
from worker_image.server.tensors import NUMBERS, NUMPY_TYPES, Signature, Tensor, Tensors, TensorSpec

# In the order of what a client wants who names no output.
METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "transform")
_ANY = frozenset(NUMPY_TYPES)
# Sparse answers (one-hot, tf-idf) are filled up with zeros, for no protocol has another form; up to this size.
MOST_DENSE_BYTES = 256 << 20


class Output(NamedTuple):
    """`part` of what `method` answers: several targets have probabilities each. None: all of it."""

    method: str
    part: int | None = None


class SklearnModel:
    def __init__(self, file: Path, estimator: Any) -> None:
        self._estimator = estimator
        # Somebody's own function or class inside may take any time.
        self.is_steady = is_scikit_learns(estimator)
        self._names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
        self._features = _features(file, estimator)
        self._is_text = takes_text(estimator)
        self._wants_frame = bool(self._names) and _wants_frame(estimator, self._features, is_plain=self.is_steady)
        self._pandas = _pandas(file) if self._wants_frame else None
        self._outputs = _outputs(estimator, self._example())
        self.signature = _signature(estimator, self._inputs(), self._matrix(), list(self._outputs))
        # Columns are put into the order of training here; scikit-learn would warn of the missing names at each call.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        rows = self._rows(inputs)
        answers: dict[str, Any] = {}
        tensors = {}
        for name in outputs:
            method, part = self._outputs[name]
            if method not in answers:
                answers[method] = getattr(self._estimator, method)(rows)
            tensors[name] = _tensor(name, answers[method], part)
        return tensors

    def warmup(self) -> Tensors | None:
        """None where nothing is known of some feature and a guess does not do."""
        if self._features is None and not self._is_text:
            return None
        inputs = self._example_inputs()
        if all(feature.datatype for feature in self._features or ()):
            return inputs
        try:
            self.predict(inputs, self.signature.default_outputs)
        except Exception:
            return None
        return inputs

    # --- what it takes

    def _inputs(self) -> tuple[TensorSpec, ...]:
        if not self._names or self._features is None:
            return (self._matrix() or _UNKNOWN_MATRIX,)
        return tuple(_column(name, feature) for name, feature in zip(self._names, self._features, strict=True))

    def _matrix(self) -> TensorSpec | None:
        """All features together under any name; None when they are of several types."""
        if self._is_text:
            return TensorSpec("text", "BYTES", (-1,))
        if self._features is None:
            return _UNKNOWN_MATRIX
        datatypes = {feature.datatype for feature in self._features}
        if len(datatypes) > 1:
            return None if self._names else _matrix(self._features, "BYTES", _ANY)
        datatype = datatypes.pop()
        if datatype == "BYTES":
            return _matrix(self._features, "BYTES", frozenset())
        return _matrix(self._features, datatype or "FP64", NUMBERS)

    def _rows(self, inputs: Tensors) -> Any:
        """As the estimator takes them."""
        first = next(iter(inputs.values()))
        is_whole = len(inputs) == 1 and (self._is_text or first.ndim != 1)
        if self._pandas is not None:
            columns = dict(zip(self._names, first.T, strict=True)) if is_whole else inputs
            return self._frame(columns)
        if is_whole:
            return self._filled(first)
        if self._names:
            return np.column_stack([inputs[name] for name in self._names])
        return first

    def _frame(self, columns: Tensors) -> Any:
        assert self._features is not None
        assert self._pandas is not None
        filled = {
            name: _cells(columns[name], feature) for name, feature in zip(self._names, self._features, strict=True)
        }
        return self._pandas.DataFrame(filled, copy=False)

    def _filled(self, tensor: Tensor) -> Tensor:
        if tensor.dtype.kind != "O" or tensor.ndim != 2 or self._features is None:
            return tensor
        return np.column_stack([_cells(tensor[:, index], each) for index, each in enumerate(self._features)])

    def _example_inputs(self) -> Tensors:
        if self._is_text or self._features is None:
            return {"text": np.array([""], dtype=object)}
        if not self._names:
            return {"x": self._one_row()}
        return {name: _one_cell(each) for name, each in zip(self._names, self._features, strict=True)}

    def _one_row(self) -> Tensor:
        assert self._features is not None
        cells = [feature.example for feature in self._features]
        is_text = any(feature.datatype == "BYTES" for feature in self._features)
        return np.array([cells], dtype=object if is_text else np.float64)

    def _example(self) -> Any:
        """One row as the estimator takes it, None when nobody knows one."""
        return None if self._features is None and not self._is_text else self._rows(self._example_inputs())


_UNKNOWN_MATRIX = TensorSpec("x", "FP64", (-1, -1), accepts=NUMBERS)


def _features(file: Path, estimator: Any) -> list[Feature] | None:
    """None for an estimator that does not say how many it takes, or takes no columns at all."""
    if takes_dictionaries(estimator):
        problem = f"holds a {type(estimator).__name__} that takes dictionaries, which no tensor can be"
        raise unreadable(file, problem, "train it on columns (OneHotEncoder), or serve it with the python backend")
    count = getattr(estimator, "n_features_in_", None)
    if count is None or takes_text(estimator):
        return None
    return features_of(estimator, int(count))


def _wants_frame(estimator: Any, features: list[Feature] | None, *, is_plain: bool) -> bool:
    """Numbers in the order of training are as good as a DataFrame to scikit-learn's own code, and faster."""
    is_numeric = features is not None and all(feature.datatype == "FP64" for feature in features)
    return not (is_plain and is_numeric) or selects_by_name(estimator)


def _pandas(file: Path) -> Any:
    """Imported while the model is loaded, not by its first request."""
    try:
        import pandas
    except ModuleNotFoundError as exc:
        raise missing_module(file, exc) from exc
    return pandas


def _column(name: str, feature: Feature) -> TensorSpec:
    if not feature.datatype:
        return TensorSpec(name, "BYTES", (-1,), accepts=_ANY, missing=True)
    accepts = frozenset() if feature.datatype == "BYTES" else NUMBERS
    finite = _is_finite(feature)
    return TensorSpec(name, feature.datatype, (-1,), accepts=accepts, finite=finite, missing=feature.missing)


def _matrix(features: list[Feature], datatype: str, accepts: frozenset[str]) -> TensorSpec:
    finite = all(_is_finite(feature) for feature in features)
    missing = any(feature.missing for feature in features)
    return TensorSpec("x", datatype, (-1, len(features)), accepts=accepts, finite=finite, missing=missing)


def _is_finite(feature: Feature) -> bool:
    return feature.datatype == "FP64" and not feature.missing


def _cells(tensor: Tensor, feature: Feature) -> Tensor:
    """A column's values, missing ones as the estimator had them in training."""
    if tensor.dtype.kind in "US":
        return tensor.astype(object)
    if tensor.dtype.kind != "O" or not any(value is None for value in tensor):
        return tensor
    return np.array([feature.nothing if value is None else value for value in tensor], dtype=object)


def _one_cell(feature: Feature) -> Tensor:
    return np.array([feature.example], dtype=object if feature.datatype == "BYTES" else None)


def _outputs(estimator: Any, example: Any) -> dict[str, Output]:
    outputs = {}
    for method in METHODS:
        if not callable(getattr(estimator, method, None)):
            continue
        parts = _parts(estimator, method, example)
        if parts is None:
            outputs[method] = Output(method)
        outputs |= {f"{method}_{part}": Output(method, part) for part in range(parts or 0)}
    return outputs


def _parts(estimator: Any, method: str, example: Any) -> int | None:
    """How many answers a method gives side by side: a classifier of several targets has probabilities for each."""
    classes = getattr(estimator, "classes_", None)
    if method != "predict_proba" or not isinstance(classes, list):
        return None
    try:
        return len(classes) if example is None or isinstance(estimator.predict_proba(example), list) else None
    except Exception:
        return len(classes)


def _tensor(name: str, answer: Any, part: int | None) -> Tensor:
    if part is not None:
        answer = answer[part]
    if hasattr(answer, "toarray"):
        answer = _dense(name, answer)
    tensor = np.asarray(answer)
    return _plain(name, tensor) if tensor.dtype.kind == "O" else tensor


def _dense(name: str, sparse: Any) -> Tensor:
    size = int(np.prod(sparse.shape)) * sparse.dtype.itemsize
    if size > MOST_DENSE_BYTES:
        said = f"output {name!r} of {sparse.shape[0]} rows takes {size >> 20} MiB with its zeros"
        raise ValueError(f"{said}; at most {MOST_DENSE_BYTES >> 20} MiB are answered; send fewer rows")
    return np.asarray(sparse.toarray())


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Objects that are all numbers or all booleans, as labels from a DataFrame are, as what they are."""
    if all(isinstance(value, (str, bytes)) for value in tensor.flat):
        return tensor
    natural = np.array(tensor.tolist())
    if natural.dtype.kind not in "biuf" or natural.shape != tensor.shape:
        kinds = ", ".join(sorted({type(value).__name__ for value in tensor.flat}))
        raise TypeError(f"output {name!r} holds {kinds}; a tensor has values of one type")
    return natural


def _signature(
    estimator: Any, inputs: tuple[TensorSpec, ...], matrix: TensorSpec | None, names: list[str]
) -> Signature:
    classes = getattr(estimator, "classes_", None)
    has_labels = isinstance(classes, np.ndarray) and "predict_proba" in names
    return Signature(
        platform=f"sklearn_{type(estimator).__name__}",
        inputs=inputs,
        outputs=tuple(TensorSpec(name, "FP64", (-1,)) for name in names),
        default_outputs=(names[0],),
        matrix=matrix,
        scores="predict_proba" if has_labels else None,
        labels=tuple(str(label) for label in classes) if classes is not None and has_labels else (),
        value="predict" if "predict" in names and classes is None else None,
    )
