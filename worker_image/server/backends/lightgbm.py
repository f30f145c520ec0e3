"""LightGBM boosters in LightGBM's own text format (`Booster.save_model`): any release reads it, and it runs no code.

Owns the reading of the file and what a booster looks like from outside: one matrix, or the columns that it was trained
on by name. Missing values are NaN, as LightGBM wants them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from worker_image.server.backends.base import find_file, unreadable
from worker_image.server.errors import ModelFailed, one_line
from worker_image.server.tensors import NUMBERS, Signature, Tensors, TensorSpec

SUFFIXES = (".txt", ".lgb", ".lightgbm")
# The last line but one of a whole file: LightGBM itself reads a truncated one and answers with fewer trees.
_END = "end of parameters"
_NO_NAMES = "Column_0"


def load(directory: Path, threads: int) -> LightgbmModel:
    file = find_file(directory, SUFFIXES, "lightgbm")
    return LightgbmModel(_booster(file), threads)


class LightgbmModel:
    is_steady = True

    def __init__(self, booster: Any, threads: int) -> None:
        self._booster = booster
        self._threads = threads
        names = booster.feature_name()
        self._columns = [] if names[0] == _NO_NAMES else list(names)
        self.signature = _signature(booster, self._columns)

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        answer = self._booster.predict(self._features(inputs), num_threads=self._threads)
        return {name: np.asarray(answer) for name in outputs}

    def warmup(self) -> Tensors | None:
        return {"x": np.zeros((1, self._booster.num_feature()))}

    def _features(self, inputs: Tensors) -> Any:
        if len(inputs) == 1 and (tensor := next(iter(inputs.values()))).ndim == 2:
            return tensor
        return np.column_stack([inputs[name] for name in self._columns])


def _signature(booster: Any, columns: list[str]) -> Signature:
    matrix = TensorSpec("x", "FP64", (-1, booster.num_feature()), accepts=NUMBERS)
    named = tuple(TensorSpec(name, "FP64", (-1,), accepts=NUMBERS) for name in columns)
    classes = booster.num_model_per_iteration()
    output = TensorSpec("predict", "FP64", (-1, classes) if classes > 1 else (-1,))
    return Signature(
        platform="lightgbm_Booster",
        inputs=named or (matrix,),
        outputs=(output,),
        default_outputs=("predict",),
        matrix=matrix,
        scores="predict" if classes > 1 else None,
        labels=tuple(str(label) for label in range(classes)) if classes > 1 else (),
        value="predict" if classes == 1 else None,
    )


def _booster(file: Path) -> Any:
    advice = "it may be truncated or of another format; write it with Booster.save_model()"
    try:
        text = file.read_text()
    except UnicodeDecodeError as exc:
        raise unreadable(file, "is not LightGBM's text format", advice) from exc
    if not text.startswith("tree\n") or _END not in text:
        raise unreadable(file, f"is no whole LightGBM model ({len(text)} characters)", advice)
    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as exc:
        raise _load_error(file, exc, advice) from exc


def _load_error(file: Path, exc: Exception, advice: str) -> ModelFailed:
    return unreadable(file, f"cannot be read by LightGBM {lightgbm.__version__} ({one_line(exc)})", advice)
