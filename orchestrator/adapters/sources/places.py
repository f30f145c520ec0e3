"""Which kind of place a source is in. Nothing is imported for a kind before a source of it is opened."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from orchestrator.adapters.sources.remote import Access, Remote
from orchestrator.core.sources import scheme_of


@dataclass(frozen=True, slots=True)
class Installed:
    """An optional client library: the extra that brings it, and its version, "" if it is not there."""

    extra: str
    package: str
    version: str


def open_remote(source: str, access: Access) -> Remote:
    """Raises `UserError` for a scheme that nothing here can read, or whose library is not installed."""
    scheme = scheme_of(source)
    if scheme in ("http", "https"):
        from orchestrator.adapters.sources.web import WebFile

        return WebFile(source, access)
    if scheme == "hf":
        from orchestrator.adapters.sources.hub import HubRepository

        return HubRepository(source, access)
    if scheme == "mlflow" or scheme.startswith("mlflow+"):
        from orchestrator.adapters.sources.mlflow import MlflowArtifacts

        return MlflowArtifacts(source, access, lambda inner: open_remote(inner, access))
    from orchestrator.adapters.sources.filesystems import Bucket

    return Bucket(source)


def readable_in_words() -> str:
    """Which sources can be read here, and which extras are not installed. Nothing may need those: it is no fault."""
    clients = installed_clients()
    there = [f"{each.extra}:// ({each.package} {each.version})" for each in clients if each.version]
    missing = [f"modelfleet[{each.extra}]" for each in clients if not each.version]
    readable = ", ".join(["paths", "http(s)://", "hf://", "MLflow", *there])
    return f"{readable}; not installed: {', '.join(missing)}" if missing else readable


def installed_clients() -> list[Installed]:
    """The optional libraries by their extras. Imports none of them."""
    found = []
    for extra, package in (("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")):
        try:
            version = importlib.metadata.version(package) if importlib.util.find_spec(package) else ""
        except importlib.metadata.PackageNotFoundError:
            version = ""
        found.append(Installed(extra, package, version))
    return found
