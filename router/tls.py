"""TLS of the public port: the certificate in force, read again when its files change.

Owns the rules for the files and what a handshake offers: TLS 1.2 and 1.3 with forward secrecy, HTTP/1.1 on one port
and HTTP/2, which is gRPC's, on the other. A file that cannot be used ends a start; later it is reported, and the
certificate before it stays in force. Connections keep what they were opened with. The handshake is `proto/entrance.py`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from router.config import ConfigError, Tls
from router.log import EventLog

WATCH_S: Final = 1.0
# Of TLS 1.2 (those of 1.3 are all good): ephemeral keys, authenticated encryption.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_BEGIN_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
HTTP: Final = "http/1.1"
HTTP2: Final = "h2"


class Certificates:
    """What new handshakes get. Raises `ConfigError` when the files cannot be used at the start."""

    def __init__(self, tls: Tls, log: EventLog) -> None:
        self._tls = tls
        self._log = log
        self._stamp = _stamp(tls)
        self._current = _read_contexts(tls)
        # A server takes one context for its life, so these hand each handshake on to the current one.
        self._contexts = _read_contexts(tls)
        for protocol, context in self._contexts.items():
            context.sni_callback = partial(self._choose, protocol)
        self._warn_of_key()

    def context(self, protocol: str) -> ssl.SSLContext:
        """For all handshakes of a port that speaks `HTTP` or `HTTP2`."""
        return self._contexts[protocol]

    async def watch(self) -> None:
        """Follows the files until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            stamp = await asyncio.to_thread(_stamp, self._tls)
            if stamp != self._stamp:
                self._stamp = stamp
                await self._reload()

    async def _reload(self) -> None:
        try:
            self._current = await asyncio.to_thread(_read_contexts, self._tls)
        except ConfigError as exc:
            self._log.error("certificate refused; the one before it stays in force", reason=str(exc))
            return
        self._log.info("certificate read", file=self._tls.certificate)
        self._warn_of_key()

    def _choose(
        self, protocol: str, handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        handshake.context = self._current[protocol]

    def _warn_of_key(self) -> None:
        mode = stat.S_IMODE(os.stat(self._tls.key).st_mode)
        if mode & 0o077:
            self._log.warning(
                "key readable by others; take their rights away", file=self._tls.key, mode=f"{mode:04o}", wanted="0600"
            )


def _read_contexts(tls: Tls) -> dict[str, ssl.SSLContext]:
    return {protocol: read_context(tls, protocol) for protocol in (HTTP, HTTP2)}


def read_context(tls: Tls, protocol: str = HTTP) -> ssl.SSLContext:
    """Raises `ConfigError` that names the file and what is wrong with it."""
    certificate, key = _read(tls.certificate, "certificate"), _read(tls.key, "key")
    if _BEGIN_CERTIFICATE not in certificate:
        _refuse("certificate", tls.certificate, "it holds no PEM certificate", "give the chain, the server's own first")
    if b"PRIVATE KEY-----" not in key:
        _refuse("key", tls.key, "it holds no PEM private key", "give the certificate's own key")
    if b"ENCRYPTED" in key:
        _refuse("key", tls.key, "it is encrypted", "the gateway starts without a person; give it without a password")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, OSError) as exc:
        reason = getattr(exc, "reason", None) or str(exc)
        what = "it is not the key of the certificate" if reason == "KEY_VALUES_MISMATCH" else f"not usable: {reason}"
        _refuse("key", tls.key, f"{what} ({tls.certificate})", "give the certificate's own key")
    if tls.client_ca:
        _demand_client_certificate(context, tls)
    return context


def _demand_client_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    if _BEGIN_CERTIFICATE not in _read(tls.client_ca, "client_ca"):
        _refuse("client_ca", tls.client_ca, "it holds no PEM certificate", "give the authority's certificate")
    try:
        context.load_verify_locations(tls.client_ca)
    except (ssl.SSLError, OSError) as exc:
        _refuse("client_ca", tls.client_ca, f"not usable: {exc}", "give the authority's certificate")
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would not be checked against an authority that changed meanwhile.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def common_name(peer: dict[str, object] | None) -> str:
    """Of the subject of a client's certificate, "" without."""
    subject = peer.get("subject", ()) if peer else ()
    assert isinstance(subject, tuple)
    return next((value for part in subject for name, value in part if name == "commonName"), "")


def _read(file: str, field: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        _refuse(field, file, (exc.strerror or str(exc)).lower(), "it must be a readable PEM file")


def _refuse(field: str, file: str, what: str, remedy: str) -> NoReturn:
    raise ConfigError(f"tls.{field}: {file}: {what}; {remedy}")


def _stamp(tls: Tls) -> tuple[object, ...]:
    """Changes when a file does; a missing one is a change too."""
    stamps: list[object] = []
    for file in (tls.certificate, tls.key, tls.client_ca):
        try:
            found = os.stat(file)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(stamps)
