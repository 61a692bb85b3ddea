"""An edit of `defaults` that reaches no scenario is refused, whether DVC or a person made it."""

import pytest
import yaml

from orchestration.pipeline.defaults import RECORD
from orchestration.pipeline.repro import repro_stage
from tests.pipeline.conftest import command


def edited(folder, change):
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def test_dvc_exp_run_with_a_default_is_refused_and_says_what_to_name(copy_of):
    """The workspace's params.yaml has no merges, as DVC leaves it."""
    before = (copy_of / "data/settings/noisy20/settings.json").read_bytes()
    done = command(copy_of, ["dvc", "exp", "run", "-S", "defaults.seed=5", "settings@noisy20"])
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "error: params.yaml: defaults.seed is now 5, but every scenario spells out its own seed" in said, said
    assert "scenarios.NAME.seed" in said and (copy_of / "data/settings/noisy20/settings.json").read_bytes() == before


def follow(content):
    content["defaults"]["rounds"] = content["scenarios"]["noisy20"]["rounds"] = 2


def leave(content):
    content["scenarios"]["noisy20"]["suspects"] = 7


def test_a_damaged_record_of_the_defaults_is_written_anew(copy_of):
    record = copy_of / RECORD
    whole = record.read_bytes()
    record.unlink()
    record.write_bytes(whole[:20])
    edited(copy_of, leave)
    assert repro_stage(copy_of, "params", lambda line: None) == "ran"
    assert record.read_bytes() == whole


@pytest.mark.parametrize("change", [follow, leave])
def test_an_edit_that_reaches_a_scenario_is_none_of_this(copy_of, change):
    edited(copy_of, change)
    assert repro_stage(copy_of, "params", lambda line: None) == "ran"


def test_defaults_that_scenarios_merge_may_be_edited(copy_of):
    path = copy_of / "params.yaml"
    content = yaml.safe_load(path.read_text())
    defaults, scenarios = content.pop("defaults"), content.pop("scenarios")
    defaults["seed"] = 5
    text = "defaults: &defaults " + yaml.safe_dump(defaults, default_flow_style=True, width=9999).strip()
    lines = [
        f"  {name}: {{<<: *defaults, dataset: {own['dataset']}, "
        f"noise: {yaml.safe_dump(own['noise'], default_flow_style=True, width=9999).strip()}}}"
        for name, own in scenarios.items()
    ]
    path.write_text(yaml.safe_dump(content) + text + "\nscenarios:\n" + "\n".join(lines) + "\n")
    assert repro_stage(copy_of, "params", lambda line: None) == "ran"
