"""Stage `params`: the entry of each scenario in params.yaml, as a file of its own."""

import shutil
from pathlib import Path

from llbnad.utils.files import write_json
from orchestration.pipeline.code import ChangedMeanwhileError
from orchestration.pipeline.defaults import RECORD, recorded, refuse_edit_without_effect
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import DATA, PARAMS
from orchestration.pipeline.settings import SPLIT, entry, entry_path
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.summary import say


def main() -> None:
    """Write data/params/<scenario>.json for every scenario, and the defaults."""
    text, params = PARAMS.read_bytes(), load_params(PARAMS)
    found = _entries(params)
    refuse_edit_without_effect(Path(), params, found)
    shutil.rmtree(DATA / SPLIT, ignore_errors=True)  # the files of scenarios that are gone
    for scenario, content in found.items():
        write_json(content, entry_path(scenario))
    write_json(recorded(params), RECORD)
    # DVC looks at params.yaml after the stage
    if _entries(params if PARAMS.read_bytes() == text else load_params(PARAMS)) != found:
        raise ChangedMeanwhileError(f"{PARAMS} has changed while the stage ran: run again")
    say(f"params: {len(found)} scenarios")


def _entries(params: Params) -> dict[str, dict[str, object]]:
    return {scenario: entry(params, scenario) for scenario in params.scenarios}


if __name__ == "__main__":
    run_stage(main)
