"""The job `new_scenario`: a scenario from Dagster's launchpad is in params.yaml as if people had written it."""

import difflib
import shutil

import dagster as dg
import pytest
from dagster._core.execution.plan.objects import ErrorSource

from orchestration.assets.changes import Changes
from orchestration.assets.dvc_assets import _Step
from orchestration.assets.new_scenario import STEP, new_scenario_job
from orchestration.assets.partitions import sync
from orchestration.assets.retraining import ingest_asset
from orchestration.assets.sensors import arrival_sensor
from orchestration.definitions import defs
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY, save_image


@pytest.fixture
def root(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def launch(root):
    """Launch the job with a filled-in form; what has run, the partitions, and the error's text."""
    job = new_scenario_job(root, load_params(root / "params.yaml"))

    def run(**form):
        config = {"ops": {STEP: {"config": form}}}
        with dg.instance_for_test() as instance:
            sync(instance, load_params(root / "params.yaml").scenarios)
            result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
            found = set(instance.get_dynamic_partitions("scenario"))
        return result.success, found, [shown(event) for event in result.get_step_failure_events()]

    return run


def shown(event):
    """Return what Dagster's page shows of a failed step: of a user's code, the causes alone."""
    failed = event.step_failure_data
    assert failed.error_source == ErrorSource.USER_CODE_ERROR
    return failed.error.cause.to_string().strip()


def added(before, after):
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert not [line for line in lines if line[0] == "-"], lines
    return [line[2:] for line in lines]


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ({"alpha": None}, ["    noise: {protocol: as_is}"]),
        (
            {"alpha": 0.1, "detector": "padim", "policy": "fraction", "seed": 3},
            [
                # the rest of the noise is that of the data set's other scenarios, so that they can be compared
                "    noise: {protocol: replace, ratio: 0.1, max_ratio: 0.4, test_share: 0.3}",
                "    seed: 3",
                "    detector: {name: padim, dimensions: 100, regularisation: 0.1}",
                "    selection: {policy: fraction, keep: 0.2}",
            ],
        ),
        (
            {"alpha": 0.5, "detector": "patchcore", "policy": "adaptive", "seed": 0},  # as the defaults say
            ["    noise: {protocol: replace, ratio: 0.5, max_ratio: 0.5, test_share: 0.3}"],
        ),
    ],
)
def test_a_scenario_is_written_and_becomes_a_partition(root, launch, form, written):
    path = root / "params.yaml"
    before = path.read_text()
    success, partitions, _ = launch(name="mine", dataset="elpv_mono", **form)
    assert success and partitions == {"mine", "elpv_mono_a00", "elpv_mono_a20"}
    head = ["  mine:", "    <<: *defaults", "    dataset: elpv_mono"]
    assert added(before, path.read_text()) == [*head, *written, "    review: data/review/mine.csv"]
    assert (root / "data/review/mine.csv").read_text() == "image_id,verdict\n"
    scenario = load_params(path).scenario("mine")
    assert scenario.detector.name == form.get("detector", "patchcore") and scenario.rounds == 2


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"name": "elpv_mono_a20"}, "params.yaml has a scenario elpv_mono_a20 already: choose another name"),
        ({"name": "bottle"}, "bottle is a production line, a scenario of its own: choose another name"),
        ({"name": "a-b"}, "the name 'a-b' must be letters, digits and '_'"),
        ({"name": ""}, "the name '' must be letters, digits and '_'"),
        (
            {"dataset": "elpv"},
            "dataset is 'elpv'; expected a data set of params.yaml (elpv_mono) or a folder such as data/",
        ),
        ({"dataset": "data/own/gone"}, "data/own/gone of source image_folder is not a folder"),
        (
            {"dataset": "data/incoming/bottle"},
            "data/incoming/bottle is an inbox: its line becomes a scenario by itself",
        ),
        (
            {"dataset": "data/own/plate", "alpha": 0.1},
            "alpha is 0.1, but 1 of 1 images in data/own/plate have no label, so none is known to be a defect: "
            "leave alpha out (or null), or sort the images into folders good/ and bad/",
        ),
        (
            {"dataset": "data/own/sorted", "alpha": 0.1},
            "alpha 0.1 does not fit data/own/sorted: max_ratio 0.4 of 3 training samples needs 1 anomalous samples and "
            "one more to test on, but there are 1: the largest possible ratio is 0.0; take another alpha, and a ",
        ),
        (
            {"dataset": "data/own/sorted", "alpha": 0.1, "max_ratio": 0.1},
            "alpha 0.1 does not fit data/own/sorted: 0.1 of 3 training samples is less than one defect; take another ",
        ),
        (
            {"dataset": "data/own/few", "alpha": 0.1},
            "alpha 0.1 does not fit data/own/few: max_ratio 0.4 of 14 training samples needs 5 anomalous samples and "
            "one more to test on, but there are 3: the largest possible ratio is 0.142; give max_ratio as well, from "
            "alpha up to that, or leave both out (or null) for the images as they are",
        ),
        ({"max_ratio": 0.2}, "max_ratio is 0.2 without alpha, the share to inject: give both or none"),
        ({"alpha": 0.2, "max_ratio": 0.1}, "max_ratio must be at least alpha, 0.2, and below 1, got 0.1"),
        (
            {"alpha": 0.2, "max_ratio": 20.0},
            "max_ratio must be at least alpha, 0.2, and below 1, got 20: did you mean 0.2",
        ),
        ({"dataset": "data/own/plate", "name": "elpv_mono"}, "params.yaml has a data set elpv_mono already, with root"),
        ({"dataset": "data"}, "the folder is 'data', which holds what the pipeline writes"),
        ({"detector": "patchcare"}, "detector: unknown detector 'patchcare'; there are "),
        ({"policy": "none"}, "selection: unknown selection policy 'none'; there are "),
        ({"alpha": 20.0}, "alpha must be in [0, 1), got 20"),
        ({"policy": "otsu", "seed": -1}, "params.yaml: scenarios.mine.seed: "),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(root, launch, form, reason):
    few = ["bad/0.png", *(f"good/{number}.png" for number in range(4))]
    sorted_ones = [f"data/own/sorted/{one}" for one in few]
    sorted_ones += [f"data/own/few/{'bad' if one < 3 else 'good'}/{one}.png" for one in range(23)]
    for number, image in enumerate(["data/incoming/bottle/0.png", "data/own/plate/0.png", *sorted_ones]):
        save_image(root / image, number)
    before = (root / "params.yaml").read_bytes()
    success, partitions, (said,) = launch(**{"name": "mine", "dataset": "elpv_mono", **form})
    assert not success and reason in said and len(said.splitlines()) == 1
    assert (root / "params.yaml").read_bytes() == before
    assert "mine" not in partitions and not (root / "data/review").exists()


def test_a_folder_of_images_becomes_a_data_set(root, launch):
    """Its images are read as stage `raw` reads them; the second scenario of the folder uses the same data set."""
    for number in range(8):
        save_image(root / f"data/own/plate/{'bad' if number < 3 else 'good'}/{number}.png", number)
    before = (root / "params.yaml").read_text()
    success, partitions, _ = launch(name="plate", dataset="data/own/plate/", alpha=0.35)
    assert success and "plate" in partitions
    written = added(before, (root / "params.yaml").read_text())
    assert written[0] == "  plate: {source: image_folder, root: data/own/plate, category: plate}"
    assert "    dataset: plate" in written and not any("comparators" in line for line in written)
    assert launch(name="plate_mad", dataset="data/own/plate", policy="mad")[0]
    # fewer defects than 0.4 would set aside; the other scenario of the folder is compared at the same share
    for number in range(8):
        save_image(root / f"data/own/few/{'bad' if number < 2 else 'good'}/{number}.png", number)
    assert launch(name="few", dataset="data/own/few", alpha=0.25, max_ratio=0.25)[0]
    assert launch(name="few_mad", dataset="data/own/few", alpha=0.25, policy="mad")[0]
    noise = load_params(root / "params.yaml").scenario("few_mad").noise
    assert (noise.ratio, noise.max_ratio) == (0.25, 0.25)
    params = load_params(root / "params.yaml")
    assert params.scenario("plate_mad").dataset == "plate" and {*params.datasets} == {"plate", "few", "elpv_mono"}
    save_image(root / "elsewhere/unsorted/0.png")  # no labels, outside data/
    assert launch(name="unsorted", dataset=str(root / "elsewhere/unsorted"))[0]
    params = load_params(root / "params.yaml")
    assert params.dataset("unsorted").root == str(root / "elsewhere/unsorted")
    assert params.scenario("unsorted").comparators == ("none",)


def test_the_form_of_the_launchpad_names_what_there_is(root):
    job = new_scenario_job(root, load_params(root / "params.yaml"))
    fields = job.graph.node_defs[0].config_schema.config_type.fields
    filled = {name: field.default_value for name, field in fields.items() if field.default_provided}
    usual = {"detector": "patchcore", "policy": "adaptive", "seed": 0}
    assert filled == {"dataset": "elpv_mono", "alpha": None, "max_ratio": None, **usual}
    with pytest.raises(dg.DagsterInvalidConfigError, match='Missing required config entry "name"'):
        dg.validate_run_config(job, {"ops": {STEP: {"config": filled}}})  # as the launchpad does
    assert "elpv_mono" in fields["dataset"].description and "padim" in fields["detector"].description
    assert "partition" in job.description


def test_a_partition_that_is_no_scenario_gets_one_line(root):
    """As Dagster's dialog "Add a partition" makes one: its run says what to do, and the sensor takes it away."""
    said = "no scenario of params.yaml is called typo: add one there, or with the job new_scenario"
    with dg.instance_for_test() as instance:
        sync(instance, ["elpv_mono_a20", "typo"])
        done = dg.materialize([ingest_asset(root)], instance=instance, partition_key="typo", raise_on_error=False)
        (failed,) = done.get_step_failure_events()
        assert shown(failed) == f"llbnad.errors.ConfigError: {said} (it has elpv_mono_a00, elpv_mono_a20)"
        with pytest.raises(Exception, match=said):
            _Step(root, Changes(instance, {}, "typo"), print)
        sensor = arrival_sensor(root, load_params(root / "params.yaml").arrival, "retrain")
        context = dg.build_sensor_context(instance, repository_def=defs.get_repository_def())
        assert sensor(context).skip_reason.skip_message == f"{said}; the partition was taken away"
        assert set(instance.get_dynamic_partitions("scenario")) == {"elpv_mono_a00", "elpv_mono_a20"}
