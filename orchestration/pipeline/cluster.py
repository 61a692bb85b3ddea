"""A cluster folder: the configuration by which several machines work together, such as cluster/celery.

Its `dagster.yaml` is the same on every machine. What differs, addresses and passwords, it takes from environment
variables, so that none of them is in git.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llbnad.errors import ConfigError
from llbnad.utils.yaml_files import read_yaml

INSTANCE, WORKSPACE = "dagster.yaml", "workspace.yaml"
PAGE = "docs/many-machines.md"
HOME_QUEUE = "home"  # Celery's queue of the jobs that stay at home
MACHINE = "LLBNAD_MACHINE"  # environment variable: the folder of this machine; set on workers


def cluster_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables of Dagster's programs on a machine of the cluster, beside those that are set.

    Raises:
        ConfigError: the folder is no cluster folder, a variable that its dagster.yaml names is not set, or the packages
            of the extra `cluster` are missing.
    """
    if not (folder / INSTANCE).is_file():
        raise ConfigError(f"--cluster {folder} has no {INSTANCE}: expected a folder such as cluster/celery")
    missing = sorted(name for name in variables_of(read_yaml(folder / INSTANCE)) if not os.environ.get(name))
    if missing:
        raise ConfigError(f"{folder / INSTANCE} needs {', '.join(missing)}: export them; {PAGE} says what they hold")
    if find_spec("dagster_celery") is None:
        raise ConfigError("dagster-celery is not installed here: `make setup-cluster` installs the extra `cluster`")
    places = [str(folder.resolve()), os.environ.get("PYTHONPATH", "")]
    return {"DAGSTER_HOME": str(folder.resolve()), "PYTHONPATH": os.pathsep.join(place for place in places if place)}


def check_machine(queues: str) -> None:
    """Raise ConfigError if this machine cannot work for these queues, separated by commas.

    A worker works in slices below the folder that LLBNAD_MACHINE names: without it, what it computes would stay in its
    clone. Home works in its clone, because the inboxes are there.
    """
    at_home = HOME_QUEUE in queues.split(",")
    if at_home and queues != HOME_QUEUE:
        raise ConfigError(f"--queue {queues}: a worker at home serves {HOME_QUEUE} alone; start another for the rest")
    if at_home and os.environ.get(MACHINE):
        raise ConfigError(f"--queue {HOME_QUEUE}: home works in its own clone, so unset {MACHINE}")
    if not at_home and not os.environ.get(MACHINE):
        raise ConfigError(
            f"--queue {queues} needs {MACHINE}, a folder for the slices and caches of this machine: "
            f"export {MACHINE}=/data/llbnad"
        )


def variables_of(content: Any) -> set[str]:
    """Return the names of all environment variables that a configuration of Dagster takes values from."""
    if isinstance(content, dict):
        own = {str(content["env"])} if set(content) == {"env"} else set()
        return own.union(*map(variables_of, content.values()))
    return set().union(*map(variables_of, content)) if isinstance(content, list) else set()
