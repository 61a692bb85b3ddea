"""The p-chart: its centre and limits, and the hours it calls outside."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llbnad.model.threshold import threshold_at
from llbnad.monitoring.control_chart import BASELINE, control_chart, draw_chart, promised_shares


def hours(*counts: tuple[int, int], model: str = "m", first: int = 0) -> pd.DataFrame:
    """Images of consecutive hours: (images, defects) of each."""
    rows = [
        (f"2026-01-{1 + (first + number) // 24:02d}T{(first + number) % 24:02d}:00", model,
         "defect" if image < defects else "normal")
        for number, (images, defects) in enumerate(counts)
        for image in range(images)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["hour", "model", "label"])


def test_the_first_hours_are_the_centre_and_are_judged_by_the_promise():
    chart = control_chart(hours((60, 1), (60, 2), (50, 1), (50, 12)), {"m": {"defect": 0.01, "unsure": 0.02}})
    defects = chart[chart["label"] == "defect"]
    assert defects["centre"].tolist() == pytest.approx([0.01, 0.01, 3.5 / 121, 3.5 / 121])
    assert defects["basis"].tolist() == ["the model's promise"] * 2 + ["first 2 hours, 120 images"] * 2
    assert defects["outside"].tolist() == ["", "", "", "high"]
    highest = stats.binom.ppf(1 - 0.00135, 50, 3.5 / 121) / 50
    assert defects["high"].iloc[-1] == highest < 0.24
    assert (chart[chart["label"] == "unsure"]["outside"] == "").all()


def test_a_new_model_begins_anew_and_without_a_promise_nothing_is_outside():
    images = pd.concat([hours((BASELINE, 2), (80, 1)), hours((30, 30), model="n", first=2)])
    defects = control_chart(images, {}).query("label == 'defect'")
    assert defects["basis"].tolist() == ["", f"first 1 hours, {BASELINE} images", ""]
    assert defects["centre"].isna().tolist() == [True, False, True]
    assert (defects["outside"] == "").all()


def test_a_share_that_falls_is_low():
    defects = control_chart(hours((200, 60), (100, 5)), {}).query("label == 'defect'")
    assert defects["outside"].tolist() == ["", "low"]


def test_chance_alone_alarms_as_rarely_as_three_sigma():
    drawn = np.random.default_rng(0).binomial(40, 0.05, 1000)
    defects = control_chart(hours((4000, 200), *((40, int(count)) for count in drawn)), {}).query("label == 'defect'")
    assert (defects["outside"] != "").mean() < 0.005


def test_a_chart_is_drawn_and_no_image_gives_an_empty_one(tmp_path):
    threshold = threshold_at(np.linspace(0, 1, 200), 0.05)
    promised = promised_shares(threshold)
    assert promised["defect"] == threshold.promised_fpr and 0 < promised["unsure"] < 1 and promised_shares(None) == {}
    draw_chart(control_chart(hours((120, 2), (50, 20)), {"m": promised}), tmp_path / "chart.png", "line")
    assert (tmp_path / "chart.png").read_bytes()[:4] == b"\x89PNG"
    assert control_chart(hours(), {}).empty
