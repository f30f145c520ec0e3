"""The tests of connections and streams, run over TLS: back-pressure, closing and limits must not know the difference."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from router.config import Tls
from tests.fakes.certificates import self_signed
from tests.fakes.gateway import GatewayUnderTest

from . import conftest
from .conftest import StartGateway
from .test_gateway_connections import TestExpectation, TestKeepAlive, TestTimeouts
from .test_gateway_faults import TestAFault, faults, is_served
from .test_gateway_streaming import TestDownload, TestUpload

__all__ = [
    "TestAFault", "TestDownload", "TestExpectation", "TestKeepAlive", "TestTimeouts", "TestUpload", "faults", "is_served",
]  # fmt: skip

plain_gateway = conftest.start_gateway


@pytest.fixture
async def start_gateway(plain_gateway: StartGateway, tmp_path: Path) -> StartGateway:
    server = self_signed(tmp_path, "localhost")
    trusted = ssl.create_default_context(cafile=str(server.certificate))

    async def start(access_log: str = "", **limits: float) -> GatewayUnderTest:
        tls = Tls(str(server.certificate), str(server.key))
        gateway = await plain_gateway(access_log, tls=tls, **limits)
        gateway.secure = trusted
        return gateway

    return start


async def test_these_tests_speak_tls(gateway: GatewayUnderTest) -> None:
    client = await gateway.connect()

    assert client.writer.get_extra_info("cipher")
