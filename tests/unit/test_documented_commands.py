"""Every command in the pages exists, with its options, and is run by a test or listed with the reason why not."""

import ast
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache

import pytest
from typer.testing import CliRunner

from llbnad import cli
from orchestration.__main__ import application
from tests.conftest import REPOSITORY
from tests.unit.test_docs import PAGES, blocks, prose, text

PROGRAMS = ("make", "python", "llbnad", "dvc", "dagster", "mlflow", "pip", "git")

# The longest pattern that fits a command decides. It names the test that runs the command or the function behind it, or
# the reason why no test does.
COMMANDS = {
    "make setup": "installs 7 GB: the first step of CI",
    "make run": "installs, then runs `python -m orchestration run`, which has a test",
    "make test": "runs the tests",
    "make test-fast": "runs the tests",
    "make lint": "a part of `make test`",
    "make setup setup-cluster": "installs 7 GB; CI does so for `make test-cluster`",
    "make setup-cluster": "installs from the network; CI does so for `make test-cluster`",
    "make test-extras": "installs from the network; CI runs it",
    "make test-cluster": "runs the tests of tests/cluster",
    "make worker*": "tests/cluster/test_celery.py::test_a_backfill_outlives_a_worker",
    "make ui CLUSTER=*": "tests/cluster/test_home.py::test_home_serves_the_jobs_of_several_machines",
    "make ui": "installs, then runs `python -m orchestration ui`, which has a test",
    "make pictures": "installs, then does what tests/unit/test_pictures.py does with few cells",
    "make audit": "installs, then runs `python -m orchestration audit`, which has a test",
    "make clean": "removes environments",
    "python -m orchestration COMMAND": "the form of the commands below",
    "python -m orchestration --help": "tests/unit/test_documented_commands.py::test_commands_and_options_exist",
    "python -m orchestration run --verify": (
        "tests/pipeline/test_verify.py::test_the_audit_the_run_and_the_nightly_job_find_it"
    ),
    "python -m orchestration run --slices": (
        "tests/pipeline/test_slices.py::test_a_run_in_slices_leaves_what_one_dvc_repro_leaves"
    ),
    "python -m orchestration run --no-slices": (
        "tests/pipeline/test_both_doors.py::test_second_run_says_that_there_is_nothing_to_do"
    ),
    "python -m orchestration slices work*": (
        "tests/cluster/test_slices.py::test_a_killed_worker_is_taken_over_and_nothing_published_is_computed_again"
    ),
    "python -m orchestration slices *": (
        "tests/cluster/test_slices.py::test_two_machines_give_the_record_of_one_and_whoever_pulls_it_computes_nothing"
    ),
    "python -m orchestration audit --outputs-only": (
        "tests/pipeline/test_verify.py::test_the_audit_the_run_and_the_nightly_job_find_it"
    ),
    "python -m orchestration run": (
        "tests/pipeline/test_both_doors.py::test_second_run_says_that_there_is_nothing_to_do"
    ),
    "python -m orchestration status*": "tests/pipeline/test_status.py::test_one_screen",
    "python -m orchestration ui*": (
        "tests/pipeline/test_ui.py::test_the_pages_worth_opening_are_told_when_the_servers_answer"
    ),
    "python -m orchestration audit*": "tests/pipeline/test_audit.py::test_a_forged_hash_is_the_one_difference",
    "python -m orchestration mend": (
        "tests/pipeline/test_left_behind.py::test_plain_dvc_mends_first_and_nothing_is_lost"
    ),
    "python -m orchestration backfill": (
        "tests/pipeline/test_both_doors.py::test_plain_dvc_runs_are_told_to_dagster_once"
    ),
    "python -m orchestration record *": (
        "tests/pipeline/test_tracking.py::test_server_that_is_down_stops_nothing_and_the_record_can_be_sent_later"
    ),
    "python -m orchestration settings*": (
        "tests/unit/test_docs.py::test_the_command_settings_prints_and_renews_the_page"
    ),
    "python -m orchestration benchmark benchmarks/purification.yaml": (
        "tests/pipeline/test_benchmark.py::test_the_table_is_a_stage_beside_the_pipeline_and_an_asset"
    ),
    "python -m orchestration benchmark benchmarks/real_iad.yaml": (
        "tests/pipeline/test_benchmark.py::test_real_iad_s_protocol_on_a_miniature_in_its_layout"
    ),
    "python -m orchestration benchmark benchmarks/real_iad.yaml --dataset toy": (
        "takes days and needs Real-IAD; tests/pipeline/test_benchmark.py runs the grid on a miniature"
    ),
    "python -m orchestration benchmark benchmarks/*.yaml": (
        "takes minutes to an hour; tests/unit/test_docs.py reads the grid"
    ),
    "python -m orchestration ingest*": "tests/pipeline/test_ingest.py::test_everything_through_the_command",
    "python -m orchestration registry challenge *": "tests/pipeline/test_production_line.py::test_days_of_a_line",
    "python -m orchestration registry promote *": "tests/pipeline/test_registry.py::test_the_life_of_a_champion",
    "python -m orchestration registry rollback *": "tests/pipeline/test_registry.py::test_the_life_of_a_champion",
    "python -m orchestration registry list *": (
        "only prints; what it prints is checked by tests/pipeline/test_registry.py"
    ),
    "python -m orchestration drift *": "tests/pipeline/test_production_line.py::test_days_of_a_line",
    "python -m orchestration watch * --webhook *": (
        "tests/unit/test_webhook.py::test_messages_wait_on_disk_while_the_receiver_is_down"
    ),
    "python -m orchestration watch *": "tests/pipeline/test_live.py::test_a_watcher_that_is_killed_loses_nothing",
    "python -m orchestration watch * --once": (
        "tests/pipeline/test_live.py::test_the_champion_scores_what_is_there_and_the_sensor_asks_for_it"
    ),
    "python -m orchestration page*": (
        "tests/browser/test_inspection_page.py::test_an_image_is_dropped_and_the_slider_moves_label_and_regions"
    ),
    "python -m orchestration review *": (
        "tests/pipeline/test_review.py::test_verdicts_override_the_policy_and_rerun_what_they_must"
    ),
    "python -m orchestration predict *": (
        "tests/pipeline/test_registry.py::test_dagster_crowns_scores_a_folder_and_refuses"
    ),
    "python -m orchestration export *": (
        "tests/pipeline/test_export.py::test_the_champion_is_exported_by_its_address_and_decides_as_its_model_file"
    ),
    "python -m tests.campaign*": "takes an hour; tests/pipeline/test_campaign.py runs a part of it",
    "python -m benchmarks.sensitivity *": "takes half an hour and needs data sets that are not in the repository",
    "python -m benchmarks.regions*": (
        "takes minutes and needs data beside the clone; tests/unit/test_evaluate.py checks its numbers"
    ),
    "python -m benchmarks.region_splits*": (
        "takes minutes and needs data beside the clone; tests/unit/test_regions.py checks the rate on made maps"
    ),
    "python -m benchmarks.bursts*": (
        "takes minutes and needs data beside the clone; tests/unit/test_bursts.py checks the rate on made bursts"
    ),
    "python -m benchmarks.large_photos*": (
        "takes minutes and needs data beside the clone; tests/unit/test_views.py gives the same two commands"
    ),
    "python -m benchmarks.encoders*": (
        "tests/unit/test_table.py::test_encoders_are_compared_on_equal_splits_and_joined"
    ),
    "python -m benchmarks.dinomaly_steps*": "takes minutes; `train` and `evaluate` have tests",
    "python -m benchmarks.performance*": "needs a quiet machine; tests/unit/test_memory.py runs a part of it",
    "python -m benchmarks.scale*": "takes an hour; tests/unit/test_memory.py asks the same of training and stage 1",
    "python -m benchmarks.pictures": "tests/unit/test_pictures.py::test_pictures_are_made_from_the_embedded_cells",
    "python -m benchmarks.exported*": "takes minutes and needs data sets; `export`, `Exported` and `parity` have tests",
    "python -m benchmarks.limits*": "takes minutes; its steps are those of `run_two_stage`, which has tests",
    "python -m benchmarks.views*": "takes minutes and needs a data set; `evaluate` and `FeatureStore` have tests",
    "llbnad run * --tiles *": (
        "tests/unit/test_views.py::test_two_commands_from_wide_images_to_results"
    ),
    "llbnad run": "tests/unit/test_cli.py::test_run_writes_what_it_promises",
    "llbnad run --help": "tests/unit/test_cli.py::test_help_names_every_option",
    "llbnad run PATH/images --out OUT": "tests/unit/test_cli.py::test_unsorted_folder_gives_scores_only",
    "llbnad run PATH/images * --set *": "tests/unit/test_cli.py::test_set_has_the_last_word",
    "llbnad run --source real_iad *": (
        "tests/unit/test_magnetic_tile.py::test_llbnad_helps_on_contaminated_magnetic_tiles"
    ),
    "llbnad run PATH/parts.csv *": (
        "tests/unit/test_manifest_source.py::test_a_run_on_a_manifest_prints_what_it_read_and_lists_its_bad_rows"
    ),
    "llbnad lint": "tests/unit/test_lint.py::test_a_sorted_set_needs_no_decision",
    "llbnad lint --out": "tests/unit/test_lint.py::test_a_sorted_set_needs_no_decision",
    "llbnad lint PATH/images*": "tests/unit/test_lint.py::test_a_sorted_set_needs_no_decision",
    "llbnad lint PATH/parts.csv": "tests/unit/test_lint.py::test_a_manifest_is_linted_by_its_file",
    "llbnad run --config FILE": "tests/unit/test_api.py::test_fit_gives_the_bytes_of_llbnad_run",
    "llbnad run --out runs/padim --detector anomalib *": (
        "tests/unit/test_anomalib.py::test_both_stages_without_features_or_files"
    ),
    "llbnad run --out runs/mine *": (
        "tests/unit/test_contributing.py::test_own_detector_and_policy_purify_and_detect"
    ),
    "llbnad run --out runs/pixels *": "tests/unit/test_contributing.py::test_own_encoder_is_encoded_with",
    "llbnad run --out runs/outside *": (
        "tests/unit/test_contributing.py::test_own_classes_work_from_outside_the_package"
    ),
    "llbnad predict*": "tests/unit/test_cli.py::test_predict_scores_what_it_can_read_and_says_what_it_cannot",
    "llbnad predict* --fpr *": "tests/unit/test_cli.py::test_labels_follow_the_sensitivity_knob",
    "llbnad sensitivity*": "tests/unit/test_sensitivity.py::test_the_command_writes_tables_and_pictures",
    "llbnad predict* --min-area *": (
        "tests/unit/test_region_files.py::test_the_command_finds_regions_and_refuses_them_of_an_older_model"
    ),
    "llbnad export*": "tests/unit/test_export.py::test_onnx_and_openvino_agree_with_torch_and_with_predict",
    "llbnad export* --precision int8 *": (
        "tests/unit/test_export.py::test_lower_precisions_are_judged_on_the_calibration_images"
    ),
    "llbnad predict EXPORTED/*": (
        "tests/unit/test_export.py::test_predict_writes_the_same_from_a_graph_as_from_the_model"
    ),
    "dvc repro": "tests/pipeline/test_both_doors.py::test_two_fresh_runs_through_either_door_have_the_same_bytes",
    "dvc repro --single-item *": "tests/pipeline/test_ingest.py::test_everything_through_the_command",
    "dvc repro benchmarks/dvc.yaml": (
        "tests/pipeline/test_benchmark.py::test_the_table_is_a_stage_beside_the_pipeline_and_an_asset"
    ),
    "dvc *": "DVC's own command, as its documentation has it",
    "dagster job *": "Dagster's own command, as its documentation has it",
    "dagster dev": "Dagster's own command; tests/pipeline/test_production_line.py runs its daemon",
    "mlflow models serve *": "tests/pipeline/test_serving.py::test_a_server_answers_over_http",
    "pip install *": "installs from the network",
    "git *": "git's own command",
}  # fmt: skip


def normalised(line: str) -> Iterator[str]:
    """Yield the commands of a line: without comments, assignments and the environment's folder."""
    for part in re.split(r"\s&&\s", re.sub(r"(^|\s)#.*", "", line)):
        command = re.sub(r"^(\w+=\S+ )+", "", " ".join(part.split())).removeprefix(".venv/bin/")
        if command.partition(" ")[0] in PROGRAMS:
            yield command


def commands() -> set[str]:
    """Return every command of the pages' shell blocks and of their prose."""
    found = set()
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
        quoted = [span for span in re.findall(r"`([^`]+)`", prose(page)) if " " in span]
        found |= {command for line in [*lines, *quoted] for command in normalised(line)}
    return found


def decided_by(command: str) -> str | None:
    fitting = [pattern for pattern in COMMANDS if fnmatchcase(command, pattern)]
    return max(fitting, key=len, default=None)


@cache
def defined_in(file: str) -> set[str]:
    body = ast.parse((REPOSITORY / file).read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_every_command_has_a_test_or_a_reason():
    deciding = {command: decided_by(command) for command in commands()}
    assert len(deciding) > 40
    assert not [command for command, pattern in deciding.items() if pattern is None]
    assert not set(COMMANDS) - set(deciding.values()), "no page has these commands any more"
    for pattern, value in COMMANDS.items():
        file, found, name = value.partition("::")
        assert not found or name in defined_in(file), f"{pattern}: {value} does not exist"


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", text(REPOSITORY / "Makefile"), re.MULTILINE))
    named = {command.split()[1] for command in commands() if command.startswith("make ")}
    assert named <= targets


@pytest.mark.parametrize(("start", "app"), [("llbnad", cli.app), ("python -m orchestration", application())])
def test_commands_and_options_exist(start, app):
    """Every sub-command and option that a page names is in the program's own help."""
    checked = set()
    for command in sorted(command for command in commands() if command.startswith(f"{start} ")):
        arguments = shlex.split(command.removeprefix(start))
        if arguments[0] == "COMMAND":
            continue
        path = arguments[:2] if arguments[0] in ("registry", "slices") else arguments[:1]
        shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0, f"{command}: {shown.output}"
        options = {argument for argument in arguments if argument.startswith("--")} - {"--help"}
        assert not {option for option in options if not re.search(rf"{option}\b", shown.output)}, command
        checked.add(path[0])
    assert len(checked) >= 3
