"""Turns the control plane's "no such model" into one that names the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli import words
from orchestrator.cli.errors import ApiError
from orchestrator.cli.verb import Session


@contextmanager
def known_model(session: Session, model: str, version: str = "") -> Iterator[None]:
    """Raises the better error when the block was answered 404. It looks only then: the usual case costs nothing."""
    try:
        yield
    except ApiError as exc:
        if exc.status == 404:
            check(session, model, version)
        raise


def check(session: Session, model: str, version: str = "") -> None:
    """Raises `UsageError` for a model or version that does not exist."""
    models = {each.name: each for each in session.client.status().models}
    if model not in models:
        raise words.unknown("model", model, models)
    versions = [each.version for each in models[model].versions]
    if version and version not in versions:
        raise words.unknown(f"version of {model}", version, versions)
