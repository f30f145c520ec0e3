"""JSON values to numpy and back, strictly: a number is never made of a string, NaN is never made null.

msgspec reads the envelope and leaves each tensor as raw bytes; the tensor is then read by a decoder for its own
datatype and depth, which is as fast as reading it untyped and names the element at fault. JSON proper has no NaN and
no infinities, but Python's, JavaScript's and TensorFlow Serving's writers emit them: a body with such tokens is read
again by the slower standard library.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec
import numpy as np

from worker_image.server.bfloat16 import BF16, narrow, widen
from worker_image.server.errors import RequestError, bad_request
from worker_image.server.tensors import NUMPY_TYPES, Tensor

MAX_DEPTH = 32
# What `_guess` calls a null, which is of no datatype.
_NULL = "null"
_TOKENS = re.compile(rb"NaN|Infinity")
_OPENING = re.compile(rb"[\s\[]*")


_Given = ParamSpec("_Given")
_Read = TypeVar("_Read")


class Base64(msgspec.Struct, forbid_unknown_fields=True):
    """How JSON carries bytes that are not text: `{"b64": "…"}`, as in TensorFlow Serving."""

    b64: str


class Lenient:
    """A value that the standard library has already decoded, where a `memoryview` is JSON that nobody has decoded
    yet.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


Undecoded = memoryview | Lenient


def of_utf_8(decode: Callable[_Given, _Read]) -> Callable[_Given, _Read]:
    """A reader of bodies that refuses other bytes than UTF-8: msgspec meets them wherever it makes a string."""

    @functools.wraps(decode)
    def checked(*arguments: _Given.args, **named: _Given.kwargs) -> _Read:
        try:
            return decode(*arguments, **named)
        except UnicodeError as exc:
            raise bad_request(f"body: {exc}; JSON is UTF-8; encode it so") from exc

    return checked


def decode_envelope(
    body: bytes, decoder: msgspec.json.Decoder[Any], raw_fields: tuple[str, ...]
) -> tuple[Any, dict[str, Any]]:
    """The envelope, and when the body holds NaN or Infinity tokens the loosely decoded object instead of it.

    `raw_fields` says, for the error, what the body is about.
    """
    try:
        return decoder.decode(body), {}
    except msgspec.ValidationError as exc:
        raise bad_request(f"body: {exc}; {_expectation(raw_fields)}") from exc
    except msgspec.DecodeError as exc:
        if _TOKENS.search(body):
            return None, _decode_loosely(body, exc)
        raise _not_json(body, exc) from exc
    except RecursionError as exc:
        raise bad_request(f"body: nested too deeply; at most {MAX_DEPTH} levels make a tensor; flatten it") from exc


def parse(values: Undecoded, datatype: str, where: str, *, missing: bool = False) -> Tensor:
    """`values`, flat or nested, as an array of `datatype`. Raises `BAD_REQUEST` with the place of the first wrong
    element. With `missing` a null is NaN among floating-point numbers and None among strings; others have none.
    """
    if (tensor := _plain(values, datatype)) is not None:
        return tensor
    depth = _depth(values)
    if depth > MAX_DEPTH:
        raise bad_request(f"{where}: nested {depth} deep; at most {MAX_DEPTH} levels make a tensor; flatten it")
    try:
        listed = _decode(values, datatype, depth, missing=missing and _kind(datatype) in (float, str))
    except msgspec.DecodeError as exc:
        raise bad_request(
            f"{where}: {exc}; datatype {datatype} takes {_KIND_NAMES[_kind(datatype)]} only, none missing"
        ) from exc
    return _to_array(listed, datatype, depth, where)


def has_null(values: Undecoded) -> bool:
    """Whether a null may be among them: a text that has the word counts too."""
    return _has_none(values.value) if isinstance(values, Lenient) else b"null" in bytes(values)


def parse_untyped(values: Undecoded, where: str, *, missing: bool = False) -> Tensor:
    """`values` as whatever they are: for a model that does not say what it takes."""
    decoded = values.value if isinstance(values, Lenient) else msgspec.json.decode(values)
    return parse(Lenient(decoded), _guess(decoded, missing=missing), where, missing=missing)


def to_list(name: str, tensor: Tensor, *, allow_nan: bool) -> Any:
    """`tensor` as nested lists that JSON can carry; `bytes` become `{"b64": …}`, for JSON is text."""
    kind = tensor.dtype.kind
    if kind == "V":
        tensor, kind = widen(tensor), "f"
    if not allow_nan and kind == "f" and not np.isfinite(tensor).all():
        place = [int(index) for index in np.argwhere(~np.isfinite(tensor))[0]]
        raise RequestError(
            "NOT_FINITE",
            f"output {name!r}: the model answered {tensor[tuple(place)]} at {place}; JSON has no such number; "
            "ask for binary data, or through /v1/models, which carries NaN and Infinity as TensorFlow Serving does",
        )
    listed = tensor.tolist()
    return _without_bytes(listed) if kind in "SO" else listed


def is_finite(tensor: Tensor) -> bool:
    """Whether JSON proper can carry it."""
    kind = tensor.dtype.kind
    return kind not in "fV" or bool(np.isfinite(widen(tensor) if kind == "V" else tensor).all())


def encode_lenient(obj: Any) -> bytes:
    """JSON with NaN and Infinity tokens: slower than msgspec, for the answers that need them."""
    return json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode()


def _without_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_bytes(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def _expectation(fields: tuple[str, ...]) -> str:
    return f"it is a JSON object with {' or '.join(repr(field) for field in fields)}"


def _not_json(body: bytes, exc: Exception) -> RequestError:
    if not body.strip():
        return bad_request("body: empty; a prediction request is a JSON object; send one")
    start = body[:40].decode("utf-8", "replace")
    return bad_request(f"body: {exc}; it starts with {start!r}; send valid JSON in UTF-8")


def _decode_loosely(body: bytes, cause: Exception) -> dict[str, Any]:
    try:
        decoded = json.loads(body, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise _not_json(body, cause) from exc
    if not isinstance(decoded, dict):
        raise bad_request(f"body: a JSON {type(decoded).__name__}; it is a JSON object; send one")
    if b"\\u" in body:
        # The standard library lets half of a pair of surrogates through, which no answer could carry.
        json.dumps(decoded, ensure_ascii=False).encode()
    return decoded


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise bad_request(f"body: {text} is out of the range of FP64; send a number that it can hold")
    return number


def _depth(values: Undecoded) -> int:
    if not isinstance(values, Lenient):
        opening = _OPENING.match(values)
        return opening.group().count(b"[") if opening else 0
    depth, value = 0, values.value
    while isinstance(value, list) and depth <= MAX_DEPTH:
        depth += 1
        value = value[0] if value else None
    return depth


_KIND_NAMES = {float: "numbers", int: "whole numbers", bool: "true and false", str: 'strings (or {"b64": …})'}


def _kind(datatype: str) -> type:
    return {"f": float, "i": int, "u": int, "b": bool, "O": str}[NUMPY_TYPES[datatype].kind]


@functools.cache
def _type(datatype: str, depth: int, *, missing: bool) -> Any:
    kind: Any = _kind(datatype)
    element: Any = str | Base64 if kind is str else kind
    if missing:
        element = element | None
    for _ in range(depth):
        element = list[element]
    return element


@functools.cache
def _decoder(datatype: str, depth: int, *, missing: bool = False) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_type(datatype, depth, missing=missing))


def _decode(values: Undecoded, datatype: str, depth: int, *, missing: bool) -> Any:
    if isinstance(values, Lenient):
        return msgspec.convert(values.value, _type(datatype, depth, missing=missing))
    return _decoder(datatype, depth, missing=missing).decode(values)


def _to_array(listed: Any, datatype: str, depth: int, where: str) -> Tensor:
    dtype = NUMPY_TYPES[datatype]
    if dtype.kind == "O":
        listed = _plain_bytes(listed, where)
    try:
        with np.errstate(over="ignore"):
            tensor = np.array(listed, dtype)
    except OverflowError as exc:
        raise bad_request(f"{where}: {exc}; datatype {datatype} cannot hold it; send a wider datatype") from exc
    except ValueError as exc:
        raise _ragged(where) from exc
    if tensor.ndim != depth:
        raise _ragged(where)
    carried = narrow(tensor) if datatype == "BF16" else tensor
    if dtype.itemsize < 8 and dtype.kind == "f" and _became_infinite(carried, listed):
        raise bad_request(f"{where}: a number is out of the range of {datatype}; send FP64")
    return carried


def _plain(values: Undecoded, datatype: str) -> Tensor | None:
    """What most requests are, a list or a list of lists of the widest numbers, in a third of the time. None: it is
    something else, or wrong, which the long way finds out.
    """
    decoders = _WIDEST.get(datatype)
    if decoders is None or isinstance(values, Lenient) or len(values) < _LEAST_PLAIN or values[2] == _OPEN:
        return None
    depth = 2 if values[1] == _OPEN else 1
    try:
        tensor = np.array(decoders[depth - 1].decode(values), NUMPY_TYPES[datatype])
    except (msgspec.DecodeError, OverflowError, ValueError):
        return None
    return tensor if tensor.ndim == depth else None


_OPEN = ord("[")
# Shorter ones hold no number.
_LEAST_PLAIN = 3
_WIDEST = {datatype: (_decoder(datatype, 1), _decoder(datatype, 2)) for datatype in ("FP64", "INT64")}


def _became_infinite(tensor: Tensor, listed: Any) -> bool:
    """Infinities that were sent as such are meant."""
    is_infinite = np.isinf(widen(tensor) if tensor.dtype == BF16 else tensor)
    return bool(is_infinite.any()) and not np.array_equal(is_infinite, np.isinf(np.array(listed, np.float64)))


def _ragged(where: str) -> RequestError:
    return bad_request(f"{where}: its lists have different lengths or depths; a tensor is a full grid; make them equal")


def _plain_bytes(listed: Any, where: str) -> Any:
    if isinstance(listed, list):
        return [_plain_bytes(item, where) for item in listed]
    if not isinstance(listed, Base64):
        return listed
    try:
        return base64.b64decode(listed.b64, validate=True)
    except ValueError as exc:  # binascii.Error is one
        raise bad_request(f"{where}: {listed.b64[:40]!r} is not base64 ({exc}); encode the bytes again") from exc


def _has_none(value: Any) -> bool:
    return any(_has_none(item) for item in value) if isinstance(value, list) else value is None


def _guess(decoded: Any, *, missing: bool = False) -> str:
    """With `missing` nulls are as their neighbours, which are not whole numbers then."""
    if isinstance(decoded, list) and decoded:
        kinds = {_guess(item, missing=missing) for item in decoded}
        if _NULL in kinds:
            kinds = {"FP64" if kind == "INT64" else kind for kind in kinds - {_NULL}} or {"FP64"}
        if kinds == {"INT64", "FP64"}:
            return "FP64"
        return kinds.pop() if len(kinds) == 1 else "BYTES"
    if isinstance(decoded, bool):
        return "BOOL"
    if isinstance(decoded, int):
        return "INT64"
    if decoded is None and missing:
        return _NULL
    return "FP64" if isinstance(decoded, float) or decoded == [] else "BYTES"
