"""Probes of a replica that answers as a model server does, as a custom image may, and as somebody hostile would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from orchestrator.adapters.probe import SILENT, Probe, probe
from orchestrator.core.entities import Loading
from tests.fakes.scripted_replica import Call, ScriptedReplica


async def asked(script: Callable[[Call], Awaitable[None]], timeout_s: float = 5.0) -> Probe:
    """What one probe of a replica with this script says."""
    async with ScriptedReplica(script) as replica, httpx.AsyncClient(trust_env=False) as client:
        return await probe(client, "127.0.0.1", replica.port, timeout_s)


def answering(body: bytes, status: bytes = b"200 OK") -> Callable[[Call], Awaitable[None]]:
    async def script(call: Call) -> None:
        call.answer(body, status)

    return script


NOT_YET = b"503 Service Unavailable"


class TestProbe:
    async def test_a_ready_one_says_how_it_became_so(self) -> None:
        body = b'{"ready": true, "ready_at": 1700.5, "phases": {"importing": 0.4, "loading": 0.2, "warming": 0.1}}'

        found = await asked(answering(body))

        assert found.ready
        assert found.loading == Loading((("importing", 0.4), ("loading", 0.2), ("warming", 0.1)), 1700.5)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"ok",
            b"[]",
            b'{"status": "UP"}',
            b'{"phases": {"\\u001b[2J": 1.0}, "ready_at": 1}',
            b'{"phases": {"loading": -1}}',
            b'{"phases": {"loading": 1e999}}',
            b'{"phases": "none"}',
            b'{"pad": "' + b"x" * 100_000 + b'"}',
        ],
    )
    async def test_a_custom_image_may_say_anything_with_its_200(self, body: bytes) -> None:
        assert await asked(answering(body)) == Probe(ready=True, answers=True)

    async def test_one_that_loads_says_since_when(self) -> None:
        before = time.time()

        found = await asked(answering(b'{"phase": "loading", "seconds": 3.25, "error": ""}', NOT_YET))

        assert (found.ready, found.answers, found.phase) == (False, True, "loading")
        assert found.phase_since is not None
        assert before - 3.25 <= found.phase_since <= time.time() - 3.25

    @pytest.mark.parametrize("body", [b"", b"starting up", b'{"phase": "\\u001b]0;x\\u0007"}', b'{"phase": 7}'])
    async def test_what_is_no_phase_is_not_ready(self, body: bytes) -> None:
        assert await asked(answering(body, NOT_YET)) == Probe(ready=False, answers=True, phase="not ready")

    async def test_one_that_never_ends_its_answer_is_silent(self) -> None:
        async def drip(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not call.left.is_set():
                call.send(b" ")
                await asyncio.sleep(0.02)

        began = time.monotonic()

        assert await asked(drip, timeout_s=0.3) == SILENT
        assert time.monotonic() - began < 3

    async def test_one_that_answers_without_end_is_not_read_to_it(self) -> None:
        sent = 0

        async def pour(call: Call) -> None:
            nonlocal sent
            call.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while not call.left.is_set() and sent < 1 << 30:
                call.send(b" " * 65536)
                sent += 65536
                await asyncio.sleep(0)

        found = await asked(pour)

        assert found == Probe(ready=True, answers=True)
        assert sent < 1 << 28

    async def test_nobody_there_is_silence(self, free_port: Callable[[], int]) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            assert await probe(client, "127.0.0.1", free_port(), 1.0) == SILENT
