"""What a fitted scikit-learn estimator says of each feature that it takes: text or number, an example, missing or not.

Read from what training left in its steps: an encoder's categories, an imputer's statistics, scikit-learn's own tags.
What nobody says is `UNKNOWN`, and then anything is taken and the estimator judges. Nothing here predicts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import get_tags


@dataclasses.dataclass(frozen=True)
class Feature:
    """`datatype` is BYTES, BOOL or FP64, or "" where nothing is known. `nothing` is what stands for a missing value."""

    datatype: str
    example: Any = 0.0
    missing: bool = False
    nothing: Any = np.nan


UNKNOWN = Feature("", missing=True)
_NUMBER = Feature("FP64")
# Of a text: `CountVectorizer` and its like take a list of texts, no columns.
TEXT = Feature("BYTES", "")


def features_of(estimator: Any, count: int) -> list[Feature]:
    """One for each of the `count` features of a fitted estimator."""
    known = _features(estimator, count)
    return known if known is not None and len(known) == count else [UNKNOWN] * count


def takes_text(estimator: Any) -> bool:
    """Whether the input is one list of texts."""
    tags = _tags(_first_step(estimator))
    return tags is not None and tags.input_tags.string and not tags.input_tags.two_d_array


def takes_dictionaries(estimator: Any) -> bool:
    tags = _tags(_first_step(estimator))
    return tags is not None and tags.input_tags.dict and not tags.input_tags.two_d_array


def is_scikit_learns(estimator: Any) -> bool:
    """Whether all of it is scikit-learn's own code: a function or class of somebody else may do anything, such as wait,
    or ask for columns by name.
    """
    if not type(estimator).__module__.startswith("sklearn."):
        return False
    return all(_is_plain(value) for value in estimator.get_params(deep=True).values())


def selects_by_name(estimator: Any) -> bool:
    """Whether some step picks columns by name, which works on a pandas DataFrame alone."""
    steps = [step for _, step in getattr(estimator, "steps", ())]
    transformers = [entry[1:] for entry in getattr(estimator, "transformers_", ())]
    by_name = any(isinstance(column, str) for _, columns in transformers for column in _as_list(columns))
    return by_name or any(selects_by_name(step) for step in [*steps, *_wrapped(estimator)])


def _is_plain(value: Any) -> bool:
    if isinstance(value, (type, np.ufunc)):
        return True
    if hasattr(value, "fit") or hasattr(value, "transform"):
        return type(value).__module__.startswith("sklearn.")
    return not callable(value)


def _features(estimator: Any, count: int) -> list[Feature] | None:
    if (categories := getattr(estimator, "categories_", None)) is not None:
        return [_of_categories(each) for each in categories]
    if hasattr(estimator, "transformers_"):
        return _of_columns(estimator, count)
    if preprocessor := getattr(estimator, "_preprocessor", None):  # gradient boosting of histograms, with categories
        known = _features(preprocessor, count) or [UNKNOWN] * count
        kinds = zip(known, estimator.is_categorical_, strict=True)
        return [dataclasses.replace(each if is_category else _NUMBER, missing=True) for each, is_category in kinds]
    steps = [step for _, step in getattr(estimator, "steps", ()) if step is not None and step != "passthrough"]
    if steps:
        return _of_steps(steps, count)
    for inner in _wrapped(estimator):
        if getattr(inner, "n_features_in_", count) == count:
            return _features(inner, count)
    if (statistics := getattr(estimator, "statistics_", None)) is not None:
        return [_imputed(value) for value in statistics]
    return _by_tags(estimator, count)


def _of_steps(steps: Sequence[Any], count: int) -> list[Feature] | None:
    """Those of the first step. An imputer passes columns on, so that what follows knows them better."""
    first = _features(steps[0], count)
    if len(steps) > 1 and hasattr(steps[0], "statistics_"):
        after = _features(steps[1], count)
        if after is not None and len(after) == count and all(each.datatype for each in after):
            return [dataclasses.replace(each, missing=True) for each in after]
    return first


def _of_columns(transformer: Any, count: int) -> list[Feature] | None:
    """Of a fitted `ColumnTransformer`. Of several steps that take a column, the one that knows more is believed."""
    indices = getattr(transformer, "_transformer_to_input_indices", None)
    if indices is None:
        return None
    known = [UNKNOWN] * count
    for name, step, _ in transformer.transformers_:
        places = indices.get(name, ())
        features = _of_step(step, len(places))
        for place, feature in zip(places, features, strict=False):
            if not known[place].datatype or (known[place].datatype == "FP64" and feature.datatype == "BYTES"):
                known[place] = feature
    return known


def _of_step(step: Any, count: int) -> list[Feature]:
    if isinstance(step, str):  # "drop" and "passthrough"
        return [UNKNOWN] * count
    return [TEXT] if takes_text(step) else features_of(step, count)


def _of_categories(categories: Any) -> Feature:
    values = list(categories)
    real = [value for value in values if not _is_nothing(value)]
    nothing = next((value for value in values if _is_nothing(value)), np.nan)
    example = real[0] if real else 0.0
    kind = "BYTES" if isinstance(example, str) else "BOOL" if isinstance(example, (bool, np.bool_)) else "FP64"
    # An encoder takes a value that it has not seen, or refuses it by itself, and so with missing ones.
    return Feature(kind, example, missing=True, nothing=nothing)


def _imputed(value: Any) -> Feature:
    return (
        Feature("BYTES", value, missing=True) if isinstance(value, str) else dataclasses.replace(_NUMBER, missing=True)
    )


def _by_tags(estimator: Any, count: int) -> list[Feature] | None:
    tags = _tags(estimator)
    # A function of somebody's is all that a FunctionTransformer is.
    if tags is None or tags.no_validation or tags.input_tags.string or tags.input_tags.categorical:
        return None
    return [dataclasses.replace(_NUMBER, missing=bool(tags.input_tags.allow_nan))] * count


def _first_step(estimator: Any) -> Any:
    for inner in [*(step for _, step in getattr(estimator, "steps", ())[:1]), *_wrapped(estimator)]:
        return _first_step(inner)
    return estimator


def _wrapped(estimator: Any) -> list[Any]:
    """What a search or a wrapper around another estimator predicts with."""
    found = [getattr(estimator, name, None) for name in ("best_estimator_", "regressor_", "estimator_")]
    return [each for each in found if each is not None]


def _tags(estimator: Any) -> Any:
    """scikit-learn's own tags; None for what is no estimator by its rules."""
    try:
        return get_tags(estimator)
    except (AttributeError, TypeError, ValueError):
        return None


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _as_list(columns: Any) -> list[Any]:
    return [columns] if isinstance(columns, str) else list(columns) if isinstance(columns, (list, tuple)) else []
