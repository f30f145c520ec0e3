"""Asks a replica whether it is ready, and tells it of a pause to come: each one call on a connection of its own.
Never raises for what a replica does.

The answer about readiness separates three things that must not be mixed: it is ready; it answers and says what it is
doing; nothing answers at its port. What answers is somebody's model: only so much of its answer is read, for so long,
and only words and numbers are taken from it.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from dataclasses import dataclass

import httpx
import msgspec

from orchestrator.core.entities import Loading

ANSWER_MAX_BYTES = 4096
_PHASE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MOST_PHASES = 8
# A connection that was kept says little of one that a request would make: it may be older than a pause.
_ALONE = {"connection": "close"}


@dataclass(frozen=True, slots=True)
class Probe:
    """`answers`: something speaks HTTP there. `phase`: what the model server says it is doing, since `phase_since`
    (seconds since the epoch; None: it does not say). `loading`: how it became ready, where a ready one says so."""

    ready: bool
    answers: bool
    phase: str = ""
    phase_since: float | None = None
    loading: Loading | None = None


class _Readiness(msgspec.Struct):
    """Of docs/CONTRACTS.md; custom images need to say none of it."""

    phase: str = ""
    seconds: float = 0.0
    phases: dict[str, float] = {}
    ready_at: float = 0.0


SILENT = Probe(ready=False, answers=False)


async def probe(client: httpx.AsyncClient, host: str, port: int, timeout_s: float) -> Probe:
    """`GET /v2/health/ready`: 200 is ready, any other answer is not yet."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("GET", f"http://{host}:{port}/v2/health/ready", timeout=timeout_s, headers=_ALONE) as answer,
        ):
            said = _read(await _beginning(answer))
            if answer.status_code == httpx.codes.OK:
                return Probe(ready=True, answers=True, loading=_loading(said))
            return _not_ready(said)
    except (httpx.HTTPError, TimeoutError):
        return SILENT


async def announce_pause(client: httpx.AsyncClient, host: str, port: int, timeout_s: float) -> int:
    """Tells a replica that it is about to be paused. Returns how many requests are inside, by its own word; one that
    does not know the call (an image of somebody's own) has none."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("POST", f"http://{host}:{port}/v2/health/pause", timeout=timeout_s, headers=_ALONE) as answer,
        ):
            if answer.status_code != httpx.codes.CONFLICT:
                return 0
            return _inside(await _beginning(answer))
    except (httpx.HTTPError, TimeoutError):
        return 0


def _inside(body: bytes) -> int:
    try:
        return max(1, msgspec.json.decode(body, type=_Busy).inside)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return 1


class _Busy(msgspec.Struct):
    inside: int = 1


async def _beginning(answer: httpx.Response) -> bytes:
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > ANSWER_MAX_BYTES:
            return b""
    return body


def _read(body: bytes) -> _Readiness:
    try:
        return msgspec.json.decode(body, type=_Readiness)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _Readiness()


def _not_ready(said: _Readiness) -> Probe:
    if not _PHASE.fullmatch(said.phase):
        return Probe(ready=False, answers=True, phase="not ready")
    return Probe(ready=False, answers=True, phase=said.phase, phase_since=time.time() - max(0.0, said.seconds))


def _loading(said: _Readiness) -> Loading | None:
    phases = tuple(said.phases.items())[:_MOST_PHASES]
    if not phases or not all(_PHASE.fullmatch(name) and _is_length(seconds) for name, seconds in phases):
        return None
    return Loading(phases, said.ready_at if _is_length(said.ready_at) else 0.0)


def _is_length(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
