"""The control plane's log: one event a line on standard error, JSON or, on a terminal, for people.

The keys `ts`, `level` and `event` come first and are those of gateway and model server (docs/LOGS.md). Libraries that
log by themselves are events too. MODELFLEET_LOG_FORMAT and MODELFLEET_LOG_LEVEL say otherwise.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from orchestrator.core.errors import UserError
from orchestrator.core.log_lines import LEVELS

FORMATS = ("json", "human")


def configure(environ: Mapping[str, str], *, is_terminal: bool) -> None:
    """Raises `UserError` for a word that is none."""
    form = _word(environ, "MODELFLEET_LOG_FORMAT", FORMATS, "human" if is_terminal else "json")
    level = _word(environ, "MODELFLEET_LOG_LEVEL", LEVELS, "info")
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _renamed,
            _for_people if form == "human" else structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(handlers=[_Events()], level=max(number, logging.WARNING), force=True)


def _word(environ: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    word = environ.get(name, "") or default
    if word not in allowed:
        raise UserError(f"{name}: {word!r} is not known; write {' or '.join(allowed)}, or leave it out")
    return word


def _renamed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The first three keys in their order, whatever was bound."""
    first = {key: event[key] for key in ("ts", "level", "event") if key in event}
    return {**first, **{key: value for key, value in event.items() if key not in first}}


_render = structlog.dev.ConsoleRenderer(timestamp_key="ts")


def _for_people(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    return _render(logger, method, event)


class _Events(logging.Handler):
    """What libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        event = structlog.get_logger("modelfleet").bind(logger=record.name)
        say = {"WARNING": event.warning, "ERROR": event.error, "CRITICAL": event.error}.get(
            record.levelname, event.info
        )
        say(record.getMessage(), **({"exc_info": record.exc_info} if record.exc_info else {}))
