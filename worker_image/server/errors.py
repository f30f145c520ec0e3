"""The two ways to fail: a request that cannot be answered, and a model that cannot be served.

Owns the tables from code to HTTP status and from code to exit code; nothing else decides one. Sentences have the form
`<what>: <got>; <rule>; <what to do>`. `docs/CONTRACTS.md` is the reference for the exit codes.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import msgspec

STATUS = {
    "BAD_REQUEST": 400,
    "NOT_FOUND": 404,
    "MODEL_NOT_FOUND": 404,
    "VERSION_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "TOO_LARGE": 413,
    "UNSUPPORTED_ENCODING": 415,
    "NOT_FINITE": 422,
    "MODEL_FAILED": 500,
    "NOT_READY": 503,
    "OVERLOADED": 503,
    "DEADLINE": 504,
}

EXIT_CODES = {
    "BAD_SETTINGS": 64,
    "UNKNOWN_BACKEND": 64,
    "ARTIFACT_MISSING": 65,
    "ARTIFACT_UNREADABLE": 65,
    "VERSION_SKEW": 65,
    "MODULE_MISSING": 65,
    "MODEL_RAISED": 70,
    "OUT_OF_MEMORY": 70,
    "LOAD_TIMEOUT": 71,
    "PREDICT_TIMEOUT": 72,
}


class RequestError(Exception):
    """One request cannot be answered; the caller reads `sentence`. `code` is a key of `STATUS`. `is_final`: computing
    the rest of its batch again, in smaller ones, is not to be tried.
    """

    def __init__(self, code: str, sentence: str, *, is_final: bool = False) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.is_final = is_final

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def body(self, request_id: str) -> bytes:
        return msgspec.json.encode({"error": self.sentence, "code": self.code, "request_id": request_id})


class ModelFailed(Exception):  # noqa: N818 - it is the event "model failed" of the contract
    """The model cannot be served and the process must end; `code` is a key of `EXIT_CODES`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.code]


def bad_request(sentence: str) -> RequestError:
    return RequestError("BAD_REQUEST", sentence)


def unanswerable(exc: Exception) -> RequestError:
    """For what nobody foresaw, in the model's answer or in us."""
    if isinstance(exc, RequestError):
        return exc
    failed = RequestError("MODEL_FAILED", f"the answer could not be sent: {one_line(exc)}; see the log")
    failed.__cause__ = exc
    return failed


def stuck(timeout_s: float) -> RequestError:
    sentence = (
        f"the model did not answer within {timeout_s:g} s; predict_timeout_s allows no more; raise it or mend the model"
    )
    return RequestError("MODEL_FAILED", sentence, is_final=True)


def one_line(exc: BaseException, limit: int = 300) -> str:
    """`KeyError: 'x'`, on one line and not longer than `limit`: for a sentence, not for a debugger."""
    message = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {message}"[:limit] if message else type(exc).__name__


def last_line_of(exc: BaseException, directory: Path | None) -> str:
    """` (model.py:12)`: the deepest line of the author's own code, when there is one."""
    if directory is None:
        return ""
    for frame, line in reversed(list(traceback.walk_tb(exc.__traceback__))):
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(directory):
            return f" ({file.relative_to(directory)}:{line})"
    return ""
