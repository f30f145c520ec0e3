"""Tensors by name: which datatypes and shapes a model takes and gives, and the check of a request against them.

Owns the Open Inference Protocol's datatype names, `TensorSpec`, `Signature`, and every sentence about a tensor that
does not fit. It knows no wire format (see `codecs/`) and no framework (see `backends/`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from worker_image.server.bfloat16 import BF16, widen
from worker_image.server.errors import bad_request

Tensor = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Tensor]
# What a request asks beside its tensors: names to JSON values.
Parameters = Mapping[str, Any]
NO_PARAMETERS: Parameters = MappingProxyType({})

# As a model sees them: `bfloat16.py` says how BF16 becomes FP32.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.float32),
    "BYTES": np.dtype(object),
}
NUMBERS = frozenset(NUMPY_TYPES) - {"BYTES"}
_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items() if name != "BF16"} | {BF16: "BF16"}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output. -1 in `shape` is any length; a leading -1 is the batch.

    `accepts` are the datatypes taken as they come (empty: only `datatype`); `finite` refuses NaN and infinities,
    because the model would. `labels` name what the columns of an output stand for. `missing`: a value may be missing,
    which JSON's null says; it is NaN among numbers and None among strings. `lazy` is an output that is dear and known
    beforehand: the first prediction does not compute it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    accepts: frozenset[str] = frozenset()
    finite: bool = False
    labels: tuple[str, ...] = ()
    missing: bool = False
    lazy: bool = False

    def takes(self, datatype: str) -> bool:
        return datatype == self.datatype or datatype in self.accepts

    @property
    def has_batch(self) -> bool:
        return bool(self.shape) and self.shape[0] == -1


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    No `inputs` means that the model says nothing of them and takes what comes. `matrix` may stand, under any name, for
    all inputs together: a scikit-learn model has no name for its one input. A client that names no outputs gets
    `default_outputs`. `scores` with one of `labels` per column serves TensorFlow Serving's `:classify`, `value` its
    `:regress`. A model that does not take parameters never sees them. `joins_rows` False: a free first dimension is
    something else than a batch. `facts` are names and words that the metadata shows beside it. `optional` inputs may
    come beside the others. `verbs` are what may be asked of it: `predict`, `batch` (several requests side by side,
    their rows not joined), `explain`, `stream`, `http` (paths of its own), `unload`.
    """

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    default_outputs: tuple[str, ...] = ()
    matrix: TensorSpec | None = None
    scores: str | None = None
    labels: tuple[str, ...] = ()
    value: str | None = None
    takes_parameters: bool = False
    joins_rows: bool = True
    facts: tuple[tuple[str, str], ...] = ()
    optional: tuple[TensorSpec, ...] = ()
    verbs: frozenset[str] = frozenset({"predict"})

    @property
    def can_batch(self) -> bool:
        """Whether every input has a free first dimension, so that rows of several requests can go together."""
        return self.joins_rows and all(spec.has_batch for spec in self.inputs)


def with_roles(signature: Signature) -> Signature:
    """`signature` with `scores`, `labels` and `value` where its backend did not name them: the first output that has
    labels, and else the only one that it gives, when that is one number a row.
    """
    scored = next((spec for spec in signature.outputs if spec.labels), None)
    if signature.scores is None and scored is not None:
        signature = dataclasses.replace(signature, scores=scored.name, labels=scored.labels)
    given = [spec for spec in signature.outputs if spec.name in signature.default_outputs]
    if signature.scores is None and signature.value is None and len(given) == 1 and _is_one_number(given[0]):
        signature = dataclasses.replace(signature, value=given[0].name)
    return signature


def _is_one_number(spec: TensorSpec) -> bool:
    return spec.has_batch and spec.shape[1:] in ((), (1,)) and spec.datatype in _FLOATS


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name for a numpy type. Strings of any numpy kind are BYTES; raises `TypeError` for what has no
    name.
    """
    if name := _NAMES.get(dtype):
        return name
    if dtype.kind in "USOT":
        return "BYTES"
    if name := _NAMES.get(dtype.newbyteorder("=")):
        return name
    raise TypeError(f"numpy type {dtype} has no name in the Open Inference Protocol")


def fit(signature: Signature, inputs: Tensors, missing: Collection[str] = (), *, is_finite: bool = False) -> Tensors:
    """`inputs` as the model takes them, or a `RequestError` with what was sent and what is wanted. `missing` names
    those that came with nulls. `is_finite`: they came in a form that has no other numbers, and need not be searched for
    them.
    """
    for name in missing:
        _check_missing(signature, name, inputs)
    is_finite = is_finite and not missing
    if signature.optional and (beside := [spec for spec in signature.optional if spec.name in inputs]):
        optional = {spec.name: _fit_one(spec, spec.name, inputs[spec.name], is_finite) for spec in beside}
        others = {name: tensor for name, tensor in inputs.items() if name not in optional}
        fitted = _fit_all(signature, others, is_finite) | optional
        _check_rows(fitted)
        return fitted
    return _fit_all(signature, inputs, is_finite)


def _fit_all(signature: Signature, inputs: Tensors, is_finite: bool) -> Tensors:
    if not inputs:
        raise bad_request(f"inputs: none sent; the model takes {_wanted(signature.inputs)}; send them")
    matrix = signature.matrix
    if matrix is not None and len(inputs) == 1:
        name, tensor = next(iter(inputs.items()))
        if signature.inputs == (matrix,) or tensor.ndim == len(matrix.shape):
            return {matrix.name: _fit_one(matrix, name, tensor, is_finite)}
    if not signature.inputs:
        return {name: _unchecked(name, tensor) for name, tensor in inputs.items()}
    _check_names(signature, inputs)
    fitted = {spec.name: _fit_one(spec, spec.name, inputs[spec.name], is_finite) for spec in signature.inputs}
    if len(fitted) > 1 and signature.can_batch:
        _check_rows(fitted)
    return fitted


def _check_missing(signature: Signature, name: str, inputs: Tensors) -> None:
    spec = next((spec for spec in signature.inputs if spec.name == name), None)
    if spec is None or inputs[name].ndim != len(spec.shape):
        spec = signature.matrix
    if spec is None or not spec.missing:
        raise bad_request(f"input {name!r}: a value is null; this model takes none that is missing; send all values")


def parameters_key(parameters: Parameters) -> str:
    """Equal for equal parameters alone: `repr` tells true from 1 and 1 from 1.0, which Python's `==` does not."""
    return repr(sorted(parameters.items())) if parameters else ""


def rows_of(inputs: Tensors) -> int | None:
    """How many rows all tensors agree on; None when they do not, so that the request must be predicted alone."""
    if len(inputs) == 1:
        (tensor,) = inputs.values()
        return tensor.shape[0] if tensor.ndim else None
    rows = {tensor.shape[0] if tensor.ndim else None for tensor in inputs.values()}
    return rows.pop() if len(rows) == 1 else None


def _fit_one(spec: TensorSpec, name: str, tensor: Tensor, is_finite: bool) -> Tensor:
    datatype = datatype_of(tensor.dtype)
    if not spec.takes(datatype) and not (datatype == "BF16" and spec.takes("FP32")):
        wanted = " or ".join(sorted(spec.accepts)) if spec.accepts else spec.datatype
        raise bad_request(f"input {name!r}: datatype {datatype}; the model wants {wanted}; send that datatype")
    if tensor.ndim == 2 and tensor.shape[1] == 1 and len(spec.shape) == 1:
        tensor = tensor[:, 0]
    _not_empty(name, tensor)
    if not _shape_fits(spec.shape, tensor.shape):
        raise bad_request(_shape_sentence(spec, name, tensor.shape))
    kind = tensor.dtype.kind
    if kind == "V":
        tensor, kind = widen(tensor), "f"
    if spec.finite and not is_finite and kind == "f" and not np.isfinite(tensor).all():
        raise bad_request(_finite_sentence(name, tensor))
    return tensor


def _unchecked(name: str, tensor: Tensor) -> Tensor:
    _not_empty(name, tensor)
    return widen(tensor) if tensor.dtype == BF16 else tensor


def _shape_fits(wanted: tuple[int, ...], got: tuple[int, ...]) -> bool:
    if len(wanted) != len(got):
        return False
    for want, have in zip(wanted, got, strict=True):  # noqa: SIM110 - a generator takes three times as long
        if want not in (-1, have):
            return False
    return True


def _shape_sentence(spec: TensorSpec, name: str, got: tuple[int, ...]) -> str:
    said = f"input {name!r}: shape {list(got)}; the model wants {list(spec.shape)}"
    if spec.has_batch and _shape_fits(spec.shape[1:], got):
        return f"{said}; one row alone is sent as shape {[1, *got]}"
    if len(spec.shape) == len(got) == 2:
        return f"{said}; each row has {spec.shape[1]} numbers (-1 is any count of rows), {got[1]} were sent"
    return f"{said} (-1 is any length); send that shape"


def _not_empty(name: str, tensor: Tensor) -> Tensor:
    if tensor.size == 0:
        raise bad_request(
            f"input {name!r}: shape {list(tensor.shape)} holds no row; a prediction needs at least one; send one"
        )
    return tensor


def _finite_sentence(name: str, tensor: Tensor) -> str:
    place = [int(index) for index in np.argwhere(~np.isfinite(tensor))[0]]
    value = tensor[tuple(place)]
    return f"input {name!r}: {value} at {place}; this model takes finite numbers only; replace or drop missing values"


def _check_names(signature: Signature, inputs: Tensors) -> None:
    specs = signature.inputs
    if len(inputs) == len(specs) and all(spec.name in inputs for spec in specs):
        return
    names = {spec.name for spec in specs}
    for name in inputs:
        if name not in names:
            raise bad_request(
                f"input {name!r}: the model has no such input; it takes {_wanted(specs)}; use these names"
            )
    missing = next(spec.name for spec in specs if spec.name not in inputs)
    raise bad_request(f"input {missing!r}: missing; the model takes {_wanted(specs)}; send all of them")


def _check_rows(inputs: Tensors) -> None:
    if rows_of(inputs) is None:
        counts = ", ".join(f"{name!r} {tensor.shape[0]}" for name, tensor in inputs.items())
        raise bad_request(f"inputs: rows differ ({counts}); all inputs of a request have equally many rows")


def _wanted(specs: tuple[TensorSpec, ...], most: int = 12) -> str:
    if not specs:
        return "tensors of any name"
    named = [f"{spec.name!r} ({spec.datatype} {list(spec.shape)})" for spec in specs[:most]]
    more = f" and {len(specs) - most} more" if len(specs) > most else ""
    return ", ".join(named) + more
