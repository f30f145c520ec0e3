"""TensorFlow Serving v1, REST: https://www.tensorflow.org/serving/api_rest

Owns `:predict` in row form (`instances`) and column form (`inputs`), `:classify`, `:regress`, the model's status and
metadata. This protocol carries NaN and Infinity as bare tokens both ways, and bytes as `{"b64": …}`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from worker_image.server.codecs.json_values import (
    Lenient,
    Undecoded,
    decode_envelope,
    encode_lenient,
    is_finite,
    of_utf_8,
    parse,
    parse_untyped,
    to_list,
)
from worker_image.server.errors import RequestError, bad_request
from worker_image.server.tensors import Signature, Tensor, Tensors, TensorSpec, datatype_of, rows_of

DEFAULT_SIGNATURE = "serving_default"
# What TensorFlow calls the methods; clients name a signature by them.
_METHODS = frozenset(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
# TensorFlow does not tell text from bytes: an output of such a name is of bytes.
_BYTES_SUFFIX = "_bytes"
UNNAMED_INPUT = "input"

_DT = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64",
    "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BF16": "DT_BFLOAT16", "BYTES": "DT_STRING",
}  # fmt: skip


class PredictBody(msgspec.Struct):
    instances: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()
    signature_name: str | None = None


class ExamplesBody(msgspec.Struct):
    examples: list[dict[str, Any]]
    context: dict[str, Any] = {}
    signature_name: str | None = None


class Predict(NamedTuple):
    """A `:predict` request. `is_row` says which form it came in: the answer has the same."""

    inputs: Tensors
    outputs: tuple[str, ...]
    is_row: bool


_predict_decoder = msgspec.json.Decoder(PredictBody)
_examples_decoder = msgspec.json.Decoder(ExamplesBody)
_encoder = msgspec.json.Encoder()


@of_utf_8
def decode_predict(body: bytes, signature: Signature) -> Predict:
    request, loose = decode_envelope(body, _predict_decoder, ("instances", "inputs"))
    if request is not None:
        rows, columns, name = _present(request.instances), _present(request.inputs), request.signature_name
    else:
        rows, columns, name = _loose(loose, "instances"), _loose(loose, "inputs"), loose.get("signature_name")
    outputs = _signature_outputs(signature, name)
    if rows is not None and columns is not None:
        raise bad_request(
            "body: both `instances` (rows) and `inputs` (columns) sent; a request has exactly one of them; drop one"
        )
    if rows is not None:
        return Predict(_rows(rows, signature), outputs, is_row=True)
    if columns is not None:
        return Predict(_columns(columns, signature), outputs, is_row=False)
    raise bad_request(
        "body: neither `instances` (rows) nor `inputs` (columns) sent; a request has exactly one of them; send one"
    )


@of_utf_8
def decode_examples(body: bytes, signature: Signature) -> Tensors:
    """The inputs of a `:classify` or `:regress` request: one row per example, features of `context` in every row."""
    request, loose = decode_envelope(body, _examples_decoder, ("examples",))
    if request is None:
        try:
            request = msgspec.convert(loose, ExamplesBody)
        except msgspec.ValidationError as exc:
            raise bad_request(f"body: {exc}; it is a JSON object with 'examples'") from exc
    _signature_outputs(signature, request.signature_name)
    for index, example in enumerate(request.examples):
        if both := request.context.keys() & example.keys():
            raise bad_request(
                f"examples[{index}]: {min(both)!r} stands in `context` too; a feature stands in one; drop one"
            )
    return _named_rows([{**request.context, **example} for example in request.examples], signature, "examples")


def encode_predict(outputs: Tensors, *, is_row: bool) -> bytes:
    listed = {name: _listed(name, tensor) for name, tensor in outputs.items()}
    if not is_row:
        answer: Any = {"outputs": next(iter(listed.values())) if len(listed) == 1 else listed}
    elif len(listed) == 1:
        answer = {"predictions": next(iter(listed.values()))}
    else:
        answer = {"predictions": _as_rows(listed, outputs)}
    return _encode(answer, outputs.values())


def encode_explain(explained: Tensors, inputs: Tensors, *, is_row: bool) -> bytes:
    """KServe's `:explain`. A list with one explanation a row where there are rows, else what there is by its name."""
    listed = {name: to_list(name, tensor, allow_nan=True) for name, tensor in explained.items()}
    rows = rows_of(inputs) if is_row else None
    is_by_row = rows is not None and rows_of(explained) == rows
    if len(listed) == 1:
        said: Any = next(iter(listed.values()))
    else:
        said = _as_rows(listed, explained) if is_by_row else listed
    return _encode({"explanations": said}, explained.values())


def encode_classify(signature: Signature, scores: Tensor) -> bytes:
    labels = signature.labels
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        said = f"answer: scores of shape {list(scores.shape)} for {len(labels)} labels"
        raise RequestError("MODEL_FAILED", f"{said}; a row has one score for each label; correct the model")
    results = [[[label, score] for label, score in zip(labels, row, strict=True)] for row in scores.tolist()]
    return _encode({"results": results}, (scores,))


def encode_regress(values: Tensor) -> bytes:
    return _encode({"results": values.ravel().tolist()}, (values,))


def status(version: str, *, is_ready: bool, problem: str) -> dict[str, Any]:
    state = "AVAILABLE" if is_ready else "END" if problem else "LOADING"
    code = {"error_code": "UNKNOWN" if problem else "OK", "error_message": problem}
    return {"model_version_status": [{"version": version, "state": state, "status": code}]}


def metadata(model: str, version: str, signature: Signature) -> dict[str, Any]:
    specs = {spec.name: spec for spec in signature.outputs}
    default = [specs[name] for name in signature.default_outputs if name in specs]
    definitions = {DEFAULT_SIGNATURE: _definition(signature, default)}
    definitions |= {name: _definition(signature, [spec]) for name, spec in specs.items()}
    return {
        "model_spec": {"name": model, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def _definition(signature: Signature, outputs: list[TensorSpec]) -> dict[str, Any]:
    return {
        "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in outputs},
        "method_name": "tensorflow/serving/predict",
    }


def _listed(name: str, tensor: Tensor) -> Any:
    if name.endswith(_BYTES_SUFFIX) and datatype_of(tensor.dtype) == "BYTES":
        tensor = np.array(tensor, object)
        for place, value in enumerate(tensor.flat):
            tensor.flat[place] = value.encode() if isinstance(value, str) else value
    return to_list(name, tensor, allow_nan=True)


def _present(raw: msgspec.Raw) -> Undecoded | None:
    return memoryview(raw) or None


def _loose(body: dict[str, Any], field: str) -> Undecoded | None:
    return Lenient(body[field]) if field in body else None


def _signature_outputs(signature: Signature, name: Any) -> tuple[str, ...]:
    """TensorFlow's signatures name what is computed: beside the default one, each output of the model is one."""
    if not isinstance(name, str | None):
        raise bad_request(f"signature_name: {name!r}; it is a string; correct it or leave it out")
    if name in (None, "", DEFAULT_SIGNATURE) or name in _METHODS:
        return signature.default_outputs
    names = [spec.name for spec in signature.outputs]
    if name in names:
        return (str(name),)
    listed = ", ".join(repr(known) for known in [DEFAULT_SIGNATURE, *names])
    raise bad_request(f"signature_name: {name!r}; the model has {listed}; use one of them or leave it out")


def _rows(rows: Undecoded, signature: Signature) -> Tensors:
    if _starts_with_object(rows):
        listed = rows.value if isinstance(rows, Lenient) else msgspec.json.decode(rows)
        if any(not isinstance(row, dict) for row in listed):
            raise bad_request("instances: objects and bare values are mixed; all rows have one form; make them alike")
        if not all(row.keys() == {"b64"} for row in listed):
            return _named_rows(listed, signature, "instances")
    is_table = len(signature.inputs) > 1 and all(spec.shape == (-1,) for spec in signature.inputs)
    if signature.matrix is None and is_table and _starts_with_list(rows):
        return _listed_rows(rows, signature)
    spec = _only_input(signature, "instances", "one object per row with a value for each input")
    return {spec.name if spec else UNNAMED_INPUT: _parse(rows, spec, "instances")}


def _listed_rows(rows: Undecoded, signature: Signature) -> Tensors:
    """Rows of a value for each input, in the order of the inputs: of a table with columns of several types."""
    listed = rows.value if isinstance(rows, Lenient) else msgspec.json.decode(rows)
    names = ", ".join(repr(spec.name) for spec in signature.inputs)
    for index, row in enumerate(listed):
        if not isinstance(row, list) or len(row) != len(signature.inputs):
            has = f"{len(row)} values" if isinstance(row, list) else "no list"
            raise bad_request(f"instances[{index}]: {has}; a row has one for each of {names}, in this order; send them")
    columns = zip(*listed, strict=True)
    return {
        spec.name: _parse(Lenient(list(column)), spec, f"instances[*].{spec.name}")
        for spec, column in zip(signature.inputs, columns, strict=True)
    }


def _columns(columns: Undecoded, signature: Signature) -> Tensors:
    listed = columns.value if isinstance(columns, Lenient) else msgspec.json.decode(columns)
    if not isinstance(listed, dict) or listed.keys() == {"b64"}:
        spec = _only_input(signature, "inputs", "an object with a list for each input")
        return {spec.name if spec else UNNAMED_INPUT: _parse(columns, spec, "inputs")}
    specs = {spec.name: spec for spec in signature.inputs}
    return {
        name: _parse(Lenient(values), _spec_for(name, specs, signature), f"inputs.{name}")
        for name, values in listed.items()
    }


def _named_rows(rows: list[dict[str, Any]], signature: Signature, where: str) -> Tensors:
    names = list(rows[0]) if rows else []
    for index, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            name = min(row.keys() ^ rows[0].keys())
            raise bad_request(
                f"{where}[{index}]: {name!r} is not in every row; all rows name the same inputs; make them alike"
            )
    if not names:
        raise bad_request(f"{where}: empty; a prediction needs at least one row; send one")
    specs = {spec.name: spec for spec in signature.inputs}
    return {
        name: _parse(Lenient([row[name] for row in rows]), _spec_for(name, specs, signature), f"{where}[*].{name}")
        for name in names
    }


def _spec_for(name: str, specs: dict[str, TensorSpec], signature: Signature) -> TensorSpec | None:
    return specs.get(name) or (signature.matrix if len(specs) <= 1 else None)


def _only_input(signature: Signature, where: str, form: str) -> TensorSpec | None:
    if signature.matrix is not None:
        return signature.matrix
    if len(signature.inputs) > 1:
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise bad_request(f"{where}: values without names; the model has several inputs ({names}); send {form}")
    return signature.inputs[0] if signature.inputs else None


def _parse(values: Undecoded, spec: TensorSpec | None, where: str) -> Tensor:
    # A column that takes strings as well as numbers says nothing of what was sent: the values do.
    missing = spec is not None and spec.missing
    if spec is None or (spec.datatype == "BYTES" and spec.accepts):
        return parse_untyped(values, where, missing=missing)
    return parse(values, spec.datatype, where, missing=missing)


def _starts_with_object(rows: Undecoded) -> bool:
    return _starts_with(rows, b"{", dict)


def _starts_with_list(rows: Undecoded) -> bool:
    return _starts_with(rows, b"[", list)


def _starts_with(rows: Undecoded, opening: bytes, kind: type) -> bool:
    if isinstance(rows, Lenient):
        return isinstance(rows.value, list) and bool(rows.value) and isinstance(rows.value[0], kind)
    head = bytes(rows[:64]).lstrip()
    return head[:1] == b"[" and head[1:].lstrip()[:1] == opening


def _as_rows(listed: dict[str, Any], outputs: Tensors) -> list[dict[str, Any]]:
    lengths = {tensor.shape[0] if tensor.ndim else None for tensor in outputs.values()}
    if len(lengths) > 1 or None in lengths:
        raise RequestError(
            "BAD_REQUEST",
            "instances: the outputs of this model have different lengths, so they make no rows; "
            "ask in column form with `inputs`",
        )
    return [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]


def _encode(answer: dict[str, Any], tensors: Any) -> bytes:
    try:
        if all(is_finite(tensor) for tensor in tensors):
            return _encoder.encode(answer)
        return encode_lenient(answer)
    except TypeError as exc:
        raise RequestError("MODEL_FAILED", f"answer: {exc}; return numbers, strings or bytes") from exc


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(length), "name": ""} for length in spec.shape]
    return {"dtype": _DT[spec.datatype], "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": spec.name}
