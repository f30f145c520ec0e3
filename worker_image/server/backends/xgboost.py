"""XGBoost boosters as `save_model` writes them, in UBJSON or JSON: such files run no code.

Owns the reading of the file and which release wrote it: XGBoost reads older ones, and says nothing of newer ones.
`predict` is `Booster.predict`'s. Predictions are made in place, without a DMatrix: a tenth of the time for few rows.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from worker_image.server import log
from worker_image.server.backends.base import ALLOW_SKEW, find_file, unreadable
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
from worker_image.server.errors import ModelFailed
from worker_image.server.tensors import NUMBERS, Signature, Tensor, Tensors, TensorSpec

with hidden("pandas"):
    import xgboost

SUFFIXES = (".ubj", ".json", ".xgb")
BASE_MARGIN = "base_margin"
# Objectives whose predictions are probabilities of classes, or, for multi:softmax, the classes.
_CLASSIFIERS = frozenset({"binary:logistic", "multi:softprob", "multi:softmax"})
# The last entry of a file is the release that wrote it: [3, 2, 0] as JSON, or as UBJSON with a letter for the width of
# each number.
_JSON_VERSION = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,')
_UBJ_VERSION = re.compile(rb"\x07version\[#L\0{7}\x03[iU](.)[iU](.)", re.DOTALL)
_TAIL_BYTES = 256


def load(directory: Path, threads: int) -> XgboostModel:
    file = find_file(directory, SUFFIXES, "xgboost")
    booster = _booster(file)
    booster.set_param({"nthread": threads})
    return XgboostModel(file, booster)


class XgboostModel:
    is_steady = True

    def __init__(self, file: Path, booster: Any) -> None:
        self._booster = booster
        self._shape = _shape(booster)
        # Trees are thread-safe (XGBoost's documentation: Prediction, Thread Safety), linear boosters are not.
        self._turn = threading.Lock() if self._shape.is_linear else nullcontext()
        self._columns = _columns(file, booster)
        count = max(self._shape.groups, 2)
        self._classes = classes_of(file.parent, count) if self._shape.is_classifier else None
        self.signature = _signature(self._shape, self._columns, self._classes)

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        margin = inputs.get(BASE_MARGIN)
        features = inputs if margin is None else {name: each for name, each in inputs.items() if name != BASE_MARGIN}
        rows = self._columns.rows(features)
        try:
            with self._turn:
                return {name: self._output(name, rows, margin) for name in outputs}
        except xgboost.core.XGBoostError as exc:
            raise ValueError(_said(exc)) from exc

    def warmup(self) -> Tensors | None:
        return self._columns.example()

    def _output(self, name: str, rows: Tensor, margin: Tensor | None) -> Tensor:
        if name in (PROBABILITIES, LABEL):
            assert self._classes is not None
            answer = self._probabilities(rows, margin)
            return self._classes.label(answer) if name == LABEL else self._classes.probabilities(answer)
        return self._ask(name, rows, margin)

    def _probabilities(self, rows: Tensor, margin: Tensor | None) -> Tensor:
        if self._shape.objective != "multi:softmax":
            return self._ask("predict", rows, margin)
        powers = self._ask(RAW, rows, margin)
        powers = np.exp(powers - powers.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _ask(self, what: str, rows: Tensor, margin: Tensor | None) -> Tensor:
        if self._shape.is_linear or what in (LEAF, CONTRIBUTIONS):
            return self._ask_slowly(what, rows, margin)
        kind = "margin" if what == RAW else "value"
        answer = self._booster.inplace_predict(
            rows, iteration_range=self._shape.rounds, predict_type=kind, base_margin=margin, validate_features=False
        )
        return np.asarray(answer)

    def _ask_slowly(self, what: str, rows: Tensor, margin: Tensor | None) -> Tensor:
        names, types = self._booster.feature_names, self._booster.feature_types
        matrix = xgboost.DMatrix(rows, base_margin=margin, feature_names=names, feature_types=types, nthread=1)
        options = {RAW: "output_margin", LEAF: "pred_leaf", CONTRIBUTIONS: "pred_contribs"}
        asked = {options[what]: True} if what in options else {}
        answer = np.asarray(self._booster.predict(matrix, iteration_range=self._shape.rounds, **asked))
        return answer.reshape(len(rows), -1).astype(np.int32) if what == LEAF else answer


class Shape(NamedTuple):
    """What a booster is. `groups` are the numbers of one prediction, `trees` those of `rounds`; (0, 0) are all."""

    objective: str
    is_linear: bool
    is_classifier: bool
    groups: int
    trees: int
    rounds: tuple[int, int]


def _shape(booster: Any) -> Shape:
    about = json.loads(booster.save_config())["learner"]
    model, objective = about["learner_model_param"], str(about["objective"]["name"])
    targets = int(model.get("num_target", 1))
    is_linear = about["gradient_booster"]["name"] == "gblinear"
    rounds = _rounds(booster)
    return Shape(
        objective=objective,
        is_linear=is_linear,
        is_classifier=objective in _CLASSIFIERS and targets == 1,
        groups=max(int(model["num_class"]), targets, 1),
        trees=0 if is_linear else _trees(about["gradient_booster"], booster.num_boosted_rounds(), rounds),
        rounds=rounds,
    )


def _rounds(booster: Any) -> tuple[int, int]:
    """XGBoost's scikit-learn classes predict with the best iteration of early stopping, `Booster` with all: as the
    model was saved, so it is served.
    """
    attributes = booster.attributes()
    if "scikit_learn" in attributes and "best_iteration" in attributes:
        return 0, int(attributes["best_iteration"]) + 1
    return 0, 0


def _trees(about: Any, all_rounds: int, rounds: tuple[int, int]) -> int:
    count = int(about.get("gbtree", about)["gbtree_model_param"]["num_trees"])
    return count if rounds == (0, 0) else count // max(all_rounds, 1) * rounds[1]


def _columns(file: Path, booster: Any) -> Columns:
    names, types = booster.feature_names or (), booster.feature_types or ()
    categories = _categories(file, booster) if "c" in types else {}
    if categories and not names:
        names = [str(place) for place in range(booster.num_features())]
    return Columns(booster.num_features(), names, categories)


class _Enc(msgspec.Struct):
    values: list[Any]
    offsets: list[int] | None = None


class _Cats(msgspec.Struct):
    enc: list[_Enc] = []


class _Trees(msgspec.Struct):
    cats: _Cats = msgspec.field(default_factory=_Cats)


class _Gbtree(msgspec.Struct):
    model: _Trees = msgspec.field(default_factory=_Trees)


class _Booster(msgspec.Struct):
    model: _Trees = msgspec.field(default_factory=_Trees)
    gbtree: _Gbtree = msgspec.field(default_factory=_Gbtree)


class _Learner(msgspec.Struct):
    gradient_booster: _Booster


class _File(msgspec.Struct):
    learner: _Learner


def _categories(file: Path, booster: Any) -> dict[int, list[Any]]:
    """What XGBoost keeps of a DataFrame's categories since 3.1. Without any the model takes codes, as in training."""
    kept = msgspec.json.decode(bytes(booster.save_raw(raw_format="json")), type=_File).learner.gradient_booster
    found = kept.model.cats.enc or kept.gbtree.model.cats.enc
    try:
        return {place: _values(each) for place, each in enumerate(found) if each.values}
    except UnicodeDecodeError as exc:
        raise unreadable(file, f"has categories that are no UTF-8 ({exc})", "save the model again") from exc


def _values(kept: _Enc) -> list[Any]:
    if kept.offsets is None:
        return kept.values
    text = bytes(value & 0xFF for value in kept.values)
    return [text[start:end].decode() for start, end in itertools.pairwise(kept.offsets)]


def _signature(shape: Shape, columns: Columns, classes: Classes | None) -> Signature:
    per_row = (-1,) if shape.groups == 1 else (-1, shape.groups)
    outputs = output_specs(shape.trees, shape.groups, classes)
    return Signature(
        platform="xgboost_Booster",
        inputs=columns.inputs,
        outputs=(*outputs, contributions_spec(columns.count, shape.groups, "FP32")),
        default_outputs=("predict",),
        matrix=columns.matrix,
        scores=PROBABILITIES if classes else None,
        labels=classes.names if classes else (),
        value="predict" if shape.groups == 1 or shape.objective == "multi:softmax" else None,
        optional=(TensorSpec(BASE_MARGIN, "FP32", per_row, accepts=NUMBERS, finite=True),),
    )


def _booster(file: Path) -> Any:
    content = file.read_bytes()
    _check_whole(file, content)
    wrote, here = _written_by(content), _release(xgboost.__version__)
    is_newer = wrote is not None and wrote > here
    if is_newer and os.environ.get(ALLOW_SKEW) != "1":
        raise _skew(file, wrote or here)
    try:
        booster = xgboost.Booster()
        booster.load_model(bytearray(content))
    except (xgboost.core.XGBoostError, TypeError, ValueError) as exc:
        raise _not_whole(file, content, _said(exc)) from exc
    if is_newer:
        log.event("version skew", level="warning", file=str(file), saved_by=wrote, loaded_by=here)
    return booster


def _check_whole(file: Path, content: bytes) -> None:
    """XGBoost itself ends the process when it reads half of an UBJSON file."""
    if content.startswith(b"{L"):
        if not content.endswith(b"}") or not _UBJ_VERSION.search(content[-_TAIL_BYTES:]):
            raise _not_whole(file, content, "its end is missing")
        return
    try:
        msgspec.json.decode(content, type=_Whole)
    except msgspec.DecodeError as exc:
        raise _not_whole(file, content, str(exc)) from exc


def _not_whole(file: Path, content: bytes, why: str) -> ModelFailed:
    problem = f"is no whole model of XGBoost's JSON or UBJSON ({len(content)} bytes, {why})"
    return unreadable(file, problem, "it may be truncated or of another format; save it with save_model()")


class _Whole(msgspec.Struct):
    learner: msgspec.Raw


def _skew(file: Path, wrote: tuple[int, int]) -> ModelFailed:
    release = ".".join(map(str, wrote))
    reason = (
        f"{file}: saved by XGBoost {release}, this server has {xgboost.__version__}; a release reads older models, not "
        f"newer ones; train with this one, or put `xgboost-cpu=={release}.*` into a requirements.txt beside the model, "
        f"or set {ALLOW_SKEW}: '1' in the version's `env` to take the risk"
    )
    return ModelFailed("VERSION_SKEW", reason)


def _written_by(content: bytes) -> tuple[int, int] | None:
    """The release, without its patch; None when the file does not say."""
    tail = content[-_TAIL_BYTES:]
    if match := _UBJ_VERSION.search(tail):
        return match[1][0], match[2][0]
    found = _JSON_VERSION.findall(tail)
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _said(exc: Exception) -> str:
    """XGBoost's errors begin with a time and a place of its source, and end in a stack of its library."""
    first = " ".join(str(exc).split("Stack trace")[0].split())
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", first)[:300]
