"""What a manifest needs of the world: sources that exist, secrets that have a value.

The only part of this package, beside `load_file`, that does I/O, and it only looks. Secret values are read to see that
there is one, and are never kept or shown. Remote sources are not fetched: that is for the artifact store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from orchestrator.manifest.diagnostics import Diagnostic, Path
from orchestrator.manifest.model import Manifest, SecretRef, VersionConfig

# Secrets become environment variables, and Linux bounds one of those to 128 KiB.
MAX_SECRET_BYTES = 128 * 1024 - 1024
MAX_REQUIREMENTS_BYTES = 1024 * 1024


def check_world(manifest: Manifest, *, environ: Mapping[str, str]) -> tuple[Diagnostic, ...]:
    """Everything that would make an apply fail for want of a file or variable. Blocks on the file system."""
    found = {
        manifest.diagnostic(("models", name, "versions", version, *field), message)
        for name, model in manifest.models.items()
        for version, config in model.versions.items()
        for field, message in _version_faults(manifest, config, environ)
    }
    return tuple(sorted(found, key=lambda d: (d.line, d.column, d.field, d.message)))


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
        return f"'{config.source}' names no place: {exc}; write its path in full"
    if path is None:
        return ""
    return _local_fault(path) or _requirements_fault(path, config)


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


def _requirements_fault(source: FilePath, config: VersionConfig) -> str:
    requirements = source / "requirements.txt"
    if config.backend != "python" or not requirements.exists():
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
    path = manifest.base_dir / (secret.file or "")
    try:
        return _file_fault(path, "write the secret into it, or correct the path") or _secret_content_fault(path)
    except OSError as exc:
        return f"'{path}' cannot be read: {exc.strerror}; check its permissions"


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
