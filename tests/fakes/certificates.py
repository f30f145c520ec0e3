"""Certificates for tests, made by the openssl command: one for this machine, signed by itself."""

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
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", made.key, "-out", made.certificate, "-days", "1", "-subj", f"/CN={name}", "-addext", _NAMES],
        check=True, capture_output=True,
    )  # fmt: skip
    return made
