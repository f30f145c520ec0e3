"""Reads the body of a request into memory, whole, and no more of it than it may have.

JSON becomes `bytes`. A body with binary tensors is put together once, in memory of its own where they lie as a model
wants them; so is a message of gRPC's. How long it may be is the caller's to say; what it means is the codecs'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from worker_image.server.codecs import binary, v2_message
from worker_image.server.errors import RequestError, bad_request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# The address of numpy's own memory is a multiple of it.
_ALIGNED_BYTES = 16


async def read(receive: Receive, fields: dict[bytes, bytes], limit: int) -> bytes | memoryview:
    """The whole body, refused as soon as it is known to be longer than `limit`."""
    length = fields.get(b"content-length")
    if length is not None and int(length) > limit:
        raise _too_large(int(length), limit)
    return of_parts(await _read_parts(receive, limit), fields)


def of_parts(parts: list[bytes], fields: dict[bytes, bytes]) -> bytes | memoryview:
    header_length = fields.get(binary.HEADER_LENGTH)
    if header_length is not None:
        # The first tensor is to lie at a place that suits any type.
        return _own_memory(parts, -binary.json_size(header_length) % _ALIGNED_BYTES)
    if is_message(fields):
        # The last tensor is, which ends with the message: mostly there is but one.
        return _own_memory(parts, -sum(map(len, parts)) % _ALIGNED_BYTES)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def is_binary(fields: dict[bytes, bytes]) -> bool:
    """Whether its tensors are bytes that need no decoding."""
    return binary.HEADER_LENGTH in fields or is_message(fields)


def is_message(fields: dict[bytes, bytes]) -> bool:
    """Whether it is one of gRPC's."""
    return fields.get(b"content-type") == v2_message.MESSAGE and binary.HEADER_LENGTH not in fields


def objects_in(body: bytes | memoryview, fields: dict[bytes, bytes]) -> int:
    """About how many Python objects a body is while it is decoded."""
    if isinstance(body, bytes):
        return body.count(b",")
    if binary.HEADER_LENGTH not in fields:
        return v2_message.objects_in(body)
    return binary.objects_in(body, fields[binary.HEADER_LENGTH])


async def _read_parts(receive: Receive, limit: int) -> list[bytes]:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise bad_request("body: cut off in the middle; the connection closed before its end; send it whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(size, limit)
        if not message.get("more_body", False):
            return parts


def _own_memory(parts: list[bytes], padding: int) -> memoryview:
    """The body in one piece of memory that a model may write to, so many bytes behind an address that suits any
    type."""
    body = np.empty(padding + sum(map(len, parts)), np.uint8).data[padding:]
    place = 0
    for part in parts:
        body[place : place + len(part)] = part
        place += len(part)
    return body


def _too_large(size: int, limit: int) -> RequestError:
    return RequestError("TOO_LARGE", f"body: {size} bytes; at most {limit} are taken; send fewer rows in a request")
