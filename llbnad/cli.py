"""Look at images (`lint`), train an anomaly detector on them, defects among them (`run`), use it (`predict` …)."""

import sys

import typer

from llbnad.commands.export import export
from llbnad.commands.lint import lint
from llbnad.commands.predict import predict
from llbnad.commands.run import run
from llbnad.commands.sensitivity import sensitivity
from llbnad.errors import LlbnadError, printable

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
for command in (run, lint, predict, sensitivity, export):
    app.command()(command)


def main() -> None:
    """Run the command. Bad input ends it with a one-line message and exit code 2."""
    try:
        app()
    except LlbnadError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # --out is a file, a folder is not writable, or the disk is full
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
