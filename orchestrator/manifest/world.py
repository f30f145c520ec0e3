"""What a manifest needs of the world: sources that exist, secrets that have a value, certificates that can be used.

Also that its gateway is not open to strangers. All of it is asked before an apply, and not when a revision of an
earlier release is read again: what runs goes on. The only part of this package, beside `load_file`, that does I/O, and
it only looks. Secret values and keys are read to see that there is one, and are never kept or shown. Remote sources
are not fetched: that is for the artifact store.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from orchestrator.core.sources import redacted
from orchestrator.manifest.diagnostics import Diagnostic, Path
from orchestrator.manifest.gateway import TlsConfig
from orchestrator.manifest.model import Manifest, VersionConfig
from orchestrator.manifest.secrets import SecretRef

# Secrets become environment variables, and Linux bounds one of those to 128 KiB.
MAX_SECRET_BYTES = 128 * 1024 - 1024
TRACING_PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
MAX_REQUIREMENTS_BYTES = 1024 * 1024


def check_world(manifest: Manifest, *, environ: Mapping[str, str]) -> tuple[Diagnostic, ...]:
    """Everything that would make an apply fail for want of a file or variable. Blocks on the file system."""
    found = {
        manifest.diagnostic(("models", name, "versions", version, *field), message)
        for name, model in manifest.models.items()
        for version, config in model.versions.items()
        for field, message in _version_faults(manifest, config, environ)
    }
    credentials = {manifest.diagnostic(at, message) for at, message in _credential_faults(manifest, environ)}
    tracing = {manifest.diagnostic(at, message) for at, message in _tracing_faults(manifest, environ)}
    return _sorted({*found, *credentials, *tracing, *check_gateway(manifest)})


def check_gateway(manifest: Manifest) -> tuple[Diagnostic, ...]:
    """Everything that would keep the gateway from starting, but ports that are taken. Blocks on the file system."""
    return _sorted({manifest.diagnostic(("gateway", *at), message) for at, message in _gateway_faults(manifest)})


def _tracing_faults(manifest: Manifest, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    tracing = manifest.observability.tracing
    if tracing is None:
        return
    if not _is_installed(*TRACING_PACKAGES):
        fault = "the packages of OpenTelemetry are not installed where the control plane runs; traces need them"
        yield ("observability", "tracing"), f"{fault}; run: pip install 'modelfleet[tracing]'"
    if tracing.headers is not None and (fault := _secret_fault(manifest, tracing.headers, environ)):
        yield ("observability", "tracing", "headers", "env" if tracing.headers.env else "file"), fault


def _is_installed(*packages: str) -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in packages)
    except ModuleNotFoundError:
        return False


def _sorted(found: set[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(found, key=lambda d: (d.line, d.column, d.field, d.message)))


def _gateway_faults(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    gateway = manifest.gateway
    if gateway.is_open:
        yield (
            ("host",),
            (
                f"'{gateway.host}' lets other machines in; `auth: off` is for loopback alone; write `auth: required`, "
                f"and give each caller a key with `modelfleet keys create`"
            ),
        )
    if gateway.tls is None:
        return
    faults = list(_tls_file_faults(manifest, gateway.tls))
    yield from faults or _tls_faults(manifest, gateway.tls)


def _tls_file_faults(manifest: Manifest, tls: TlsConfig) -> Iterator[tuple[Path, str]]:
    for field, file in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        if file is not None and (fault := _readable_fault(manifest.path(file), "put the PEM file there")):
            yield ("tls", field), fault


def _tls_faults(manifest: Manifest, tls: TlsConfig) -> Iterator[tuple[Path, str]]:
    """Loads the files as the gateway will."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password gets a wrong one: without it OpenSSL would ask the terminal.
        context.load_cert_chain(manifest.path(tls.certificate), manifest.path(tls.key), password="")
    except (ssl.SSLError, ValueError) as exc:
        fault = f"it and the certificate are no pair of PEM files that can be used: {_reason(exc)}"
        yield ("tls", "key"), f"{fault}; give the certificate's own key, without a password"
    if tls.client_ca is None:
        return
    try:
        context.load_verify_locations(manifest.path(tls.client_ca))
    except ssl.SSLError as exc:
        yield ("tls", "client_ca"), f"no PEM file of certificates: {_reason(exc)}; give the authority's certificate"


def _reason(exc: Exception) -> str:
    reason = exc.reason if isinstance(exc, ssl.SSLError) and exc.reason else str(exc)
    return reason.replace("_", " ").lower()


def _readable_fault(path: FilePath, remedy: str) -> str:
    try:
        return _file_fault(path, f"{remedy}, or correct the path")
    except OSError as exc:
        return f"'{path}' cannot be read: {exc.strerror}; check its permissions"


def _credential_faults(manifest: Manifest, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for host, credential in manifest.sources.credentials.items():
        for field, secret in (("token", credential.token), ("password", credential.password)):
            if secret is not None and (fault := _secret_fault(manifest, secret, environ)):
                yield ("sources", "credentials", host, field, "env" if secret.env else "file"), fault


def _version_faults(
    manifest: Manifest, config: VersionConfig, environ: Mapping[str, str]
) -> Iterator[tuple[Path, str]]:
    if config.source and (fault := _source_fault(manifest, config)):
        yield ("source",), fault
    for name, secret in config.secrets.items():
        if fault := _secret_fault(manifest, secret, environ):
            yield ("secrets", name, "env" if secret.env else "file"), fault


def _source_fault(manifest: Manifest, config: VersionConfig) -> str:
    """Why the file or folder cannot be served from, or ""."""
    try:
        path = manifest.local_path(config.source or "")
    except (RuntimeError, ValueError) as exc:  # `~nobody/model`, or an address that is none
        return f"'{redacted(config.source or '')}' names no place: {exc}; write its path in full"
    if path is None:
        return ""
    return _local_fault(path) or _requirements_fault(path)


def _local_fault(path: FilePath) -> str:
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                empty = next(entries, None) is None
            return f"'{path}' is an empty folder; put the model into it" if empty else ""
        return _file_fault(path, "put the model there, or correct the path")
    except OSError as exc:
        return f"'{path}' cannot be read: {exc.strerror}; check its permissions"


def _file_fault(path: FilePath, remedy: str) -> str:
    if not path.exists():
        return f"'{path}' does not exist; {remedy}"
    if not path.is_file():
        return f"'{path}' is neither a file nor a folder; {remedy}"
    with path.open("rb") as stream:
        return "" if stream.read(1) else f"'{path}' is empty; {remedy}"


def _requirements_fault(source: FilePath) -> str:
    requirements = source / "requirements.txt"
    if not requirements.exists():
        return ""
    try:
        if requirements.stat().st_size > MAX_REQUIREMENTS_BYTES:
            return f"'{requirements}' is larger than {MAX_REQUIREMENTS_BYTES:,} bytes; list packages in it, one a line"
        requirements.read_text(encoding="utf-8")
    except OSError as exc:
        return f"'{requirements}' cannot be read: {exc.strerror}; check its permissions"
    except UnicodeDecodeError:
        return f"'{requirements}' is not UTF-8 text; save it in that encoding"
    return ""


def _secret_fault(manifest: Manifest, secret: SecretRef, environ: Mapping[str, str]) -> str:
    if secret.env is not None:
        if secret.env not in environ:
            return f"'{secret.env}' is not set where this was checked; export it before `modelfleet up`, or use `file:`"
        return "" if environ[secret.env] else f"'{secret.env}' is set but empty; give it a value"
    path = manifest.path(secret.file or "")
    return _readable_fault(path, "write the secret into it") or _secret_content_fault(path)


def _secret_content_fault(path: FilePath) -> str:
    with path.open("rb") as stream:
        raw = stream.read(MAX_SECRET_BYTES + 1)
    if len(raw) > MAX_SECRET_BYTES:
        return f"'{path}' is larger than {MAX_SECRET_BYTES:,} bytes, the most a variable holds; shorten it"
    if b"\0" in raw or not _is_utf8(raw):
        return f"'{path}' is not UTF-8 text; a secret becomes an environment variable; encode it, for example as base64"
    return ""


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
