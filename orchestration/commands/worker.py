"""`make worker`: a machine of a cluster, which executes Dagster's runs of a queue until Ctrl-C."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestration.pipeline.cluster import check_machine, cluster_environment

Cluster = Annotated[Path, typer.Option(help="Folder with the cluster's dagster.yaml.")]


def worker(
    cluster: Cluster = Path("cluster/celery"),
    queue: Annotated[str, typer.Option(help="Runs with the tag dagster-celery/queue of this value.")] = "dagster",
    slots: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
) -> None:
    """Execute runs of a cluster on this machine."""
    environment = {**os.environ, **cluster_environment(cluster)}
    check_machine(queue)
    name = f"{queue}-{os.getpid()}@%h"  # two of a name would be taken for one
    celery = [sys.executable, "-m", "celery", "-A", "dagster_celery.app", "worker", "--hostname", name]
    os.execve(
        sys.executable, [*celery, "--queues", queue, "--concurrency", str(slots), "--loglevel", "INFO"], environment
    )
