"""TLS on the public port: handshakes, certificates that change, client certificates, and the protocol above it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from router.__main__ import main
from router.config import ConfigError, Tls
from router.tls import read_context
from tests.fakes.certificates import Certificate, encrypted, self_signed, signed_by
from tests.fakes.gateway import DEADLINE_S, GatewayUnderTest, request, until
from tests.fakes.scripted_replica import ScriptedReplica

from .conftest import StartGateway

Events = Callable[[str], list[dict[str, object]]]


@pytest.fixture
def server(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "localhost")


@pytest.fixture
def tls(server: Certificate) -> Tls:
    return Tls(str(server.certificate), str(server.key))


@pytest.fixture
async def gateway(start_gateway: StartGateway, tls: Tls, replica: ScriptedReplica) -> GatewayUnderTest:
    gateway = await start_gateway(tls=tls)
    gateway.secure = trusting(tls.certificate)
    await gateway.route(replica)
    return gateway


@pytest.fixture
def events(tmp_path: Path) -> Events:
    def read(name: str) -> list[dict[str, object]]:
        lines = map(json.loads, (tmp_path / "gateway.log").read_text().splitlines())
        return [line for line in lines if str(line["event"]).startswith(name)]

    return read


def trusting(authority: str | Path, client: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


async def certificate_of(gateway: GatewayUnderTest) -> bytes:
    """The one that a new connection is shown."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", gateway.port))
    return pem.encode()


class TestAHandshake:
    async def test_carries_requests_and_tells_the_replica(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        client = await gateway.connect()

        answers = [await client.ask(body=b"tensor") for _ in range(3)]

        assert [answer.body for answer in answers] == [b"tensor"] * 3
        assert replica.calls[0].field("x-forwarded-proto") == ["https"]

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_offers_modern_ciphers_and_http_1_1(self, gateway: GatewayUnderTest, version: ssl.TLSVersion) -> None:
        assert gateway.secure is not None
        gateway.secure.maximum_version = gateway.secure.minimum_version = version
        gateway.secure.set_alpn_protocols(["h2", "http/1.1"])
        client = await gateway.connect()

        link = client.writer.get_extra_info("ssl_object")

        assert link.selected_alpn_protocol() == "http/1.1"
        assert "GCM" in link.cipher()[0] or "CHACHA20" in link.cipher()[0]

    async def test_below_tls_1_2_is_refused(self, gateway: GatewayUnderTest) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        gateway.secure = old

        with pytest.raises(OSError):
            await gateway.connect()

    async def test_in_single_bytes_is_the_same(self, gateway: GatewayUnderTest) -> None:
        """The first byte decides that it is TLS, and must not be lost."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        assert gateway.secure is not None
        link = gateway.secure.wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)

        async def exchange(step: Callable[[], object]) -> object:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0)
                    incoming.write(await asyncio.wait_for(reader.read(65_536), DEADLINE_S))

        await exchange(link.do_handshake)
        link.write(request(body=b"tensor"))
        answer = await exchange(lambda: link.read(65_536))
        writer.close()

        assert isinstance(answer, bytes)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    async def test_that_never_begins_or_never_ends_is_cut_and_was_counted(
        self, start_gateway: StartGateway, tls: Tls
    ) -> None:
        gateway = await start_gateway(tls=tls, header_timeout_s=0.3, connections=3)
        clients = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]
        clients[1][1].write(b"\x16")
        clients[2][1].write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        await until(lambda: len(gateway.gateway.connections) == 3)

        beyond = await asyncio.open_connection("127.0.0.1", gateway.port)

        for reader, writer in (beyond, *clients):
            with_nothing = await asyncio.wait_for(reader.read(), 5)
            assert len(with_nothing) <= 7  # at most an alert
            writer.close()
        await until(lambda: not gateway.gateway.connections)

    async def test_of_plain_http_is_told_so_and_named_once(self, gateway: GatewayUnderTest, events: Events) -> None:
        gateway.secure = None
        for _ in range(3):
            client = await gateway.connect()
            client.request()
            answer = await client.answer()
            assert (answer.status, await client.closed()) == (400, b"")

        assert len(events("plain HTTP")) == 1

    async def test_of_garbage_is_closed_in_silence(self, gateway: GatewayUnderTest) -> None:
        for garbage in (b"\x00\xff", b"\x16" * 2_000, b"\x80\x2e\x01\x00\x02"):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(garbage)
            assert len(await asyncio.wait_for(reader.read(), DEADLINE_S)) <= 7
            writer.close()
        await until(lambda: not gateway.gateway.connections)

    async def test_survives_clients_that_vanish_within_it(self, gateway: GatewayUnderTest) -> None:
        for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00"):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(sent)
            await writer.drain()
            writer.transport.abort()

        await until(lambda: not gateway.gateway.connections)
        assert (await gateway.ask()).status == 200

    async def test_does_not_touch_the_private_port(self, gateway: GatewayUnderTest) -> None:
        assert (await gateway.admin("/healthz")).status == 200


class TestCertificates:
    async def test_that_change_are_taken_for_new_connections_and_leave_the_old(
        self, gateway: GatewayUnderTest, server: Certificate, tmp_path: Path, events: Events
    ) -> None:
        client = await gateway.connect()
        await client.ask()
        (tmp_path / "new").mkdir()
        new = self_signed(tmp_path / "new", "localhost")

        replace(server, new)
        await until(lambda: events("certificate read"))

        assert await certificate_of(gateway) == new.certificate.read_bytes()
        assert (await client.ask()).status == 200
        gateway.secure = trusting(server.certificate)
        assert (await gateway.ask()).status == 200

    @pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"])
    async def test_that_turn_bad_are_reported_and_the_old_stay(
        self, gateway: GatewayUnderTest, server: Certificate, events: Events, broken: bytes
    ) -> None:
        before = server.certificate.read_bytes()

        server.certificate.write_bytes(broken)
        await until(lambda: events("certificate refused"))
        assert str(server.certificate) in str(events("certificate refused")[0]["reason"])
        assert await certificate_of(gateway) == before

        server.certificate.write_bytes(before)
        await until(lambda: events("certificate read"))
        assert (await gateway.ask()).status == 200

    async def test_whose_key_others_may_read_are_warned_of(
        self, start_gateway: StartGateway, server: Certificate, tls: Tls, events: Events
    ) -> None:
        server.key.chmod(0o644)

        await start_gateway(tls=tls)

        (warning,) = events("key readable by others")
        assert (warning["file"], warning["mode"]) == (tls.key, "0644")

    @pytest.mark.parametrize(
        ("field", "spoil", "rule"),
        [
            ("certificate", lambda path: path.unlink(), "no such file"),
            ("key", lambda path: path.unlink(), "no such file"),
            ("certificate", lambda path: path.write_text("hello"), "holds no PEM certificate"),
            ("key", lambda path: path.write_text("hello"), "holds no PEM private key"),
            ("key", lambda path: shutil.copy(encrypted(path), path), "it is encrypted"),
            ("key", lambda path: shutil.copy(self_signed(path.parent, "x").key, path), "not the key of the cert"),
            ("client_ca", lambda path: path.unlink(), "no such file"),
            ("client_ca", lambda path: path.write_text("hello"), "holds no PEM certificate"),
        ],
    )
    def test_that_cannot_be_used_end_the_start_with_file_and_rule(
        self, tls: Tls, tmp_path: Path, field: str, spoil: Callable[[Path], object], rule: str
    ) -> None:
        tls = Tls(tls.certificate, tls.key, shutil.copy(tls.certificate, tmp_path / "ca.pem").__str__())
        file = Path(getattr(tls, field))
        spoil(file)

        with pytest.raises(ConfigError, match=rule) as caught:
            read_context(tls)

        assert str(file) in str(caught.value)

    def test_flags_belong_together(self, tls: Tls, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        table = tmp_path / "table.json"
        table.write_text('{"epoch": "e", "revision": 1, "cluster": "c", "models": {}}')

        assert main(["--table", str(table), "--check", "--tls-key", tls.key]) == 2
        assert "belong together" in capsys.readouterr().err
        assert main(["--table", str(table), "--check", "--tls-key", tls.key, "--tls-certificate", tls.certificate]) == 0


class TestClientCertificates:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Certificate:
        return self_signed(tmp_path, "authority")

    @pytest.fixture
    async def gateway(
        self, start_gateway: StartGateway, server: Certificate, authority: Certificate, replica: ScriptedReplica,
        tmp_path: Path,
    ) -> GatewayUnderTest:  # fmt: skip
        tls = Tls(str(server.certificate), str(server.key), str(authority.certificate))
        gateway = await start_gateway(tls=tls, access_log=str(tmp_path / "access.log"))
        await gateway.route(replica)
        return gateway

    async def test_are_demanded(self, gateway: GatewayUnderTest, server: Certificate) -> None:
        gateway.secure = trusting(server.certificate)

        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await gateway.ask()

    async def test_of_another_authority_are_refused(
        self, gateway: GatewayUnderTest, server: Certificate, tmp_path: Path
    ) -> None:
        gateway.secure = trusting(server.certificate, self_signed(tmp_path, "stranger"))

        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await gateway.ask()

    async def test_let_in_and_are_named_in_the_access_log(
        self, gateway: GatewayUnderTest, server: Certificate, authority: Certificate, tmp_path: Path
    ) -> None:
        gateway.secure = trusting(server.certificate, signed_by(authority, tmp_path, "alice"))

        assert (await gateway.ask()).status == 200

        assert gateway.gateway.access_log is not None
        gateway.gateway.access_log.flush()
        assert json.loads((tmp_path / "access.log").read_text())["client_name"] == "alice"


def replace(old: Certificate, new: Certificate) -> None:
    """Key first, so that the pair does not match for a moment, as it happens."""
    shutil.copy(new.key, old.key)
    shutil.copy(new.certificate, old.certificate)


async def test_a_half_sent_request_ends_with_the_connection(
    gateway: GatewayUnderTest, replica: ScriptedReplica
) -> None:
    client = await gateway.connect()
    client.send(request(length=10) + b"half")
    await client.writer.drain()
    fd = os.dup(client.writer.get_extra_info("socket").fileno())

    with socket.socket(fileno=fd) as sock:
        sock.shutdown(socket.SHUT_RDWR)  # without a close_notify

    await until(lambda: not gateway.gateway.connections)
    assert replica.calls == []
