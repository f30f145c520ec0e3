"""What XGBoost, LightGBM and CatBoost have in common: features by name with categories, classes with labels, and
outputs beside the prediction.

A booster computes on numbers. `Columns` makes them of what a client sends, a category's number from its value included;
`Classes` makes labels of probabilities. Neither predicts. labels.json beside a model names the classes of one that was
trained on their numbers: a list, the first for class 0.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worker_image.server.backends.base import LABELS_FILE, unreadable
from worker_image.server.tensors import NUMBERS, Tensor, Tensors, TensorSpec

# Beside `predict`: what the trees add up to, the leaf that each tree ends in, each feature's share (SHAP values).
RAW, LEAF, CONTRIBUTIONS = "raw_score", "leaf", "contributions"
PROBABILITIES, LABEL = "predict_proba", "label"


@dataclasses.dataclass(frozen=True)
class Columns:
    """The features of a booster in the order of training. `names` is empty for a booster that has none; `categories`
    are the values of categorical features, by their place, in the order of their codes. `refuses_unknown`: a category
    that training had not is the caller's error, and else a missing value.
    """

    count: int
    names: Sequence[str] = ()
    categories: Mapping[int, Sequence[Any]] = dataclasses.field(default_factory=dict)
    refuses_unknown: bool = True

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        if not self.names:
            return (self.matrix or _matrix(self.count),)
        return tuple(self._column(place, name) for place, name in enumerate(self.names))

    @property
    def matrix(self) -> TensorSpec | None:
        """None with categories: numbers in their place could be values or codes."""
        return None if self.categories else _matrix(self.count)

    def rows(self, inputs: Tensors) -> Tensor:
        first = next(iter(inputs.values()))
        if first.ndim == 2:
            return first
        return np.column_stack([self._numbers(place, inputs[name]) for place, name in enumerate(self.names)])

    def example(self) -> Tensors:
        if not self.names or not self.categories:
            return {"x": np.zeros((1, self.count))}
        return {
            name: np.array([self.categories[place][0]], dtype=object if spec.datatype == "BYTES" else None)
            if place in self.categories
            else np.zeros(1)
            for place, (name, spec) in enumerate(zip(self.names, self.inputs, strict=True))
        }

    def _column(self, place: int, name: str) -> TensorSpec:
        values = self.categories.get(place)
        if values is not None and any(isinstance(value, str) for value in values):
            return TensorSpec(name, "BYTES", (-1,), missing=True)
        return TensorSpec(name, "FP64", (-1,), accepts=NUMBERS, missing=True)

    def _numbers(self, place: int, column: Tensor) -> Tensor:
        if (codes := self._codes.get(place)) is None:
            return column
        numbers = [codes.get(value, np.nan) for value in column.tolist()]
        if self.refuses_unknown:
            self._check(place, column.tolist(), numbers)
        return np.array(numbers)

    @functools.cached_property
    def _codes(self) -> dict[int, dict[Any, float]]:
        return {
            place: {value: float(code) for code, value in enumerate(values)}
            for place, values in self.categories.items()
        }

    def _check(self, place: int, values: list[Any], numbers: list[float]) -> None:
        for value, number in zip(values, numbers, strict=True):
            if number != number and value is not None and value == value:
                known = [repr(each) for each in self.categories[place]]
                listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
                said = f"input {self.names[place]!r}: {value!r} is no category that it was trained with"
                raise ValueError(f"{said}; there are {listed}")


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a classifier, in the order of their probabilities."""

    labels: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(label) for label in self.labels.tolist())

    def probabilities(self, answer: Tensor) -> Tensor:
        """One column for each class: boosters give that of the second of two classes alone."""
        return np.column_stack([1 - answer, answer]) if answer.ndim == 1 else answer

    def label(self, answer: Tensor) -> Tensor:
        return np.asarray(self.labels[self.probabilities(answer).argmax(axis=1)])


def classes_of(directory: Path, count: int) -> Classes:
    """Of `labels.json`, else their numbers."""
    file = directory / LABELS_FILE
    if not file.is_file():
        return Classes(np.arange(count))
    form = f"it is a JSON list of {count} texts or numbers, the first for class 0"
    try:
        labels = json.loads(file.read_bytes())
    except ValueError as exc:
        raise unreadable(file, f"is no JSON ({exc})", f"{form}; correct it") from exc
    if not isinstance(labels, list) or not all(isinstance(each, (str, int, float, bool)) for each in labels):
        raise unreadable(file, "is no list of texts or numbers", f"{form}; correct it")
    if len(labels) != count or len(set(labels)) != count:
        raise unreadable(file, f"names {len(set(labels))} classes, the model has {count}", f"{form}; correct it")
    is_text = any(isinstance(each, str) for each in labels)
    return Classes(np.array([str(each) for each in labels] if is_text else labels, dtype=object if is_text else None))


def output_specs(trees: int, groups: int, classes: Classes | None) -> tuple[TensorSpec, ...]:
    """`groups` are the numbers of one prediction: several for several classes or targets. `trees` 0: no leaves."""
    several = (-1,) if groups == 1 else (-1, groups)
    specs = [TensorSpec("predict", "FP64", several)]
    if classes is not None:
        datatype = "BYTES" if classes.labels.dtype.kind == "O" else "INT64"
        specs += [TensorSpec(PROBABILITIES, "FP64", (-1, len(classes.labels))), TensorSpec(LABEL, datatype, (-1,))]
    specs.append(TensorSpec(RAW, "FP64", several))
    if trees:
        specs.append(TensorSpec(LEAF, "INT32", (-1, trees), lazy=True))
    return tuple(specs)


def contributions_spec(columns: int, groups: int, datatype: str = "FP64") -> TensorSpec:
    """One number for each feature and one for what all predictions have in common; they add up to the raw score."""
    shape = (-1, columns + 1) if groups == 1 else (-1, groups, columns + 1)
    return TensorSpec(CONTRIBUTIONS, datatype, shape, lazy=True)


def _matrix(count: int) -> TensorSpec:
    return TensorSpec("x", "FP64", (-1, count), accepts=NUMBERS, missing=True)
