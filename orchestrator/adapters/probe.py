"""Asks a replica whether it is ready: one GET on a connection of its own. Never raises for what a replica does.

The answer separates three things that must not be mixed: it is ready; it answers and says what it is doing; nothing
answers at its port.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import msgspec


@dataclass(frozen=True, slots=True)
class Probe:
    """`answers`: something speaks HTTP there. `phase`: what the model server says it is doing."""

    ready: bool
    answers: bool
    phase: str = ""


class _Readiness(msgspec.Struct):
    phase: str = ""
    seconds: float = 0.0


SILENT = Probe(ready=False, answers=False)


async def probe(client: httpx.AsyncClient, host: str, port: int, timeout_s: float) -> Probe:
    """`GET /v2/health/ready`: 200 is ready, any other answer is not yet."""
    try:
        answer = await client.get(f"http://{host}:{port}/v2/health/ready", timeout=timeout_s)
    except httpx.HTTPError:
        return SILENT
    if answer.status_code == httpx.codes.OK:
        return Probe(ready=True, answers=True)
    return Probe(ready=False, answers=True, phase=_phase(answer.content))


def _phase(body: bytes) -> str:
    try:
        said = msgspec.json.decode(body, type=_Readiness)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return "not ready"
    return f"{said.phase} for {said.seconds:.0f} s" if said.phase else "not ready"
