"""What a codec gets of a request, and what it gives back: bytes, and the header fields beside them.

Owns no format and decides no status: `app.py` reads the request and sends the reply, the codecs stand between the bytes
and the tensors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from worker_image.server.tensors import Tensors

JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"

Field = tuple[bytes, bytes]


class Call(msgspec.Struct):
    """A request's whole body, and its header fields by their lower-case names. A body with binary tensors is memory of
    its own that may be written to, every other one is `bytes`.
    """

    body: bytes | memoryview
    fields: dict[bytes, bytes]
    time_left_s: float | None = None

    @property
    def content_type(self) -> bytes:
        return self.fields.get(b"content-type", b"")


class Reply(msgspec.Struct):
    """`parts` follow `body` without being joined to it: large tensors are sent from where they lie. Each is one
    dimension of bytes, and must not change any more.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    fields: Sequence[Field] = ()
    parts: Sequence[memoryview] = ()

    @property
    def header_fields(self) -> Sequence[Field]:
        return (*self.fields, _RETRY_AFTER) if self.status == 503 else self.fields


class Answers(Protocol):
    """What a stream's model gives, one after the other."""

    def __aiter__(self) -> AsyncIterator[Tensors]: ...

    async def __anext__(self) -> Tensors: ...

    async def aclose(self) -> None: ...


class Events(Protocol):
    """The same as bytes, in one form of streams."""

    content_type: bytes
    fields: Sequence[Field]

    async def begin(self) -> None:
        """Waits for the first answer."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def last_words(self, error: bytes) -> bytes:
        """What is sent when it fails in the middle; `error` is the JSON that would have been the answer."""
        ...

    async def aclose(self) -> None: ...


_RETRY_AFTER = (b"retry-after", b"1")
