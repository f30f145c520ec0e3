"""The sources of a manifest: looked at or fetched together, each once, and all that is wrong with them said at once.

`look` is for a plan and brings nothing that a look can tell; `fetch` is for an apply. Credentials are read here, given
to the store, and kept nowhere. Blocking: use a thread.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.adapters._content import Artifact
from orchestrator.adapters.artifacts import ArtifactStore, Seen
from orchestrator.adapters.sources.remote import Access, Credential
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import ConflictError, FleetError, UnavailableError, UserError
from orchestrator.core.sources import Source
from orchestrator.manifest import CredentialConfig, Manifest, ManifestError, SecretRef, VersionConfig

T = TypeVar("T")

PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Fetching:
    """How far the fetch of one version's source is. `total_bytes` None: nobody knows."""

    key: VersionKey
    source: str
    done_bytes: int
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how an apply gets on: sentences, and bytes. Called from any thread."""

    step: Callable[[str], None]
    fetching: Callable[[Fetching], None] = field(default=lambda _: None)


def look_at_all(store: ArtifactStore, manifest: Manifest) -> dict[VersionKey, Seen]:
    """What every source is now. Raises `FleetError` with all that cannot be had."""
    access = access_of(manifest)
    return _for_each(manifest, lambda _, source: store.look(source, manifest.base_dir, access))


def fetch_all(store: ArtifactStore, manifest: Manifest, watcher: Watcher) -> dict[VersionKey, Artifact]:
    """Every source in the store. Raises `FleetError` with all that cannot be had."""
    access = access_of(manifest)

    def fetch(key: VersionKey, source: Source) -> Artifact:
        watcher.step(f"reading the source of {key}: {source}")
        return store.fetch(
            source, manifest.base_dir, access,
            lambda done, total: watcher.fetching(Fetching(key, str(source), done, total)),
        )  # fmt: skip

    return _for_each(manifest, fetch)


def access_of(manifest: Manifest) -> Access:
    """With the credentials' values as they are now in the environment and in files."""
    found = {host: _credential(each, manifest) for host, each in manifest.sources.credentials.items()}
    return Access(manifest.sources.max_size_bytes, found)


def versions_of(manifest: Manifest) -> list[tuple[VersionKey, VersionConfig]]:
    return [(VersionKey(m, v), c) for m, model in manifest.models.items() for v, c in model.versions.items()]


def secret_value(secret: SecretRef, base_dir: Path) -> str:
    if secret.file is not None:
        return (base_dir / secret.file).read_text().rstrip("\n")
    return os.environ[secret.env or ""]


def located(manifest: Manifest, key: VersionKey, field_name: str, error: FleetError) -> FleetError:
    """The same error, with the place in the manifest that caused it, when the user can mend it there."""
    if not 400 <= error.status < 500 or isinstance(error, ConflictError | ManifestError):
        return error
    return ManifestError((manifest.diagnostic(_path(key, field_name), str(error)),))


def _for_each(manifest: Manifest, work: Callable[[VersionKey, Source], T]) -> dict[VersionKey, T]:
    """`work` for each different source, a few at a time; its results by version."""
    versions = {key: _source(version) for key, version in versions_of(manifest) if version.source}
    asked: dict[Source, tuple[VersionKey, Future[T]]] = {}
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="source") as pool:
        for key, source in versions.items():
            if source not in asked:
                asked[source] = (key, pool.submit(work, key, source))
    errors = [(key, error) for key, future in asked.values() if (error := future.exception())]
    if errors:
        raise _joined(manifest, errors)
    return {key: asked[source][1].result() for key, source in versions.items()}


def _joined(manifest: Manifest, errors: list[tuple[VersionKey, BaseException]]) -> BaseException:
    """All of it, each at its line, if the user can mend any; else what the environment must."""
    ours = [error for _, error in errors if not isinstance(error, FleetError)]
    if ours:
        return ours[0]
    if any(isinstance(error, UserError) for _, error in errors):
        return ManifestError(manifest.diagnostic(_path(key, "source"), str(error)) for key, error in errors)
    if len(errors) == 1:
        return errors[0][1]
    return UnavailableError("\n".join(str(error) for _, error in errors))


def _path(key: VersionKey, field_name: str) -> tuple[str, ...]:
    return ("models", key.model, "versions", key.version, field_name)


def _source(version: VersionConfig) -> Source:
    return Source(version.source or "", version.sha256 or "", version.unpack)


def _credential(config: CredentialConfig, manifest: Manifest) -> Credential:
    if config.token is None:
        assert config.password is not None
        pair = f"{config.user}:{secret_value(config.password, manifest.base_dir)}"
        return Credential("authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    token = secret_value(config.token, manifest.base_dir)
    return Credential(config.header, token) if config.header else Credential("authorization", f"Bearer {token}")
