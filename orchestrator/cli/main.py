"""The `modelfleet` command: finds the verb and lends it the options that stand before it.

One file a verb; a verb is imported only when it is run or listed, so that `modelfleet status` pays for nothing else.
Read `verb.py` for what verbs share.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from orchestrator.cli.errors import INVALID, UsageError
from orchestrator.cli.verb import (
    Globals,
    NoColorOption,
    Output,
    OutputOption,
    QuietOption,
    Session,
    StateDirOption,
    Verb,
)

SECTIONS = {
    "Run": ("up", "down", "doctor"),
    "Change": ("init", "validate", "plan", "apply", "scale", "rollout", "rollback", "delete"),
    "Look": ("console", "status", "top", "describe", "events", "logs", "history", "autoscale", "cost"),
    "Use": ("predict", "bench", "simulate", "keys", "schema", "version"),
}
# Verbs that have verbs of their own, with the functions that they are in the verb's module.
GROUPS = {
    "keys": {"create": "create", "list": "list_all", "revoke": "revoke"},
    "rollout": {"status": "status", "promote": "promote", "pause": "pause", "resume": "resume"},
    "autoscale": {"explain": "explain", "history": "history"},
}
VERBS = tuple(name for names in SECTIONS.values() for name in names)


class LazyGroup(TyperGroup):
    """Imports a verb when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Typer proposes the nearest name from here; the commands themselves come from `get_command`.
        self.commands = dict.fromkeys(VERBS)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        return _load(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.get_command(ctx, name).get_short_help_str(100)) for name in names])

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Typer's, but its usage errors come out like ours: one `Error:` line, or JSON where that was asked for."""
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(args=given, standalone_mode=False, **extra)
        except Exception as exc:
            if not hasattr(exc, "format_message"):
                raise
            code = _refuse(given, exc)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="\b\nExamples:\n  modelfleet up --example                start everything with the example models\n"
    "  modelfleet init models/                make models.yaml from a folder of model files\n"
    "  modelfleet apply                       show what would change, ask, do it\n"
    "  modelfleet status --watch\n"
    "  modelfleet predict iris --data '{\"instances\": [[5.1, 3.5, 1.4, 0.2]]}'",
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    state_dir: StateDirOption = None,
    output: OutputOption = None,
    no_color: NoColorOption = False,
    quiet: QuietOption = False,
) -> None:
    """Serve many models from one YAML file: containers behind one fast gateway.

    Edit models.yaml, run `modelfleet apply`, and every model version runs in containers of its own. The options below
    may also follow the verb.
    """
    ctx.obj = Globals(state_dir, output, no_color, quiet)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    try:
        app()
    except BrokenPipeError:
        # `modelfleet events | head`: the reader has what it wanted. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _load(name: str) -> Any:
    module = importlib.import_module(f"orchestrator.cli.{name}")
    verbs: dict[str, Verb] = {each: getattr(module, function) for each, function in _functions(name).items()}
    made = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    if name in GROUPS:
        firsts = [function.examples[0] for function in verbs.values()]
        settings = {"help_option_names": ["--help", "-h"]}
        made.callback(help=module.HELP, epilog=_epilog(firsts), context_settings=settings, invoke_without_command=True)(
            _show_help
        )
        made.info.name = name
    for each, function in verbs.items():
        made.command(each, epilog=_epilog(function.examples), no_args_is_help=False)(function)
    return typer.main.get_command(made)


def _show_help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _functions(name: str) -> dict[str, str]:
    return GROUPS.get(name, {name: name})


def _epilog(examples: Sequence[str]) -> str:
    return "\b\nExamples:" + "".join(f"\n  {each}" for each in examples)


def _refuse(given: list[str], exc: Any) -> int:
    """What was typed could not be read: says so, with the usage as the hint."""
    wants_json = any(each in ("json", "-ojson", "--output=json", "-o=json") for each in given)
    session = Session(Globals(output=Output.json if wants_json else None, no_color="--no-color" in given))
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else "modelfleet"
    session.fail(UsageError(exc.format_message().rstrip("."), hint=f"`{path} --help` shows how it is used"))
    return INVALID
