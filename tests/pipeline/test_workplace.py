"""A Dagster run works in the repository, in a slice of it or on a worker, and its outputs are the same."""

import json

import dagster as dg
import pytest

from orchestration.assets.dvc_assets import dvc_assets
from orchestration.assets.partitions import patterns, sync
from orchestration.pipeline import dvc
from orchestration.pipeline.cluster import MACHINE
from orchestration.pipeline.params import load_params
from orchestration.slices import refs, worker_slice, workplace
from tests.pipeline.conftest import repro
from tests.pipeline.test_settings import edit
from tests.pipeline.test_slices import cluster, machine, remotes  # noqa: F401


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
    assert len(events) == 12 and {*outcomes(events).values()} == {"ran", "restored from cache"}  # the slice is new
    lock = dvc.read_lock(copy_of)
    for event in events.values():
        stage = event.metadata["dvc stage"].value
        assert event.tags["dagster/data_version"] == dvc.data_version(lock, stage), stage
    assert json.loads((copy_of / "data/purified/noisy20/summary.json").read_text())["kept_share"] == 0.5
    assert sorted(path.stem for path in (copy_of / "data/params").iterdir()) == ["line", "noisy20"]
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


def test_on_a_worker_every_stage_is_published_until_another_takes_over(remotes, by_dvc, monkeypatch):  # noqa: F811
    clone, folder = machine(remotes, "m1", by_dvc)
    monkeypatch.setenv(MACHINE, str(folder))
    result, events = materialised(clone, "line", ["raw", "noisy", "features"])
    assert result.success, result
    assert outcomes(events)["features"] == "restored from cache"
    refs.fetch(remotes / "home")
    (record,) = refs.records(remotes / "home")
    assert {*record.entries} == {"code", "params", "settings@line", "raw@line", "noisy@line", "features@line"}
    assert workplace.place_of(clone, "line") == folder / "slices" / "line"

    other, another = machine(remotes, "m2", by_dvc)
    place = workplace.open_workplace(clone, "line", lambda line: None)
    worker_slice.take(other, another, "line")
    with pytest.raises(refs.OvertakenError):
        repro(place.root, "--single-item", "sub_model@line-0")
        place.keep(["sub_model@line-0"])
    worker_slice.release(place.root)
    worker_slice.release(another / "slices" / "line")
