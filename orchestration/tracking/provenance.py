"""Tags that say where a result comes from: the git commit, the command, and the hashes in dvc.lock."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orchestration.pipeline import dvc
from orchestration.pipeline.git import run_git
from orchestration.pipeline.params import Params

MOST_NAMED = 5  # edited files in a tag
NO_CODE = (":!dvc.lock", ":!data/raw")  # records, not code: the tags of a run hold their hashes


def lock_tags(scenario: str, params: Params, stages: Sequence[str]) -> dict[str, str]:
    """Return dvc.lock's hashes of a scenario's `stages` as tags: `dvc.<stage>` holds path and MD5 of each output.

    A stage that is not in dvc.lock has no tag; each sub-model has one of its own, `dvc.sub_model_<number>`.
    """
    if not Path("dvc.lock").exists():
        return {}
    names = {stage: f"{stage}@{scenario}" for stage in stages if stage not in ("raw", "sub_model")}
    if "raw" in stages:
        names["raw"] = f"raw@{params.scenario(scenario).dataset}"
    if "sub_model" in stages:
        names |= {f"sub_model_{k}": f"sub_model@{scenario}-{k}" for k in params.sub_models}
    lock = dvc.read_entries(Path.cwd(), *names.values())
    found = {label: dvc.outputs(lock, name) for label, name in names.items()}
    return {f"dvc.{label}": json.dumps(hashes) for label, hashes in found.items() if hashes}


def git_tags() -> dict[str, str]:
    """Return the git commit as a tag, with `-dirty` if tracked files have changed; empty without git.

    The records that the pipeline and the ingest rewrite do not count as changes. The tag `git.edited` names the others.
    """
    code = Path("orchestration").resolve().parent  # in a slice of this machine, code is a link into the workspace

    def git(*arguments: str) -> str:
        done = run_git(code, "--no-optional-locks", *arguments, timeout=20)
        done.check_returncode()
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", *NO_CODE).splitlines()
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit
        return {}
    if not changes:
        return {"git.commit": commit}
    edited = [line.split(maxsplit=1)[1] for line in changes]
    more = [f"{len(edited) - MOST_NAMED} more"] if len(edited) > MOST_NAMED else []
    return {"git.commit": f"{commit}-dirty", "git.edited": ", ".join([*edited[:MOST_NAMED], *more])}


def source_tags(command: str) -> dict[str, str]:
    """Return the tags that MLflow's pages show as source and version of a run, beside those of `git_tags`.

    Args:
        command: what makes the result again.
    """
    tags = git_tags()
    commit = tags.get("git.commit", "").removesuffix("-dirty")
    known = {"mlflow.source.git.commit": commit} if commit else {}
    return {**tags, **known, "mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
