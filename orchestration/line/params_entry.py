"""The entry of a new production line in params.yaml: a dataset and a scenario, added without a change of code.

The two entries are added at the head of `datasets` and `scenarios`. Comments, anchors and everything else stay the
same, byte for byte. An empty file for people's verdicts on the line's images is written too.
"""

import io
from pathlib import Path
from typing import Any

import yaml as pyyaml
from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.mergevalue import MergeValue
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from llbnad.config import SensitivityConfig
from llbnad.errors import ConfigError
from llbnad.purification.verdicts import write_verdicts
from llbnad.utils.files import replacing
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS, review_file, stage_dir

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
    path = root / PARAMS
    with FileLock(root / ".dvc" / "tmp" / "params.lock"):
        params = load_params(path)
        if reason := conflict(params, line):
            raise ConfigError(reason)
        if line in params.datasets and line in params.scenarios:
            return False
        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = 2**20  # do not wrap lines that people wrote
        yaml.representer.add_representer(type(None), _null)
        content = yaml.load(path.read_text())
        if line not in params.datasets:
            dataset = {"source": "image_folder", "root": _images(line), "category": _text(line)}
            content["datasets"].insert(0, _text(line), _flow(dataset))
        if line not in params.scenarios:
            if not (root / review_file(line)).exists():
                write_verdicts({}, root / review_file(line))
            content["scenarios"].insert(0, _text(line), _scenario(_text(line), content["defaults"]))
        stream = io.StringIO()
        yaml.dump(content, stream)
        with replacing(path) as temporary:
            temporary.write_text(stream.getvalue())
            load_params(temporary)
    return True


def _images(line: str) -> str:
    return (stage_dir("raw", line) / "arrived").as_posix()


def _scenario(line: str, defaults: CommentedMap) -> CommentedMap:
    entry = CommentedMap(dataset=line, noise=_flow({"protocol": "as_is"}), review=review_file(line).as_posix())
    comparators = CommentedSeq(["none"])  # without labels there is no oracle
    comparators.fa.set_flow_style()
    entry["comparators"] = comparators
    # nobody labels a line's images, so drawn defects are all that says what its detector finds
    entry["sensitivity"] = _flow({**SensitivityConfig(images=DRAWN_ON).model_dump(), "contrasts": [0.2]})
    if defaults.yaml_anchor() is None:
        defaults.yaml_set_anchor("defaults")
    merge = MergeValue()
    merge.append(defaults)
    merge.merge_pos = 0
    entry.add_yaml_merge(merge)
    return entry


def _text(name: str) -> str:
    # ruamel writes YAML 1.2, but the readers, PyYAML and DVC, take `yes` and `1_000` for other values than text
    return name if pyyaml.safe_load(name) == name else SingleQuotedScalarString(name)


def _null(representer: Any, _: None) -> Any:
    """Write `null` as people write it. ruamel would leave the value out."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _flow(content: dict[str, Any]) -> CommentedMap:
    entry = CommentedMap(content)
    entry.fa.set_flow_style()
    return entry
