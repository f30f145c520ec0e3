"""A body as it is read: whole, within its limit, and binary tensors where a model wants them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from worker_image.server import body
from worker_image.server.codecs import v2
from worker_image.server.errors import RequestError


async def read(parts: list[bytes], fields: dict[bytes, bytes], limit: int = 1 << 20) -> bytes | memoryview:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return await body.read(receive, fields, limit)


class TestRead:
    async def test_puts_its_pieces_together(self) -> None:
        assert await read([b"a", b"", b"bc"], {}) == b"abc"
        assert await read([b""], {}) == b""

    async def test_refuses_a_length_over_the_limit_before_it_reads(self) -> None:
        with pytest.raises(RequestError, match="body: 11 bytes; at most 10 are taken"):
            await read([b""], {b"content-length": b"11"}, limit=10)

    async def test_refuses_more_than_the_limit_when_it_comes(self) -> None:
        with pytest.raises(RequestError, match="body: 12 bytes; at most 10 are taken"):
            await read([b"123456", b"123456", b"123456"], {}, limit=10)

    async def test_says_when_the_client_left(self) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        with pytest.raises(RequestError, match="cut off in the middle"):
            await body.read(receive, {}, 10)


class TestBinary:
    @pytest.mark.parametrize("padding", range(9))
    def test_lies_where_numbers_may_lie_and_may_be_written_to(self, padding: int) -> None:
        tensor = {"name": "x", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}}
        head = json.dumps({"inputs": [tensor]}).encode() + b" " * padding
        content = body.of_parts(
            [head[:7], head[7:] + b"\0" * 9, b"\0" * 7], {b"inference-header-content-length": b"%d" % len(head)}
        )
        assert isinstance(content, memoryview)

        read = v2.decode_binary(content, b"%d" % len(head)).inputs["x"]
        read += 1.0

        assert read.flags.aligned
        assert np.frombuffer(content[len(head) :], np.uint8).any()

    def test_counts_numbers_in_its_json_and_strings_behind_it(self) -> None:
        strings = {"name": "x", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": 12}}
        head = json.dumps({"inputs": [strings]}).encode()
        fields = {b"inference-header-content-length": b"%d" % len(head)}

        assert body.objects_in(body.of_parts([head, b"\0" * 12], fields), fields) == head.count(b",") + 3
        assert body.objects_in(b"[1,2,3]", {}) == 2

    @pytest.mark.parametrize("shape", [[1 << 40], [1 << 40, 1 << 40]])
    def test_believes_no_shape_that_its_bytes_cannot_hold(self, shape: list[int]) -> None:
        head = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": shape}]}).encode()
        fields = {b"inference-header-content-length": b"%d" % len(head)}

        assert body.objects_in(body.of_parts([head, b"\0" * 12], fields), fields) == head.count(b",") + 3

    @pytest.mark.parametrize(
        "head", [b"{", b"\xff", b'{"inputs":3}', b'{"inputs":[{"shape":[-1],"datatype":"BYTES"}]}']
    )
    def test_counts_nothing_in_what_is_no_request(self, head: bytes) -> None:
        fields = {b"inference-header-content-length": b"%d" % len(head)}

        assert body.objects_in(body.of_parts([head + b"\0" * 100], fields), fields) <= head.count(b",")
