"""Names and texts that MLflow's pages show: one name per number, tables of what is known alone, findings in words."""

import pytest

from llbnad.model.bursts import Bursts
from llbnad.monitoring.finding import decided, skipped
from orchestration.registry import model_card
from orchestration.registry.packaging import logged_name
from orchestration.registry.shown import REMEDIES, as_check, next_step, remedies
from orchestration.tracking.metric_names import in_mlflow
from orchestration.tracking.run_name import run_name
from orchestration.tracking.run_note import comparison_table
from orchestration.tracking.server import page

LABELLED = [
    {"method": "llbnad", "n_selected": 7, "image_auroc": 0.9, "pixel_auroc": None, "contamination_after": 0.0},
    {"method": "none", "n_selected": 9, "image_auroc": 0.8, "pixel_auroc": None, "contamination_after": 0.222},
    {"method": "oracle", "n_selected": 7, "image_auroc": None, "pixel_auroc": None, "contamination_after": None},
]


@pytest.mark.parametrize(
    ("stage", "metrics", "expected"),
    [
        ("noisy", {"n_train": 9, "n_test": 4, "contamination_before": 0.2}, {"n_test": 4}),
        ("noisy", {"contamination_before": 0.2, "contamination_before_samples": 0.1},
         {"train_contamination_before_samples": 0.1}),
        ("noisy", {"contamination_before": 0.2, "contamination_before_samples": 0.2}, {}),
        ("detector", {"threshold_value": 0.5, "threshold_low": 0.4, "n_selected_llbnad": 7, "n_selected_none": 9},
         {"threshold": 0.5, "threshold_low": 0.4, "n_selected": 7}),
        ("evaluation", {"image_auroc": 0.9, "image_auroc_llbnad": 0.9, "image_auroc_none": 0.8},
         {"image_auroc": 0.9, "image_auroc_none": 0.8}),
        ("evaluation", {"n_labelled": 4, "n_tested": 4}, {"n_tested": 4}),
        ("evaluation", {"n_labelled": 4, "n_tested": 0}, {"n_tested": 0, "train_n_labelled": 4}),  # none set aside
        ("purified", {"contamination_after": None, "cut": 3.0}, {"train_contamination_after": None, "cut": 3.0}),
        ("sub_model", {"n_train": 4.5, "score_median": 1.0}, {"n_train_mean": 4.5, "train_score_median": 1.0}),
        ("detector", {"bursts_tested": 60, "bursts_alone": 3, "bursts_together": 20},
         {"train_bursts_tested": 60, "train_bursts_alone": 3, "train_bursts_together": 20}),
        ("purified", {"n_verdict_normal": 0, "n_overruled": 0, "n_selected": 7}, {"n_selected": 7}),
        ("purified", {"n_verdict_normal": 1, "n_verdict_defect": 0, "n_overruled": 0},
         {"n_verdict_normal": 1, "n_verdict_defect": 0, "n_overruled": 0}),
        ("features", {"images_encoded": 3}, {"images_encoded": 3}),
    ],
)  # fmt: skip
def test_a_number_has_one_name(stage, metrics, expected):
    assert in_mlflow(stage, metrics) == expected


def test_the_table_of_comparators_shows_what_is_known():
    lines = comparison_table(LABELLED, "tail").splitlines()
    assert lines[0] == "| trained on | images | defects among them | I-AUROC |"
    assert lines[2:] == [
        "| everything (*none*) | 9 | 22.2 % | 0.800 |",
        "| what tail kept (*llbnad*) | 7 | 0.0 % | 0.900 |",
        "| true normals only (*oracle*) | 7 | – | – |",
    ]
    unlabelled = [{**row, "image_auroc": None, "contamination_after": None} for row in LABELLED[:1]]
    assert comparison_table(unlabelled, "tail").splitlines()[0] == "| trained on | images |"


def test_a_logged_model_is_called_after_its_method():
    assert logged_name("patchcore") == "llbnad-patchcore"
    assert logged_name("my.package:Detector") == "llbnad-my_package_Detector"


@pytest.mark.parametrize(
    ("scenario", "dataset", "version", "verdicts", "name"),
    [
        ("elpv_mono_a20", "elpv_mono", "3", 0, "a20 adaptive v3 of elpv_mono 01234567"),
        ("bottle", "bottle", None, 12, "bottle adaptive 12 verdicts 01234567"),
        ("noisy", "a" * 30, None, 0, f"noisy adaptive of {'a' * 15}… 01234567"),
    ],
)
def test_the_name_of_a_run_begins_with_what_tells_it_apart(scenario, dataset, version, verdicts, name):
    assert run_name(scenario, "adaptive", dataset, "0123456789abcdef", version, verdicts) == name


def test_a_page_opens_as_machine_learning(monkeypatch):
    monkeypatch.delenv("LLBNAD_MLFLOW_UI", raising=False)
    assert page("http://u:p@host:5000/", "experiments", "1") == (
        "http://host:5000/#/experiments/1?workflowType=machine_learning"
    )


def test_findings_are_sentences():
    found = [decided("spread", False, "0.001", "at least 0.01"), skipped("shift", "there is no champion", "x" * 10)]
    assert [model_card.finding_line(one) for one in found] == [
        "spread **REFUSED**: 0.001; expected at least 0.01",
        f"shift skipped: there is no champion; expected {'x' * 10}",
    ]
    assert len(model_card.finding_line(decided("verdicts", True, "y" * 9000, "few"))) < 500


@pytest.mark.parametrize(
    ("finding", "begins", "measured"),
    [
        (decided("sensitivity", False, "scratch 0 %, BLIND", "none lost"),
         "REFUSED by sensitivity: scratch 0 %, BLIND; expected none lost.\n\nNext: look at the suspects", True),
        (decided("sensitivity", True, "scratch 90 %", "none lost"), "Detector", True),
        (skipped("sensitivity", "there is no champion", "none lost"), "Detector", False),
    ],
)  # fmt: skip
def test_a_card_says_first_why_it_was_refused_and_one_thing_of_sensitivity(calibrated, finding, begins, measured):
    card = model_card.model_card(calibrated, {}, [finding])
    assert card.startswith(begins)
    assert (model_card.COMPARED_ALONE in card, model_card.UNMEASURED in card) == (measured, not measured)
    of_evaluation = model_card.model_card(calibrated, {"sensitivity_line": "smallest scratch: 4 px"}, [finding])
    assert "Smallest scratch: 4 px." in of_evaluation and "sensitivity.images" not in of_evaluation


def test_several_remedies_name_the_check_that_each_is_for():
    one, other = REMEDIES["threshold"], REMEDIES["labelled"]
    assert remedies(["threshold", "spread"]) == one and remedies(["spread"]) == ""
    assert remedies(["threshold", "labelled"]) == f"threshold: {one}; labelled: {other}"


def test_a_refusal_says_of_each_check_what_was_seen_and_what_to_do():
    names = ("spread", "threshold", "agreement", "labelled")
    findings = [{"name": name, "outcome": "failed", "observed": "0.1", "expected": "1"} for name in names]
    said = next_step("cells", {"version": "2", "champion": "1", "findings": findings})
    *each, last = said.split("; by ")
    assert each == [f"refused by threshold (0.1, expected 1): {REMEDIES['threshold']}",
                    f"labelled (0.1, expected 1): {REMEDIES['labelled']}"]  # fmt: skip
    assert last.startswith("spread (0.1, expected 1), agreement (0.1, expected 1): `python -m orchestration review")
    assert said.endswith("registry promote cells 2` promotes it all the same")


def test_a_check_that_was_skipped_has_no_result_in_dagster():
    for outcome, passed in {"passed": True, "skipped": None, "failed": False}.items():
        check = as_check({"name": "spread", "outcome": outcome, "observed": "0.1", "expected": "at least 0.01"})
        assert (check.passed, check.severity) == (passed, "ERROR")
        assert check.description.startswith("refused: ") == (outcome == "failed")


def test_the_card_says_whether_neighbours_by_name_are_alike():
    alike = model_card.bursts_line(Bursts(60, 10, 36))
    assert alike.startswith("**Images that follow each other by name are alike: of 60 that were tried, 36 score among")
    assert "at least 3.0 times" in alike
    assert model_card.bursts_line(Bursts(60, 3, 4)) == (
        "Images that follow each other by name are no more alike than others: of 60, 4 score high where their "
        "neighbours are held out too, 3 where they are held out alone."
    )
