"""MLflow's signatures in the terms of the protocol, and back: named columns or tensors, each with its type.

Works on the plain form that stands in an `MLmodel` file, imports neither MLflow nor pandas, and decides nothing about
the model. Columns that hold lists or objects travel as JSON text, one text for each row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from worker_image.server.tensors import NUMBERS, NUMPY_TYPES, Tensor, TensorSpec, datatype_of

COLUMN_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
UNNAMED_TENSOR = "x"
_INTEGERS = frozenset(name for name in NUMBERS if "INT" in name)
_NUMBERS = NUMBERS - {"BOOL"}
# Besides what a column is declared as. JSON's whole numbers arrive as INT64 wherever a client does not look.
_ACCEPTED = {"INT32": _INTEGERS, "INT64": _INTEGERS, "FP32": _NUMBERS, "FP64": _NUMBERS}
# A value may be missing where pandas has a way to say so: NaN among real numbers, None among objects.
_MAY_MISS = frozenset({"FP32", "FP64", "BYTES"})

Column = dict[str, Any]


def is_tensors(schema: list[Column]) -> bool:
    return bool(schema) and schema[0]["type"] == "tensor"


def specs(schema: list[Column], *, required: bool = True) -> tuple[TensorSpec, ...]:
    """Those of the inputs that must be there, or of those that need not."""
    made = [_tensor(each) if is_tensors(schema) else _column(each, place) for place, each in enumerate(schema)]
    return tuple(spec for spec, each in zip(made, schema, strict=True) if each.get("required", True) == required)


def matrix(schema: list[Column]) -> TensorSpec | None:
    """One grid that may stand for all columns: when every one is a number, and has to be there."""
    if is_tensors(schema) or not all(_is_in_grid(each) for each in schema):
        return None
    return TensorSpec(UNNAMED_TENSOR, "FP64", (-1, len(schema)), accepts=_NUMBERS, missing=True)


def cast(column: Column, tensor: Tensor) -> Any:
    """The values of one column as its type wants them. Raises `ValueError` with what does not fit."""
    kind = column["type"]
    if convert := _TEXTS.get(kind):
        return _each(column, tensor, convert)
    if kind not in COLUMN_TYPES:
        return _each(column, tensor, _from_json)
    wanted = NUMPY_TYPES[COLUMN_TYPES[kind]]
    if wanted.kind in "iu" and tensor.dtype != wanted:
        return _whole(column, tensor, wanted)
    return tensor.astype(wanted, copy=False)


def as_tensor(values: Any) -> Tensor:
    """What a model answered, as an array of numbers or strings: what is neither becomes JSON text."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return np.datetime_as_string(array).astype(object)
    if array.dtype.kind != "O":
        return array
    flat = [value.item() if isinstance(value, np.generic) else value for value in array.ravel()]
    if all(isinstance(value, (int, float)) for value in flat):
        return np.asarray(flat).reshape(array.shape)
    texts = [value if isinstance(value, (str, bytes)) else json.dumps(value, default=str) for value in flat]
    made = np.empty(array.shape, dtype=object)
    made.ravel()[:] = texts
    return made


def name_of(column: Column, place: int) -> str:
    name = column.get("name")
    return str(place) if name is None else str(name)


def _is_in_grid(each: Column) -> bool:
    return COLUMN_TYPES.get(str(each["type"])) in _ACCEPTED and bool(each.get("required", True))


def _tensor(each: Column) -> TensorSpec:
    said = each["tensor-spec"]
    dtype = np.dtype(object if said["dtype"] in ("str", "object", "bytes") else said["dtype"])
    return TensorSpec(each.get("name") or UNNAMED_TENSOR, datatype_of(dtype), tuple(said["shape"]))


def _column(each: Column, place: int) -> TensorSpec:
    datatype = COLUMN_TYPES.get(str(each["type"]), "BYTES")
    accepts = _ACCEPTED.get(datatype, frozenset())
    return TensorSpec(name_of(each, place), datatype, (-1,), accepts, missing=datatype in _MAY_MISS)


def _whole(column: Column, tensor: Tensor, wanted: np.dtype[Any]) -> Tensor:
    limits = np.iinfo(wanted)
    if tensor.size and (tensor.min() < limits.min or tensor.max() > limits.max):
        raise ValueError(
            f"column {column.get('name')!r} holds a number beyond {limits.min}..{limits.max}, its {wanted}"
        )
    return tensor.astype(wanted)


def _each(column: Column, tensor: Tensor, convert: Callable[[Any], Any]) -> Any:
    try:
        return _objects(None if value is None else convert(value) for value in tensor.ravel().tolist())
    except ValueError as exc:
        raise ValueError(f"column {column.get('name')!r} holds a value that is no {_said(column)} ({exc})") from exc


def _said(column: Column) -> str:
    return str(column["type"]) if column["type"] in COLUMN_TYPES else f"JSON of {column['type']!r}"


def _objects(values: Iterable[Any]) -> Tensor:
    listed = list(values)
    made = np.empty(len(listed), dtype=object)
    made[:] = listed
    return made


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _moment(value: Any) -> np.datetime64:
    return np.datetime64(_text(value))


def _from_json(value: Any) -> Any:
    return json.loads(value)


_TEXTS: dict[Any, Callable[[Any], Any]] = {"string": _text, "binary": _bytes, "datetime": _moment}
