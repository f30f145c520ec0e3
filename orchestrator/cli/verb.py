"""What every verb shares: the global options, a `Session` to work with, and one way to fail.

A verb is a function `(session, arguments...) -> exit code or None` under `@verb(examples...)`. It raises
`CliError`; it never prints an error itself and never ends the process. `main.py` finds the verbs.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer

from orchestrator.cli import control
from orchestrator.cli.errors import INTERRUPTED, CliError, UsageError
from orchestrator.cli.screen import Screen
from orchestrator.config import default_state_dir
from orchestrator.core.errors import FleetError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client


class Output(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that may stand before or after the verb. None: not given there."""

    state_dir: Path | None = None
    output: Output | None = None
    no_color: bool = False
    quiet: bool = False

    def under(self, outer: Globals) -> Globals:
        """These, and `outer` where these say nothing."""
        return Globals(
            self.state_dir or outer.state_dir,
            self.output or outer.output,
            self.no_color or outer.no_color,
            self.quiet or outer.quiet,
        )


StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", metavar="DIR", file_okay=False, show_default=False,
        help="Where the control plane keeps its state [default: $MODELFLEET_STATE_DIR or ~/.local/state/modelfleet].",
    ),
]  # fmt: skip
OutputOption = Annotated[
    Output | None,
    typer.Option("--output", "-o", metavar="table|json", show_default=False, help="For people or for scripts."),
]
CsvOutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output", "-o", metavar="table|json|csv", show_default=False, help="For people, scripts or spreadsheets."
    ),
]
NoColorOption = Annotated[
    bool, typer.Option("--no-color", help="No colours; NO_COLOR in the environment does the same.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors, no progress.")]


class Session:
    """One run of one verb."""

    def __init__(self, options: Globals) -> None:
        self.state_dir = options.state_dir.expanduser().absolute() if options.state_dir else default_state_dir()
        self.json = options.output is Output.json
        self.csv = options.output is Output.csv
        self.quiet = options.quiet
        self.out = Screen(sys.stdout, color=not options.no_color)
        self.err = Screen(sys.stderr, color=not options.no_color)

    @cached_property
    def control(self) -> control.Control:
        return control.find(self.state_dir)

    @cached_property
    def client(self) -> Client:
        from orchestrator.cli.client import Client

        return Client(self.control)

    @property
    def tells(self) -> bool:
        """Whether words about progress are wanted on standard output."""
        return not (self.json or self.csv or self.quiet)

    def say(self, *spans: str | tuple[str, str]) -> None:
        if self.tells:
            self.out.line(*spans)

    def confirm(self, question: str, *, yes: bool, default: bool = False) -> None:
        """Returns when the user agrees. Raises `CliError` when not, `UsageError` where nobody can be asked."""
        if yes:
            return
        if self.json or not (sys.stdin.isatty() and self.out.is_terminal):
            raise UsageError("confirmation is needed, and there is no terminal to ask on", hint="add --yes to go ahead")
        self.out.stream.write(f"{question} [{'Y/n' if default else 'y/N'}] ")
        self.out.stream.flush()
        answer = sys.stdin.readline().strip().lower()
        if not (answer in ("y", "yes") or (default and answer == "")):
            raise CliError("not confirmed; nothing was changed", code="NOT_CONFIRMED")

    def fail(self, error: CliError) -> int:
        """Prints the error, where and how this run's output is wanted."""
        if self.json:
            self.err.json(error.body())
        else:
            if error.diagnostics:
                from orchestrator.cli import diagnostics

                diagnostics.show(self.err, error.diagnostics)
            self.err.line(("Error: ", "bold red"), error.message)
            if error.hint:
                self.err.line(("Hint: ", "cyan"), error.hint)
        return error.exit_code


class Verb(Protocol):
    """A verb as `main.py` sees it."""

    examples: tuple[str, ...]

    def __call__(self, *args: Any, **given: Any) -> int: ...


def verb(*examples: str, csv: bool = False) -> Callable[[Callable[..., int | None]], Verb]:
    """Makes a function a verb: with the global options, a `Session`, and an exit code for what it raises. `csv`: it can
    print that too."""

    def decorate(run: Callable[..., int | None]) -> Verb:
        @functools.wraps(run)
        def command(
            ctx: typer.Context, state_dir: Path | None, output: Output | None, no_color: bool, quiet: bool, **given: Any
        ) -> int:
            outer = ctx.find_root().obj
            options = Globals(state_dir, output, no_color, quiet)
            session = Session(options.under(outer if isinstance(outer, Globals) else Globals()))
            if session.csv and not csv:
                return session.fail(UsageError("--output csv: this verb has tables and JSON alone", hint="try -o json"))
            return _run(session, run, given)

        output_option = CsvOutputOption if csv else OutputOption
        signature = _with_globals(inspect.signature(run, eval_str=True), output_option)
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        command.examples = examples  # type: ignore[attr-defined]
        return cast("Verb", command)

    return decorate


def _run(session: Session, run: Callable[..., int | None], given: dict[str, Any]) -> int:
    try:
        return run(session, **given) or 0
    except CliError as exc:
        return session.fail(exc)
    except FleetError as exc:
        return session.fail(_of_ours(exc))
    except KeyboardInterrupt:
        session.err.line("\nInterrupted")
        return INTERRUPTED


def _of_ours(exc: FleetError) -> CliError:
    """An error that a part shared with the control plane raised in this process."""
    diagnostics = getattr(exc, "diagnostics", ())
    message = f"{len(diagnostics)} error{'s'[: len(diagnostics) != 1]} in the manifest" if diagnostics else str(exc)
    return CliError(message, exit_code=exc.exit_code, code=exc.code, diagnostics=diagnostics)


def _with_globals(signature: inspect.Signature, output_option: Any) -> inspect.Signature:
    own = list(signature.parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        inspect.Parameter("state_dir", keyword, default=None, annotation=StateDirOption),
        inspect.Parameter("output", keyword, default=None, annotation=output_option),
        inspect.Parameter("no_color", keyword, default=False, annotation=NoColorOption),
        inspect.Parameter("quiet", keyword, default=False, annotation=QuietOption),
    ]
    return signature.replace(parameters=[each.replace(kind=keyword) for each in own] + shared, return_annotation=int)
