"""A policy of one's own in a scenario: its stages follow its code, as far as DVC can, and never mix two versions."""

import re

import pandas as pd
import yaml

from tests.pipeline.conftest import command, repro, stage

POLICY = """
from llbnad.config import SelectionPolicy

class Lowest(SelectionPolicy):
    share: float = 0.5

    def count(self, ordered):
        return int(self.share * len(ordered)) + {more}
"""
SETTINGS = "settings@noisy20"


def ran(said: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", said))


def test_stages_follow_the_code_of_a_policy_outside_the_package(copy_of):
    kept = copy_of / "data" / "purified" / "noisy20" / "kept.parquet"
    code = copy_of / "own_policy.py"
    code.write_text(POLICY.format(more=0))
    params = yaml.safe_load((copy_of / "params.yaml").read_text())
    params["scenarios"]["noisy20"]["selection"] = {"policy": "own_policy:Lowest", "share": 0.5}
    (copy_of / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert ran(repro(copy_of, "purified@noisy20")) == {"params", SETTINGS, "purified@noisy20"}
    images = len(pd.read_parquet(copy_of / "data" / "scores" / "noisy20" / "scores.parquet"))
    assert len(pd.read_parquet(kept)) == images // 2

    code.write_text(POLICY.format(more=1))
    assert ran(repro(copy_of, "purified@noisy20")) == set()  # DVC does not look outside the repository's packages
    refused = stage(copy_of, "purified", "noisy20")
    assert refused.returncode == 2
    (advice,) = re.findall(
        r"run `dvc (repro --force --single-item settings@noisy20)`, then `dvc repro`", refused.stderr
    )
    assert command(copy_of, ["dvc", *advice.split()]).returncode == 0
    assert ran(repro(copy_of, "purified@noisy20")) == {"purified@noisy20"}
    assert len(pd.read_parquet(kept)) == images // 2 + 1
