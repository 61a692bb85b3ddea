"""A Dagster run works in the repository or in a slice of it, and its outputs are the same.

tests/cluster/test_slices.py has one on a worker.
"""

import json

import dagster as dg

from orchestration.assets.dvc_assets import dvc_assets
from orchestration.assets.partitions import patterns, sync
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.slices import workplace
from tests.pipeline.conftest import repro
from tests.pipeline.test_settings import edit


def materialised(root, scenario, selection=None):
    """Materialise assets in this process; return the run's result, and the events by asset."""
    params = load_params(root / "params.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        sync(instance, params.scenarios)
        result = dg.materialize(
            [dvc_assets(root, patterns(root, params))], selection=selection, partition_key=scenario, instance=instance,
            raise_on_error=False,
        )  # fmt: skip
        events = result.get_asset_materialization_events()
        return result, {event.asset_key.to_user_string(): event.step_materialization_data.materialization
                        for event in events}  # fmt: skip


def outcomes(events):
    return {name: event.metadata["outcome"].value for name, event in events.items()}


def test_among_many_scenarios_a_run_works_in_a_slice_and_brings_everything_home(copy_of, monkeypatch):
    monkeypatch.setattr(workplace, "ABOVE", 1)
    edit(copy_of, "noisy20", selection={"policy": "fraction", "keep": 0.5}, suspects=3)
    result, events = materialised(copy_of, "noisy20")
    assert result.success
    changed = {"params", "settings", "purified", "detector", "evaluation"}
    assert {name for name, outcome in outcomes(events).items() if outcome == "ran"} == changed
    assert len(events) == 12 and outcomes(events)["code"] == "unchanged"
    rest = {outcome for name, outcome in outcomes(events).items() if name != "code"}
    assert rest == {"ran", "restored from cache"}  # the slice is new
    lock = dvc.read_lock(copy_of)
    for event in events.values():
        stage = event.metadata["dvc stage"].value
        assert event.tags["dagster/data_version"] == dvc.data_version(lock, stage), stage
    assert json.loads((copy_of / "data/purified/noisy20/summary.json").read_text())["kept_share"] == 0.5
    assert sorted(path.stem for path in (copy_of / "data/params").iterdir()) == ["_defaults", "line", "noisy20"]
    assert "Running stage" not in repro(copy_of)


def test_a_stage_that_fails_in_a_slice_keeps_what_was_done_and_reports_its_checks(copy_of, monkeypatch):
    monkeypatch.setattr(workplace, "ABOVE", 1)
    edit(copy_of, "noisy20", seed=3, selection={"policy": "fraction", "keep": 0.01})
    before = dvc.read_lock(copy_of)["stages"]
    result, events = materialised(copy_of, "noisy20")
    assert not result.success and "scores" in events and "purified" not in events
    checks = {one.asset_key.to_user_string(): one.passed for one in result.get_asset_check_evaluations()}
    assert checks == {"raw": True, "noisy": True, "purified": False}
    after = dvc.read_lock(copy_of)["stages"]
    assert after["scores@noisy20"] != before["scores@noisy20"]
    assert after["detector@noisy20"] == before["detector@noisy20"]
