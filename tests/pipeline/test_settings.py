"""Settings reach the stages through a file of their own, so that the recorded settings are those a stage ran with."""

import json
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import orchestration
from llbnad.config import parse
from llbnad.model.model import Model
from llbnad.scenario import Scenario
from llbnad.utils.files import write_json
from orchestration.pipeline import dvc, settings
from orchestration.pipeline.code import ChangedError
from orchestration.pipeline.stage_settings import READ_BY
from orchestration.stages import params as split
from orchestration.stages import settings as own
from tests.pipeline.conftest import command, materialise, repro, stage
from tests.pipeline.test_both_doors import events

SUB_MODEL = "sub_model@noisy20-0"
FILE = "data/settings/noisy20/settings.json"
BY_DVC = ("dvc", "repro", "scores@noisy20")
BY_DAGSTER = ("dagster", "asset", "materialize", "--select", "+key:scores", "--partition", "noisy20",
              "-m", "orchestration.definitions")  # fmt: skip


def edit(folder, scenario, **changes):
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scenarios"][scenario] |= changes
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def detector(folder, memory_size):
    own = yaml.safe_load((folder / "params.yaml").read_text())["scenarios"]["noisy20"]["detector"]
    return {**own, "memory_size": memory_size}


def trained_with(folder):
    return Model.load(folder / "data/sub_model/noisy20/0/0/model.safetensors").config.memory_size


def followed(folder, name):
    """Return what dvc.lock holds of a stage: its settings, as they are in DVC's cache."""
    own = dvc.read_lock(folder)["stages"][name]
    assert "params" not in own
    path = f"data/settings/noisy20/read_by/{name.partition('@')[0]}.json"
    (md5,) = (dep["md5"] for dep in own["deps"] if dep["path"] == path)
    return json.loads((folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text())


def recorded(folder):
    (found,) = {followed(folder, f"sub_model@noisy20-{k}")["detector"]["memory_size"] for k in (0, 1)}
    return found


@pytest.mark.parametrize("door", [BY_DVC, BY_DAGSTER], ids=["dvc", "dagster"])
def test_an_edit_while_a_stage_runs_is_for_the_next_run(copy_of, door, monkeypatch):
    """DVC looks at parameters after a stage has ended: it would record the edit with a model that never saw it."""
    monkeypatch.setenv("DAGSTER_HOME", str(copy_of / ".dagster"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    edit(copy_of, "noisy20", detector=detector(copy_of, 512))
    said = []
    with dvc.running(door[1:], copy_of, door[0]) as process:
        for line in process.stdout:
            said.append(line)
            if f"Running stage '{SUB_MODEL}'" in line:
                edit(copy_of, "noisy20", detector=detector(copy_of, 256))
    assert process.returncode == 0, "".join(said[-30:])
    assert trained_with(copy_of) == recorded(copy_of) == 512
    assert "changed" in command(copy_of, ["dvc", "status"]).stdout
    assert f"Running stage '{SUB_MODEL}'" in repro(copy_of, "scores@noisy20")
    assert trained_with(copy_of) == recorded(copy_of) == 256


def test_an_asset_materialised_alone_goes_by_params_yaml(copy_of):
    edit(copy_of, "noisy20", suspects=3)
    done = materialise(copy_of, "evaluation", "noisy20")
    assert done.returncode == 0, done.stderr[-3000:]
    lock, found = dvc.read_lock(copy_of), events(copy_of, "noisy20")
    assert followed(copy_of, "evaluation@noisy20")["suspects"] == 3
    ran = {asset for asset, event in found.items() if event.metadata["outcome"].value == "ran"}
    assert ran == {"params", "settings", "evaluation"}
    for asset in ran:
        name = asset if asset == "params" else f"{asset}@noisy20"
        assert found[asset].tags["dagster/data_version"] == dvc.data_version(lock, name)
    assert found["settings"].metadata["settings"].value["suspects"] == 3


def test_settings_come_back_as_they_are_in_params_yaml(copy_of, monkeypatch):
    monkeypatch.chdir(copy_of)
    before = settings.read_settings("noisy20")
    assert before == settings.load_params(settings.PARAMS)
    assert settings.are_current(copy_of, "noisy20", before) and settings.entry_is_current(copy_of, "noisy20", before)
    edit(copy_of, "noisy20", seed=7)
    now = settings.load_params(settings.PARAMS)
    assert not settings.are_current(copy_of, "noisy20", now)
    assert not settings.entry_is_current(copy_of, "noisy20", now)
    assert settings.are_current(copy_of, "line", now) and settings.entry_is_current(copy_of, "line", now)
    split.main()
    assert settings.entry_is_current(copy_of, "noisy20", now)
    assert settings.read_settings("noisy20").scenario("noisy20").seed == 0
    own.main("noisy20")
    assert settings.read_settings("noisy20") == now


def test_a_stage_reads_only_the_settings_that_it_follows(copy_of, monkeypatch):
    """Else an edit of another setting would change its outputs, and DVC would not run it."""
    monkeypatch.chdir(copy_of)
    edit(copy_of, "noisy20", rounds=2, sub_model_detector={"name": "padim", "dimensions": 8, "regularisation": 0.1})
    read = set()

    class Watched(Scenario):
        def __getattribute__(self, name):
            read.update({name} & Scenario.model_fields.keys())
            return super().__getattribute__(name)

    def parsed(kind, content, source):
        found = parse(Watched if kind is Scenario else kind, content, source)
        read.clear()  # of what its validation read
        return found

    split.main()
    own.main("noisy20")
    monkeypatch.setattr(settings, "parse", parsed)
    monkeypatch.setattr(orchestration, "STARTED", time.time())  # this process is older than the workspace
    for name in READ_BY:
        keys = json.loads(Path(f"data/settings/noisy20/read_by/{name}.json").read_text()).keys()
        assert ("detector" in keys) == (name == "detector"), "stage 1 has a detector of its own"
        for arguments in [("noisy20", 0), ("noisy20", 1)] if name == "sub_model" else [("noisy20",)]:
            import_module(f"orchestration.stages.{name}").main(*arguments)
        # these decide what is encoded, which images are too large to read, and whether a region's mask is still the one
        # that the settings name: no byte of an output
        allowed = {"dataset", "region"} | ({"detector"} if name == "features" else set())
        assert read and read <= {*keys, "review"} | allowed, name


def test_an_edit_during_the_split_is_no_setting(copy_of, monkeypatch):
    monkeypatch.chdir(copy_of)

    def edited_meanwhile(content, path):
        write_json(content, path)
        edit(copy_of, "noisy20", seed=7)

    monkeypatch.setattr(split, "write_json", edited_meanwhile)
    with pytest.raises(ChangedError, match=r"params\.yaml has changed while the stage ran: run again"):
        split.main()


def test_a_scenario_that_is_gone_leaves_no_file(copy_of, monkeypatch):
    monkeypatch.chdir(copy_of)
    gone = settings.entry_path("gone")
    gone.write_text("{}")
    split.main()
    assert sorted(path.stem for path in gone.parent.iterdir()) == ["_defaults", "line", "noisy20"]


def test_an_edit_that_no_scenario_reads_reruns_the_split_alone(copy_of):
    path = copy_of / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["runtime"]["threads"] = 1
    path.write_text("# a comment\n" + yaml.safe_dump(content, sort_keys=False))
    assert [line for line in repro(copy_of).splitlines() if line.startswith("Running")] == ["Running stage 'params':"]


def test_a_stage_without_its_settings_says_what_to_do(copy_of):
    (copy_of / FILE).unlink()
    done = stage(copy_of, "noisy", "noisy20")
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: no outputs of scenario noisy20 ({FILE} is missing): run `dvc repro` first"
