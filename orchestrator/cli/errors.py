"""How a command fails: one `Error:` line, a hint, and an exit code.

The exit codes stand here and nowhere else: 0 done, 1 failed or not converged, 2 the caller's input is wrong, 3 no
control plane answers, 130 interrupted. Verbs raise; `verb.py` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import schemas
    from orchestrator.manifest import diagnostics as manifest_diagnostics

    # The control plane's and the manifest reader's are alike in all that is printed.
    Diagnostic = schemas.Diagnostic | manifest_diagnostics.Diagnostic

FAILED = 1
INVALID = 2
NOT_RUNNING = 3
INTERRUPTED = 130


class CliError(Exception):
    """Ends a command. `message` is one sentence about what is wrong, `hint` the step that mends it."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        exit_code: int = FAILED,
        code: str = "FAILED",
        diagnostics: Sequence[Diagnostic] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.code = code
        self.diagnostics = diagnostics

    def body(self) -> dict[str, Any]:
        """An `ErrorBody`, for scripts."""
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return {"error": text, "code": self.code, "diagnostics": [_plain(each) for each in self.diagnostics]}


class UsageError(CliError):
    """What was typed cannot be meant."""

    def __init__(self, message: str, *, hint: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(message, hint=hint, exit_code=INVALID, code="INVALID", diagnostics=diagnostics)


class NotRunningError(CliError):
    """No control plane answers for this state directory."""

    def __init__(self, message: str, *, hint: str = "start one with `modelfleet up`") -> None:
        super().__init__(message, hint=hint, exit_code=NOT_RUNNING, code="NOT_RUNNING")


class ApiError(CliError):
    """The control plane said no. `status` is the HTTP status it said it with."""

    def __init__(
        self, status: int, message: str, code: str, diagnostics: Sequence[Diagnostic] = (), hint: str = ""
    ) -> None:
        exit_code = INVALID if 400 <= status < 500 else FAILED
        super().__init__(message, hint=hint, exit_code=exit_code, code=code, diagnostics=diagnostics)
        self.status = status


def _plain(diagnostic: Diagnostic) -> dict[str, Any]:
    return {name: getattr(diagnostic, name) for name in ("file", "line", "column", "field", "message")}
