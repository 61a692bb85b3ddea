"""An edit of `defaults` in params.yaml that reaches no scenario, and the refusal of it.

`defaults` reaches a scenario by YAML's merge, `<<: *defaults`. `dvc exp run -S` writes params.yaml anew with every
merge spelled out. From then on `defaults` means nothing: `-S defaults.seed=5` and later edits would change nothing, in
silence.
"""

import re
from pathlib import Path
from typing import Any

from llbnad.errors import ConfigError
from llbnad.utils.yaml_files import read_yaml
from orchestration.pipeline import dvc
from orchestration.pipeline.paths import PARAMS

MERGE = re.compile(r"<<\s*:")


def refuse_edit_without_effect(root: Path, stage: str) -> None:
    """Refuse a params.yaml without merges whose `defaults` differ from the recorded ones where no scenario differs.

    Args:
        root: root of the repository.
        stage: the stage whose record in dvc.lock holds `defaults` and `scenarios`.

    Raises:
        ConfigError: a key of `defaults` has changed, and no scenario follows.
    """
    if MERGE.search((root / PARAMS).read_text(encoding="utf-8")):
        return
    now: dict[str, Any] = read_yaml(root / PARAMS)
    recorded = dvc.read_lock(root).get("stages", {}).get(stage, {}).get("params", {}).get(str(PARAMS), {})
    before, scenarios = recorded.get("defaults"), recorded.get("scenarios", {})
    if not before:
        return
    for key, value in now["defaults"].items():
        followed = any(own.get(key) != scenarios.get(name, {}).get(key) for name, own in now["scenarios"].items())
        if value != before.get(key) and not followed:
            raise ConfigError(
                f"{PARAMS}: defaults.{key} is now {value!r:.80}, but every scenario spells out its own {key}, so "
                f"nothing would change. `dvc exp run -S` writes them out: name scenarios.NAME.{key} there, or take the "
                f"file back with `git checkout {PARAMS}` and edit it"
            )
