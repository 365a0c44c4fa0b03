"""Puts the commands together, and turns errors into one message and an exit code."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from whyprune import __version__
from whyprune.cli.demo import demo
from whyprune.cli.devices import devices
from whyprune.cli.evaluate import evaluate
from whyprune.cli.export import export
from whyprune.cli.inspect import inspect
from whyprune.cli.methods import methods
from whyprune.cli.prune import prune
from whyprune.cli.report import report
from whyprune.cli.screen import complain
from whyprune.errors import WhypruneError

USER_ERROR, INTERRUPTED = 2, 130


class Commands(TyperGroup):
    """Ends every command in an exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except WhypruneError as error:
            complain(f"error: {error}", *getattr(error, "__notes__", ()))
            raise typer.Exit(USER_ERROR) from None
        except KeyboardInterrupt as error:
            complain(str(error) or "interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(prune)
app.command()(inspect)
app.command()(evaluate)
app.command()(export)
app.command()(report)
app.command()(methods)
app.command()(demo)
app.add_typer(devices, name="devices")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"whyprune {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Prunes trained neural networks with causal inference, proves the result right, and says why."""


def main() -> None:
    """The program `whyprune`."""
    try:
        app()
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(INTERRUPTED)
