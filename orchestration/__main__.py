"""`python -m orchestration COMMAND`: everything people do with the pipeline from a terminal."""

import sys

import typer

from llbnad.errors import LlbnadError, printable
from orchestration.commands.audit import audit
from orchestration.commands.backfill import backfill
from orchestration.commands.benchmark import benchmark
from orchestration.commands.drift import drift
from orchestration.commands.export import export
from orchestration.commands.ingest import ingest
from orchestration.commands.mend import mend
from orchestration.commands.page import page
from orchestration.commands.predict import predict
from orchestration.commands.record import record
from orchestration.commands.registry import app as registry
from orchestration.commands.review import review
from orchestration.commands.run import run
from orchestration.commands.settings import settings
from orchestration.commands.slices import app as slices
from orchestration.commands.status import status
from orchestration.commands.ui import ui
from orchestration.commands.watch import watch
from orchestration.commands.worker import worker
from orchestration.pipeline import pipes
from orchestration.pipeline.advice import with_advice

PIPELINE, LINE, MODELS = "Pipeline", "Production line", "Models"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="LLBNAD as a pipeline: run it, watch it, feed production lines, use their models. Run from the repository.",
)
for panel, commands in {
    PIPELINE: (run, status, ui, worker, audit, benchmark, record, backfill, mend, settings),
    LINE: (ingest, watch, review, drift),
    MODELS: (predict, page, export),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(slices, name="slices", rich_help_panel=PIPELINE)
app.add_typer(registry, name="registry", rich_help_panel=MODELS)


def main() -> None:
    """Run the command. An error of ours, or of the disk, prints one clear line and gives exit code 2."""
    try:
        with pipes.connection():
            app(prog_name="python -m orchestration")
    except LlbnadError as error:
        print(f"error: {printable(with_advice(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is not writable
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
