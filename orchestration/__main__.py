"""`python -m orchestration COMMAND`: everything people do with the pipeline from a terminal.

A command is the function of its own name in a file of `orchestration/commands` of that name; a group of commands is the
`app` of its file.
"""

import importlib
import sys

try:
    import typer
except ModuleNotFoundError:  # the system's Python
    sys.exit(
        "error: this Python lacks the packages of LLBNAD: type `.venv/bin/python` instead of `python`, or "
        "`source .venv/bin/activate` first; `make setup` makes it"
    )

from llbnad.errors import LlbnadError, printable
from orchestration.pipeline import pipes
from orchestration.pipeline.advice import with_advice

PANELS = {
    "Pipeline": ("run", "status", "ui", "worker", "audit", "benchmark", "record", "backfill", "mend", "settings"),
    "Production line": ("ingest", "watch", "review", "drift"),
    "Models": ("predict", "page", "export"),
}
GROUPS = {"slices": "Pipeline", "registry": "Models"}


def application(wanted: str = "") -> typer.Typer:
    """Return the application.

    Args:
        wanted: name of a command. The others are left out then, since to import all of them takes a second. All are
            there if no command is called so.
    """
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="LLBNAD as a pipeline: run it, watch it, feed production lines, use their models. "
        "Run from the repository.",
    )
    app.callback()(lambda: None)  # one command alone is still called by its name
    places = {name: panel for panel, names in PANELS.items() for name in names} | GROUPS
    for name, panel in places.items():
        if name != wanted and wanted in places:
            continue
        module = importlib.import_module(f"orchestration.commands.{name}")
        if name in GROUPS:
            app.add_typer(module.app, name=name, rich_help_panel=panel)
        else:
            app.command(rich_help_panel=panel)(getattr(module, name))
    return app


def main() -> None:
    """Run the command. An error of ours, or of the disk, prints one clear line and gives exit code 2."""
    try:
        with pipes.connection():
            application(*sys.argv[1:2])(prog_name="python -m orchestration")
    except LlbnadError as error:
        print(f"error: {printable(with_advice(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is not writable
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before or after the command proper, which Typer ends itself
        print("ended by Ctrl-C", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
