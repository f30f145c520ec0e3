"""scikit-learn estimators and pipelines, from joblib or pickle files.

Owns how an estimator looks from outside: its one matrix or its named columns, `predict` and, when it has them,
`predict_proba` and `transform`, class labels as answers. Refuses a file that another release of scikit-learn has
pickled: such a model may load and yet answer wrongly. Pickle runs code: the container is what holds it.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from worker_image.server import log
from worker_image.server.backends.base import find_file, missing_module, unreadable
from worker_image.server.backends.pickles import pickled_version
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import NUMBERS, NUMPY_TYPES, Signature, Tensor, Tensors, TensorSpec

SUFFIXES = (".joblib", ".pkl", ".pickle")
METHODS = ("predict", "predict_proba", "transform")
ALLOW_SKEW = "MODELFLEET_ALLOW_VERSION_SKEW"


def load(directory: Path, threads: int) -> SklearnModel:  # noqa: ARG001 - joblib and OpenMP read the environment
    file = find_file(directory, SUFFIXES, "sklearn")
    return SklearnModel(_estimator(file))


class SklearnModel:
    is_steady = True

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self._columns = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
        self._wants_frame = bool(self._columns) and _selects_columns_by_name(estimator)
        self.signature = _signature(estimator, self._columns, self._wants_frame)
        # Columns are put into the order of training here; scikit-learn would warn of the missing names at each call.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        features = self._features(inputs)
        return {name: np.asarray(getattr(self._estimator, name)(features)) for name in outputs}

    def warmup(self) -> Tensors | None:
        if self._wants_frame:
            return None
        width = getattr(self._estimator, "n_features_in_", None)
        return None if width is None else {"x": np.zeros((1, width))}

    def _features(self, inputs: Tensors) -> Any:
        if self._wants_frame:
            return _frame(inputs, self._columns)
        if len(inputs) == 1 and (tensor := next(iter(inputs.values()))).ndim != 1:
            return tensor
        if self._columns:
            return np.column_stack([inputs[name] for name in self._columns])
        return next(iter(inputs.values()))


def _signature(estimator: Any, columns: list[str], wants_frame: bool) -> Signature:
    finite = not _takes_nan(estimator)
    width = getattr(estimator, "n_features_in_", -1)
    matrix = TensorSpec("x", "FP64", (-1, int(width)), accepts=NUMBERS, finite=finite)
    inputs: tuple[TensorSpec, ...] = (matrix,)
    if wants_frame:
        any_type = frozenset(NUMPY_TYPES)
        inputs = tuple(TensorSpec(name, "BYTES", (-1,), accepts=any_type) for name in columns)
    elif columns:
        inputs = tuple(TensorSpec(name, "FP64", (-1,), accepts=NUMBERS, finite=finite) for name in columns)
    methods = [name for name in METHODS if callable(getattr(estimator, name, None))]
    classes = getattr(estimator, "classes_", None)
    has_labels = isinstance(classes, np.ndarray) and "predict_proba" in methods
    return Signature(
        platform=f"sklearn_{type(estimator).__name__}",
        inputs=inputs,
        outputs=tuple(TensorSpec(name, "FP64", (-1,)) for name in methods),
        default_outputs=(methods[0],),
        matrix=None if wants_frame else matrix,
        scores="predict_proba" if has_labels else None,
        labels=tuple(str(label) for label in classes) if classes is not None and has_labels else (),
        value="predict" if "predict" in methods and classes is None else None,
    )


def _takes_nan(estimator: Any) -> bool:
    """What scikit-learn's own tags say; an estimator without them is trusted to check for itself."""
    try:
        return bool(sklearn.utils.get_tags(estimator).input_tags.allow_nan)
    except (AttributeError, TypeError):
        return True


def _selects_columns_by_name(estimator: Any) -> bool:
    """Whether some step picks columns by name, which works on a pandas DataFrame alone."""
    steps = [step for _, step in getattr(estimator, "steps", ())]
    transformers = [entry[1:] for entry in getattr(estimator, "transformers_", ())]
    by_name = any(isinstance(column, str) for _, columns in transformers for column in _as_list(columns))
    return by_name or any(_selects_columns_by_name(step) for step in steps)


def _as_list(columns: Any) -> list[Any]:
    return [columns] if isinstance(columns, str) else list(columns) if isinstance(columns, (list, tuple)) else []


def _frame(inputs: Tensors, columns: list[str]) -> Any:
    import pandas as pd  # type: ignore[import-untyped]  # only such models need it, and it takes 0.3 s to import

    return pd.DataFrame({name: _column(inputs[name]) for name in columns})


def _column(tensor: Tensor) -> Tensor:
    return tensor.astype(object) if tensor.dtype.kind in "US" else tensor


def _estimator(file: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            estimator = joblib.load(file)
        except (MemoryError, OSError):
            raise
        except Exception as exc:
            _refuse_skew(file, _skew(caught) or pickled_version(file), exc)
            raise _load_error(file, exc) from exc
    _refuse_skew(file, _skew(caught), None)
    if not any(callable(getattr(estimator, name, None)) for name in METHODS):
        kind = type(estimator).__name__
        raise unreadable(
            file, f"holds a {kind}", "the sklearn backend serves fitted estimators; save the estimator itself"
        )
    return _fitted(file, estimator)


def _fitted(file: Path, estimator: Any) -> Any:
    try:
        sklearn.utils.validation.check_is_fitted(estimator)
    except sklearn.exceptions.NotFittedError as exc:
        advice = "call fit() before it is saved"
        raise unreadable(file, f"holds a {type(estimator).__name__} that was never fitted", advice) from exc
    except TypeError:
        pass  # not an estimator by scikit-learn's rules, but it has predict: duck typing is enough
    return estimator


def _skew(caught: list[warnings.WarningMessage]) -> str | None:
    """The release of scikit-learn that wrote the file, when its warnings name another one."""
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            return str(warning.message.original_sklearn_version)
    return None


def _refuse_skew(file: Path, wrote: str | None, cause: Exception | None) -> None:
    """scikit-learn promises nothing across releases; a patch release keeps the format in practice, so it is a
    warning.
    """
    here = sklearn.__version__
    if wrote is None or wrote == here:
        return
    is_patch = wrote.split(".")[:2] == here.split(".")[:2]
    if cause is None and (is_patch or os.environ.get(ALLOW_SKEW) == "1"):
        log.event("version skew", level="warning", file=str(file), pickled_by=wrote, loaded_by=here)
        return
    raise ModelFailed(
        "VERSION_SKEW",
        f"{file}: pickled by scikit-learn {wrote}, this server has {here}; "
        "a pickle is read safely by the release that wrote it only; "
        f"train again with {here}, or put `scikit-learn=={wrote}` into a requirements.txt beside the model"
        + ("" if cause else f", or set {ALLOW_SKEW}: '1' in the version's `env` to take the risk"),
    ) from cause


def _load_error(file: Path, exc: Exception) -> ModelFailed:
    if isinstance(exc, ModuleNotFoundError):
        return missing_module(file, exc)
    if isinstance(exc, AttributeError) and "__main__" in str(exc):
        problem = f"needs a class or function that was defined in the training script ({one_line(exc)})"
        return unreadable(file, problem, "define it in an installed package, or serve it with the python backend")
    size = file.stat().st_size
    problem = f"is no whole joblib or pickle file ({size} bytes, {one_line(exc)})"
    return unreadable(file, problem, "it may be truncated or of another format; copy or save it again")
