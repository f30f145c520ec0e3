"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """PEM files. A self-signed certificate is its own authority."""

    certificate: Path
    key: Path


def self_signed(directory: Path, name: str = "server") -> Certificate:
    """A new certificate for localhost, valid for a day."""
    return _make(directory, name)


def signed_by(authority: Certificate, directory: Path, name: str) -> Certificate:
    """A new certificate that `authority` signed, valid for a day."""
    return _make(directory, name, "-CA", authority.certificate, "-CAkey", authority.key)


def encrypted(key: Path) -> Path:
    """The same key behind a password."""
    path = key.with_suffix(".encrypted")
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


def _make(directory: Path, name: str, *signer: str | Path) -> Certificate:
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", made.key, "-out", made.certificate, "-days", "1", "-subj", f"/CN={name}", "-addext", _NAMES,
         *signer],
        check=True, capture_output=True,
    )  # fmt: skip
    made.key.chmod(0o600)
    return made
