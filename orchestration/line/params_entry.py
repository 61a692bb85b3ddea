"""The entry of a new production line in params.yaml: a dataset and a scenario, added without a change of code.

The two entries are added at the head of `datasets` and `scenarios`. An empty file for people's verdicts on the line's
images is written too.
"""

from pathlib import Path

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from llbnad.config import SensitivityConfig
from llbnad.errors import ConfigError
from llbnad.purification.verdicts import write_verdicts
from orchestration.pipeline.params import Params
from orchestration.pipeline.params_edit import add_scenario_entry, edit_params, flow, text
from orchestration.pipeline.paths import review_file, stage_dir

DRAWN_ON = 12  # images of a line that evaluation draws synthetic defects on


def conflict(params: Params, line: str) -> str | None:
    """Return why `line` cannot be the name of a line: something else in params.yaml has it. None if it can."""
    dataset, scenario = params.datasets.get(line), params.scenarios.get(line)
    if dataset is not None and Path(dataset.root) != Path(_images(line)):
        found = f"the dataset with root {dataset.root}"
    elif scenario is not None and scenario.dataset != line:
        found = f"the scenario of dataset {scenario.dataset}"
    else:
        return None
    return f"params.yaml gives the name {line} to {found}: rename the folder in data/incoming"


def add_line(root: Path, line: str) -> bool:
    """Add the line to params.yaml as a dataset and a scenario. Return False if it is there already.

    Raises:
        ConfigError: the name belongs to something else, or params.yaml is wrong.
    """

    def change(params: Params, content: CommentedMap) -> bool:
        if reason := conflict(params, line):
            raise ConfigError(reason)
        if line in params.datasets and line in params.scenarios:
            return False
        if line not in params.datasets:
            dataset = {"source": "image_folder", "root": _images(line), "category": text(line)}
            content["datasets"].insert(0, text(line), flow(dataset))
        if line not in params.scenarios:
            if not (root / review_file(line)).exists():
                write_verdicts({}, root / review_file(line))
            comparators = CommentedSeq(["none"])  # without labels there is no oracle
            comparators.fa.set_flow_style()
            own = {
                "dataset": text(line),
                "noise": {"protocol": "as_is"},
                "review": review_file(line).as_posix(),
                "comparators": comparators,
                # nobody labels a line's images, so drawn defects are all that says what its detector finds
                "sensitivity": {**SensitivityConfig(images=DRAWN_ON).model_dump(), "contrasts": [0.2]},
            }
            add_scenario_entry(content, line, own)
        return True

    return edit_params(root, change)


def _images(line: str) -> str:
    return (stage_dir("raw", line) / "arrived").as_posix()
