"""Gateways inside the test's own loop (uvloop, as in production).

At its end each is checked for slots that were not given back and for faults: exceptions that nobody injected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from router.config import Config, Limits, Tls, Tracing
from router.log import EventLog
from router.server import Gateway
from tests.fakes.gateway import GatewayUnderTest, InjectedFaultError
from tests.fakes.scripted_replica import ScriptedReplica

StartGateway = Callable[..., Awaitable[GatewayUnderTest]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def start_gateway(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Starts a gateway with the limits named."""
    started: list[GatewayUnderTest] = []
    log = EventLog(str(tmp_path / "gateway.log"))

    async def start(
        access_log: str = "",
        shadow_samples: str = "",
        tls: Tls | None = None,
        auth: str = "off",
        control_url: str = "",
        token_file: str = "",
        tracing: Tracing | None = None,
        **limits: float,
    ) -> GatewayUnderTest:
        config = Config(
            port=0,
            metrics_port=0,
            grpc_port=0,
            table_file="" if control_url else "unused",
            control_url=control_url,
            token_file=token_file,
            access_log=access_log,
            tls=tls,
            auth=auth,  # type: ignore[arg-type]
            shadow_samples=shadow_samples,
            tracing=tracing,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )
        gateway = Gateway(config, log)
        await gateway.listen()
        started.append(GatewayUnderTest(gateway))
        return started[-1]

    yield start
    for gateway in started:
        await gateway.close()
    log.close()
    lines = (tmp_path / "gateway.log").read_text().splitlines()
    assert [line for line in lines if '"fault"' in line and InjectedFaultError.__name__ not in line] == []


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> GatewayUnderTest:
    return await start_gateway()


@pytest.fixture
async def replica() -> AsyncIterator[ScriptedReplica]:
    """Echoes bodies; a test may give it another script."""
    async with ScriptedReplica() as replica:
        yield replica
        assert replica.errors == []
