"""scikit-learn estimators and pipelines, from joblib, pickle or skops files.

Owns the reading of the file: what it holds, and which release wrote it. Refuses a file of another release of
scikit-learn, for such a model may load and yet answer wrongly. Pickle runs code, and the container is what holds it;
skops runs none, and refuses the types that it does not know. How an estimator looks from outside says `estimators.py`.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

from worker_image.server import log
from worker_image.server.backends.base import ALLOW_SKEW, find_file, missing_module, unreadable
from worker_image.server.backends.optional import hidden
from worker_image.server.backends.pickles import pickled_version
from worker_image.server.errors import ModelFailed, one_line

with hidden("pandas"):
    import joblib
    import sklearn
    from sklearn.exceptions import InconsistentVersionWarning

    from worker_image.server.backends.estimators import METHODS, SklearnModel

SKOPS = ".skops"
SUFFIXES = (".joblib", ".pkl", ".pickle", SKOPS)
# A variable of the version's `env`: names, with commas between them.
TRUSTED_TYPES = "SKOPS_TRUSTED_TYPES"
# skops asks for it because of an imputer, and it does nothing but name a type of numbers.
_HARMLESS = frozenset({"numpy.dtype"})
_SKOPS_SCHEMA = "schema.json"


def load(directory: Path, threads: int) -> SklearnModel:  # noqa: ARG001 - joblib and OpenMP read the environment
    file = find_file(directory, SUFFIXES, "sklearn")
    estimator = _estimator(file)
    _check_methods(file, estimator)
    return SklearnModel(file, _fitted(file, estimator))


def _estimator(file: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            estimator = _read_skops(file) if file.suffix == SKOPS else joblib.load(file)
        except (MemoryError, ModelFailed):
            raise
        except OSError as exc:
            raise unreadable(file, f"cannot be read ({one_line(exc)})", "copy or save it again") from exc
        except Exception as exc:
            wrote = _skew(caught) or (None if file.suffix == SKOPS else pickled_version(file))
            _refuse_skew(file, wrote, exc)
            raise _load_error(file, exc) from exc
    _refuse_skew(file, _skew(caught), None)
    return estimator


def _read_skops(file: Path) -> Any:
    """Only the types that skops knows, or that the manifest names, are made. skops takes its time to import."""
    if not zipfile.is_zipfile(file) or _SKOPS_SCHEMA not in zipfile.ZipFile(file).namelist():
        size = file.stat().st_size
        raise unreadable(file, f"is no whole skops file ({size} bytes)", "it may be truncated; save it again")
    from skops import io as skops

    unknown = skops.get_untrusted_types(file=file)
    trusted = _HARMLESS.union(os.environ.get(TRUSTED_TYPES, "").replace(",", " ").split())
    if refused := [name for name in unknown if name not in trusted]:
        names = ", ".join(refused)
        advice = f"if you trust them, set {TRUSTED_TYPES}: '{names}' in the version's `env`"
        raise unreadable(file, f"needs types that skops does not know to be safe ({names})", advice)
    return skops.load(file, trusted=unknown)


def _check_methods(file: Path, estimator: Any) -> None:
    if any(callable(getattr(estimator, name, None)) for name in METHODS):
        return
    kind = type(estimator).__name__
    if callable(getattr(estimator, "fit_predict", None)) or callable(getattr(estimator, "fit_transform", None)):
        problem = f"holds a {kind}, which answers for the rows alone that it was fitted on and cannot predict others"
        advice = "train one that can (KMeans, LocalOutlierFactor(novelty=True), PCA), or a classifier on its labels"
        raise unreadable(file, problem, advice)
    advice = "the sklearn backend serves fitted estimators; save the estimator itself"
    raise unreadable(file, f"holds a {kind}, which has none of {', '.join(METHODS)}", advice)


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
    kind = "skops" if file.suffix == SKOPS else "joblib or pickle"
    problem = f"is no whole {kind} file ({file.stat().st_size} bytes, {one_line(exc)})"
    return unreadable(file, problem, "it may be truncated or of another format; copy or save it again")
