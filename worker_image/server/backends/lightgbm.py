"""LightGBM boosters in LightGBM's own text format (`Booster.save_model`): any release reads it, and it runs no code.

Owns the reading of the file and what a booster looks like from outside: one matrix, or the columns that it was trained
on by name, with the categories of a DataFrame. `predict` is `Booster.predict`'s. Missing values are NaN, as LightGBM
wants them, and so are categories that it has not seen.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from worker_image.server.backends.base import find_file, unreadable
from worker_image.server.backends.boosters import (
    CONTRIBUTIONS,
    LABEL,
    LEAF,
    PROBABILITIES,
    RAW,
    Classes,
    Columns,
    classes_of,
    contributions_spec,
    output_specs,
)
from worker_image.server.backends.optional import hidden
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import Signature, Tensor, Tensors

with hidden("pandas"):
    import lightgbm

SUFFIXES = (".txt", ".lgb", ".lightgbm")
# The last line but one of a whole file: LightGBM itself reads a truncated one and answers with fewer trees.
_END = "end of parameters"
_NO_NAMES = "Column_0"
_CLASSIFIERS = frozenset({"binary", "multiclass", "multiclassova"})
_OBJECTIVE = re.compile(r"^objective=(\S+)", re.MULTILINE)
_CATEGORICAL = re.compile(r"^\[categorical_feature: ([\d,]+)\]", re.MULTILINE)
# Trees with linear models in their leaves have no contributions.
_LINEAR = re.compile(r"^is_linear=1", re.MULTILINE)
_OPTIONS = {RAW: "raw_score", LEAF: "pred_leaf", CONTRIBUTIONS: "pred_contrib"}


def load(directory: Path, threads: int) -> LightgbmModel:
    file = find_file(directory, SUFFIXES, "lightgbm")
    text = _text(file)
    return LightgbmModel(file, _booster(file, text), text, threads)


class LightgbmModel:
    is_steady = True

    def __init__(self, file: Path, booster: Any, text: str, threads: int) -> None:
        self._booster = booster
        self._threads = threads
        self._columns = _columns(file, booster, text)
        self._groups = booster.num_model_per_iteration()
        objective = _OBJECTIVE.search(text)
        is_classifier = objective is not None and objective[1] in _CLASSIFIERS
        self._classes = classes_of(file.parent, max(self._groups, 2)) if is_classifier else None
        self.signature = _signature(
            booster, self._columns, self._groups, self._classes, is_linear=_LINEAR.search(text) is not None
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        rows = self._columns.rows(inputs)
        try:
            return {name: self._output(name, rows) for name in outputs}
        except lightgbm.basic.LightGBMError as exc:
            raise ValueError(str(exc)) from exc

    def warmup(self) -> Tensors | None:
        return self._columns.example()

    def _output(self, name: str, rows: Tensor) -> Tensor:
        options = {_OPTIONS[name]: True} if name in _OPTIONS else {}
        answer = np.asarray(self._booster.predict(rows, num_threads=self._threads, **options))
        if name == CONTRIBUTIONS and self._groups > 1:
            return answer.reshape(len(rows), self._groups, -1)
        if name in (PROBABILITIES, LABEL):
            assert self._classes is not None
            return self._classes.label(answer) if name == LABEL else self._classes.probabilities(answer)
        return answer


def _signature(booster: Any, columns: Columns, groups: int, classes: Classes | None, *, is_linear: bool) -> Signature:
    outputs = output_specs(booster.num_trees(), groups, classes)
    return Signature(
        platform="lightgbm_Booster",
        inputs=columns.inputs,
        outputs=outputs if is_linear else (*outputs, contributions_spec(columns.count, groups)),
        default_outputs=("predict",),
        matrix=columns.matrix,
        scores=PROBABILITIES if classes else None,
        labels=classes.names if classes else (),
        value="predict" if groups == 1 else None,
    )


def _columns(file: Path, booster: Any, text: str) -> Columns:
    names = booster.feature_name()
    named = [] if names[0] == _NO_NAMES else list(names)
    values = booster.pandas_categorical or []
    places = match[1].split(",") if (match := _CATEGORICAL.search(text)) else []
    if values and len(values) != len(places):
        problem = f"has {len(places)} categorical features and the categories of {len(values)}"
        advice = "which belong together cannot be told; train with categorical_feature='auto'"
        raise unreadable(file, problem, advice)
    categories = {int(place): each for place, each in zip(places, values, strict=True)} if values else {}
    return Columns(booster.num_feature(), named, categories, refuses_unknown=False)


def _text(file: Path) -> str:
    advice = "it may be truncated or of another format; write it with Booster.save_model()"
    try:
        text = file.read_text()
    except UnicodeDecodeError as exc:
        raise unreadable(file, "is not LightGBM's text format", advice) from exc
    if not text.startswith("tree\n") or _END not in text:
        raise unreadable(file, f"is no whole LightGBM model ({len(text)} characters)", advice)
    return text


def _booster(file: Path, text: str) -> Any:
    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as exc:
        raise _load_error(file, exc) from exc


def _load_error(file: Path, exc: Exception) -> ModelFailed:
    said = f"cannot be read by LightGBM {lightgbm.__version__} ({one_line(exc)})"
    return unreadable(file, said, "it may be truncated or of another format; write it with Booster.save_model()")
