"""People's verdicts: the review page of a line, and the effect of the exported CSV on the next run."""

import json

import pandas as pd
import yaml

from tests.pipeline.conftest import command, repro


def review(folder, *arguments):
    return command(folder, ["python", "-m", "orchestration", "review", *arguments])


def test_verdicts_override_the_policy_and_rerun_what_they_must(copy_of):
    folder = copy_of / "data" / "purified" / "line"
    kept = pd.read_parquet(folder / "kept.parquet")["image_id"].tolist()
    rejected = pd.read_parquet(folder / "rejected.parquet")["image_id"].tolist()

    done = review(copy_of, "line", "--out", "page.html")
    assert done.returncode == 0, done.stderr
    assert "data/review/line.csv and set `review: data/review/line.csv`" in done.stdout
    page = (copy_of / "page.html").read_text()
    assert all(image_id in page for image_id in rejected)

    verdicts = {kept[0]: "defect", kept[1]: "exclude", kept[2]: "normal", "0" * 64: "normal"}
    if rejected:
        verdicts[rejected[0]] = "normal"
    rows = [f"{image_id},{verdict}" for image_id, verdict in verdicts.items()]
    (copy_of / "data/review/line.csv").write_text("\n".join(["image_id,verdict", *rows]) + "\n")
    path = copy_of / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scenarios"]["line"]["review"] = "data/review/line.csv"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    ran = {text.split("'")[1] for text in repro(copy_of).splitlines() if text.startswith("Running stage")}
    assert ran == {"params", "settings@line", "purified@line", "detector@line", "evaluation@line"}

    now = set(pd.read_parquet(folder / "kept.parquet")["image_id"])
    assert now == (set(kept) - {kept[0], kept[1]}) | set(rejected[:1])
    assert pd.read_parquet(folder / "excluded.parquet")["image_id"].tolist() == [kept[1]]
    sets = pd.read_parquet(copy_of / "data/detector/line/training_sets.parquet")
    assert kept[1] not in set(sets["image_id"])  # not in a comparator's either
    assert set(sets["image_id"][sets["method"] == "llbnad"]) == now
    predictions = pd.read_parquet(copy_of / "data/evaluation/line/predictions.parquet")
    assert kept[1] not in set(predictions["image_id"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_verdict_elsewhere"] == 1 and summary["n_overruled"] == 1 + len(rejected[:1])
    metrics = json.loads((copy_of / "data/evaluation/line/metrics.json").read_text())
    assert metrics["n_labelled"] == len(verdicts) - 2
    # what was learnt is no test: of these verdicts only the defect, which was rejected for it
    assert (metrics["n_tested"], metrics["image_auroc"], metrics["recall_at_threshold"]) == (0, None, None)
    assert metrics["fpr_at_threshold"] is None and metrics["recall_of_rejected"] in (0, 1)

    # the page starts from what was said; a further verdict that agrees with the policy retrains nothing
    assert review(copy_of, "line", "--out", "page.html").returncode == 0
    assert f'"{kept[0]}": "defect"' in (copy_of / "page.html").read_text()
    with (copy_of / "data/review/line.csv").open("a") as file:
        file.write(f"{kept[3]},normal\n")
    ran = {text.split("'")[1] for text in repro(copy_of).splitlines() if text.startswith("Running stage")}
    assert ran == {"purified@line", "evaluation@line"}


def test_a_wrong_review_file_stops_the_stage_with_one_line(copy_of):
    (copy_of / "data/review/none.csv").write_text(f"image_id,verdict\n{'a' * 64},ok\n")
    done = command(copy_of, ["python", "-m", "orchestration.stages.purified", "line"])
    assert done.returncode == 2
    assert "error: data/review/none.csv:2: verdict is 'ok'; expected one of normal, defect, exclude" in done.stderr
    unknown = review(copy_of, "nobody", "--out", "page.html")
    assert unknown.returncode == 2 and "unknown scenario 'nobody'" in unknown.stderr
