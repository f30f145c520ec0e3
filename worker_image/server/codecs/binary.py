"""The binary tensor extension of the Open Inference Protocol over REST: tensors behind the JSON instead of in it.

    Inference-Header-Content-Length: 84

    {"inputs":[{…,"parameters":{"binary_data_size":16}}]} and then 16 bytes

Owns where JSON ends and each tensor begins, both ways, and every sentence about lengths that do not agree; what the
bytes of a tensor mean is `raw.py`'s. https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from worker_image.server.codecs.call import Reply
from worker_image.server.errors import RequestError, bad_request

EXTENSION = "binary_tensor_data"
HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
SIZE = "binary_data_size"
_MOST_DIGITS = 18
# The least that an element of BYTES takes: its length.
_LEAST_ELEMENT_BYTES = 4


class Tail:
    """What follows the JSON of a request. Its tensors are taken in order, each once."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._place = 0

    def take(self, size: Any, where: str) -> memoryview:
        if type(size) is not int or size < 0:
            raise bad_request(f"{where}: {SIZE} {size!r}; it is the tensor's count of bytes; send that number")
        start, end = self._place, self._place + size
        if end > len(self._content):
            raise bad_request(
                f"{where}: {SIZE} {size}, but {len(self._content) - start} bytes are left of the "
                f"{len(self._content)} behind the JSON; make them agree"
            )
        self._place = end
        return self._content[start:end]

    def finish(self) -> None:
        if left := len(self._content) - self._place:
            raise bad_request(
                f"body: {left} bytes after its last tensor; each input says its bytes with {SIZE}; make them agree"
            )


def split(body: memoryview, header_length: bytes) -> tuple[bytes, Tail]:
    """The JSON of a body, and what follows it."""
    size = json_size(header_length)
    if size > len(body):
        raise _wrong_length(header_length, f"the body has {len(body)} bytes; it is the length of the JSON in it")
    return bytes(body[:size]), Tail(body[size:])


def json_size(header_length: bytes) -> int:
    if not header_length.isdigit() or len(header_length) > _MOST_DIGITS:
        raise _wrong_length(header_length, "it is a whole number of bytes")
    if not (size := int(header_length)):
        raise _wrong_length(header_length, "a tensor without its JSON is not read; it has name, shape and datatype")
    return size


def objects_in(body: memoryview, header_length: bytes) -> int:
    """About how many Python objects a body will be: numbers in its JSON, and strings. 0 for what is no request."""
    size = min(json_size(header_length), len(body))
    head, tail_size = bytes(body[:size]), len(body) - size
    try:
        tensors = _shapes.decode(head).inputs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    count = sum(
        math.prod(tensor.shape) for tensor in tensors if tensor.datatype == "BYTES" and min(tensor.shape, default=1) > 0
    )
    return head.count(b",") + min(count, tail_size // _LEAST_ELEMENT_BYTES)


def is_wanted(parameters: Mapping[str, Any] | None, name: str, where: str, *, default: bool) -> bool:
    """What a request says by one of the extension's two flags."""
    value = parameters.get(name) if parameters else None
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_request(f"{where}: {name} {value!r}; it is true or false; correct it")
    return value


def reply(head: bytes, tensors: Sequence[memoryview]) -> Reply:
    return Reply(
        head,
        content_type=OCTETS,
        fields=[(HEADER_LENGTH, b"%d" % len(head))],
        parts=[tensor for tensor in tensors if len(tensor)],
    )


class _Shape(msgspec.Struct):
    shape: tuple[int, ...] = (0,)
    datatype: str = ""


class _Shapes(msgspec.Struct):
    inputs: list[_Shape]


_shapes = msgspec.json.Decoder(_Shapes)


def _wrong_length(header_length: bytes, rule: str) -> RequestError:
    return bad_request(
        f"inference-header-content-length: {header_length.decode('latin-1')!r}; {rule}; send the length of the JSON"
    )
