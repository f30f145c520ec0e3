"""Follows an operation to its end: a sentence while it prepares, a bar per version while it converges.

The operation belongs to the control plane: nothing here can end it, and a command that is interrupted or runs out of
time says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.cli import words
from orchestrator.cli.errors import FAILED, INTERRUPTED, INVALID, CliError
from orchestrator.cli.verb import Session

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from orchestrator.api import schemas

# One long poll: short enough that the seconds of a phase are seen to pass, and a deadline and Ctrl-C are kept.
WAIT_S = 0.5
# The least pause between two polls, so that an answer that returns early does not make a busy loop.
PAUSE_S = 0.05
ENDED = ("succeeded", "failed", "superseded")
GOES_ON = "it goes on without this command: `modelfleet status --watch` shows it"


def follow(session: Session, operation: schemas.OperationStatus, timeout_s: float) -> None:
    """Returns when the operation succeeded. Raises `CliError` when it did not, or not in time, after each reason."""
    began = time.monotonic()
    deadline = began + timeout_s
    try:
        with _display(session) as show:
            show(operation)
            while operation.state not in ENDED and time.monotonic() < deadline:
                wait_s = max(0.0, min(WAIT_S, deadline - time.monotonic()))
                before, operation = operation, session.client.operation(operation.id, round(wait_s, 3))
                if operation.fetching != before.fetching:
                    # A model may take hours to come. What must end in time is everything else.
                    deadline = time.monotonic() + timeout_s
                show(operation)
                time.sleep(PAUSE_S)
    except KeyboardInterrupt:
        raise CliError(
            f"interrupted while the {operation.kind} was {operation.state}",
            hint=GOES_ON,
            exit_code=INTERRUPTED,
            code="INTERRUPTED",
        ) from None
    _conclude(session, operation, time.monotonic() - began, timeout_s)


def _conclude(session: Session, operation: schemas.OperationStatus, took_s: float, timeout_s: float) -> None:
    if session.json:
        session.out.json(operation)
    if operation.state == "succeeded":
        session.say(("Done", "green"), f": {_what_is_in_force(operation)} after {words.took(took_s)}.")
        return
    if not session.json:
        _show_reasons(session, operation)
    raise _failure(operation, timeout_s)


def _what_is_in_force(operation: schemas.OperationStatus) -> str:
    ready = sum(1 for each in operation.versions if each.state == "ready")
    ready_ones = f", {words.count(ready, 'version')} ready" if ready else ""
    return f"revision {operation.revision} is in force{ready_ones}"


def _show_reasons(session: Session, operation: schemas.OperationStatus) -> None:
    for each in operation.versions:
        # The operation's own error may name it already.
        if each.state != "ready" and f"{each.model}@{each.version}:" not in operation.error:
            reason = each.reason or words.phase(each.phase, each.phase_s) or "no reason known yet"
            session.err.line(
                (f"  {each.model}@{each.version}  ", "bold"), words.state(each.state),
                f"  {each.ready}/{each.desired} ready: {reason}",
            )  # fmt: skip


def _failure(operation: schemas.OperationStatus, timeout_s: float) -> CliError:
    kind = operation.kind
    if operation.state == "superseded":
        return CliError(
            f"the {kind} was superseded by a newer one", hint="`modelfleet history` shows it", code="SUPERSEDED"
        )
    if operation.state == "failed" and operation.revision is None:
        return CliError(
            f"the {kind} failed before anything was changed: {operation.error or operation.step}",
            exit_code=INVALID if operation.diagnostics else FAILED,
            code="PREPARE_FAILED",
            diagnostics=operation.diagnostics,
        )
    if operation.state == "failed":
        why = operation.error or "not all versions became ready"
        return CliError(f"the {kind} did not converge: {why}", hint=_next_step(operation), code="NOT_CONVERGED")
    return CliError(f"the {kind} is not done after {timeout_s:g} s: {operation.step}", hint=GOES_ON, code="TIMEOUT")


def _next_step(operation: schemas.OperationStatus) -> str:
    broken = next((each for each in operation.versions if each.state != "ready"), None)
    look = f"`modelfleet logs {broken.model}@{broken.version}` shows what it printed" if broken else ""
    back = "`modelfleet rollback` returns to the revision before" if (operation.revision or 0) > 1 else ""
    return "; ".join(filter(None, (look, back))) or "`modelfleet status` shows where it stands"


Show = Callable[["schemas.OperationStatus"], None]


def _display(session: Session) -> AbstractContextManager[Show]:
    if not session.tells:
        return nullcontext(lambda _operation: None)
    return _Bars(session) if session.out.is_terminal else nullcontext(_Lines(session).show)


@dataclass(slots=True)
class _Lines:
    """Progress for a pipe: a line for each thing that changed."""

    session: Session
    step: str = ""
    versions: dict[str, str] | None = None
    fetched: dict[str, int] = field(default_factory=dict)

    def show(self, operation: schemas.OperationStatus) -> None:
        if operation.step and operation.step != self.step:
            self.step = operation.step
            self.session.out.line(f"{operation.state}: {operation.step}")
        for fetch in operation.fetching:
            self._show_fetch(fetch)
        known = self.versions = self.versions or {}
        for each in operation.versions:
            name, now = f"{each.model}@{each.version}", f"{each.ready}/{each.desired} {each.state}"
            if known.get(name) != now:
                known[name] = now
                self.session.out.line(f"  {name}  {now}{f': {each.reason}' if each.reason else ''}")

    def _show_fetch(self, fetch: schemas.FetchProgress) -> None:
        """A line for each tenth of the bytes, or each gigabyte where nobody knows how many there are."""
        name, step = f"{fetch.model}@{fetch.version}", (fetch.total_bytes or 10**10) / 10
        tenth = int(fetch.done_bytes / step) if step else 10
        if self.fetched.get(name) != tenth:
            self.fetched[name] = tenth
            self.session.out.line(f"  {name}  {words.fetched(fetch.done_bytes, fetch.total_bytes)}: {fetch.source}")


class _Bars:
    """Progress for a terminal."""

    def __init__(self, session: Session) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(finished_text=" "), TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20), TextColumn("{task.fields[note]}", markup=False), TimeElapsedColumn(),
            console=session.out.console,
        )  # fmt: skip
        self._step = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=session.out.console,
        )
        self._session = session
        # What is left beside the bar, a name of usual length and the clock.
        self._room = max(20, (session.out.width or 80) - 52)
        self._tasks: dict[str, TaskID] = {}
        self._step_task = self._step.add_task("", total=None)

    def __enter__(self) -> Show:
        from rich.console import Group
        from rich.live import Live

        self._live: Any = Live(
            Group(self._step, self._progress), console=self._session.out.console, refresh_per_second=8, transient=False
        )
        self._live.__enter__()
        return self.show

    def __exit__(self, *exc: object) -> None:
        self._step.update(self._step_task, visible=False)
        self._live.__exit__(*exc)

    def show(self, operation: schemas.OperationStatus) -> None:
        self._step.update(self._step_task, description=f"{operation.state}: {operation.step}")
        for fetch in operation.fetching:
            self._show_fetch(fetch)
        for each in operation.versions:
            name = f"{each.model}@{each.version}"
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=max(1, each.desired), note="")
            self._advance(self._tasks[name], each)

    def _show_fetch(self, fetch: schemas.FetchProgress) -> None:
        """The same bar that later fills with ready replicas: one line a version."""
        name = f"{fetch.model}@{fetch.version}"
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, note="")
        note = words.fetched(fetch.done_bytes, fetch.total_bytes)
        self._progress.update(
            self._tasks[name], total=fetch.total_bytes, completed=fetch.done_bytes, note=note[: self._room]
        )

    def _advance(self, task: TaskID, each: schemas.VersionProgress) -> None:
        note = f"{each.ready}/{each.desired} {each.state}"
        if each.state != "ready" and (more := words.phase(each.phase, each.phase_s) or each.reason):
            note = f"{note}: {more}"
        is_there = each.state == "ready"
        total = max(1, each.desired)
        # A version that is being replaced has its old replicas ready: the bar is full only when the new ones are.
        done = total if is_there else min(each.ready, total - 0.5)
        self._progress.update(task, total=total, completed=done, note=note[: self._room])
