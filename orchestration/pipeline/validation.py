"""Great Expectations suites for the outputs of three stages: manifest, noisy variant and purified set.

A suite is a list of `Rule`s: a sentence for people, and the expectation that tests it. Rules about single rows are
tested on the table itself. Rules about the whole table (overlaps, counts, shares) are tested on a frame of one row that
summarises it. Each check writes a report, and stops the stage if a rule fails. The report has no times and no run ids,
so equal data gives equal bytes. Dagster shows the same report as asset checks.
"""

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.data.contaminate import anomalous_samples
from llbnad.data.manifest import SCHEMA
from llbnad.errors import DataError
from llbnad.utils.files import write_json

HEX_64 = r"^[0-9a-f]{64}$"
ABSOLUTE = r"^(?:/|\\|[A-Za-z]:)"
SHOWN = 5  # offending values quoted in a report


class ValidationError(DataError):
    """Data does not meet its suite. The message lists the rules that failed; the report lists all rules."""


@dataclass(frozen=True)
class Rule:
    """One rule of a suite: a sentence, and the expectation that tests it."""

    sentence: str
    name: str  # class in great_expectations.expectations
    arguments: Mapping[str, Any]
    expected: Any  # JSON value


def check_manifest(manifest: pd.DataFrame, report: Path) -> None:
    """Validate a source's image table (`llbnad.data.manifest.SCHEMA`).

    Raises:
        ValidationError: a row or the whole table breaks the schema.
    """
    rules = [
        *_table_rules(),
        _rule("split is train, test or empty", "ExpectColumnValuesToBeInSet", ["train", "test", None], "split",
              value_set=["train", "test"]),
    ]  # fmt: skip
    _gate("manifest", report, [(manifest, rules)])


def check_noisy(noisy: pd.DataFrame, expected_ratio: float | None, report: Path) -> None:
    """Validate a scenario's training and test images.

    Args:
        noisy: image table in which every row is for training or for testing.
        expected_ratio: share of anomalous training samples that the protocol promises, ⌊α·N⌋/N for `replace`; None if
            nothing was injected. A sample is anomalous if any of its images is.
        report: JSON file to write.

    Raises:
        ValidationError: train and test overlap, or the contamination differs from the expected ratio.
    """
    rules = [
        *_table_rules(),
        _rule("split is never empty", "ExpectColumnValuesToNotBeNull", "no empty value", "split"),
        _rule("split is train or test", "ExpectColumnValuesToBeInSet", ["train", "test"], "split",
              value_set=["train", "test"]),
    ]  # fmt: skip
    table = noisy.reindex(columns=SCHEMA.names)  # a missing column fails its own rule; here it counts as empty
    train = table[table["split"] == "train"]
    samples = set(train["sample_id"].dropna())
    shared = samples & set(table["sample_id"][table["split"] == "test"].dropna())
    anomalous = len(anomalous_samples(train) & samples)
    summary: dict[str, Any] = {"train_images": len(train), "shared_samples": len(shared), "anomalous": anomalous}
    whole = [
        _at_least("at least one image is for training", "train_images", 1),
        _equal("no physical sample is in both train and test", "shared_samples", 0),
    ]
    if expected_ratio is not None:
        promised = round(expected_ratio * len(samples))
        summary["contamination"] = anomalous / len(samples) if samples else 0.0
        whole += [
            _equal("number of anomalous training samples is what the protocol injects", "anomalous", promised),
            _between("share of anomalous training samples is what the protocol promises", "contamination",
                     expected_ratio - 1e-9, expected_ratio + 1e-9, expected=expected_ratio),
        ]  # fmt: skip
    _gate("noisy", report, [(noisy, rules), (pd.DataFrame([summary]), whole)])


def check_purified(
    train: pd.DataFrame, scores: pd.DataFrame, kept: Sequence[str], rejected: Sequence[str], report: Path
) -> None:
    """Validate a policy's decision on the training images.

    Args:
        train: image table of the training images.
        scores: column `image_id` and one or more columns of numbers.
        kept: ids of the images that are kept.
        rejected: ids of the images that are rejected.
        report: JSON file to write.

    Raises:
        ValidationError: an image is neither kept nor rejected, or both, or has no finite score; or too few are kept.
    """
    numbers = [str(name) for name in scores.columns if name != "image_id"]
    table = scores.astype(dict.fromkeys(numbers, "float64")).reset_index(drop=True)
    rules = [_rule("image_id of the scores is unique", "ExpectColumnValuesToBeUnique", "unique", "image_id")]
    for name in numbers:
        rules += [
            _rule(f"{name} is never missing", "ExpectColumnValuesToNotBeNull", "no missing value", name),
            _rule(f"{name} is finite", "ExpectColumnValuesToBeBetween", "finite", name,
                  min_value=-sys.float_info.max, max_value=sys.float_info.max),
        ]  # fmt: skip
    ids, verdicts = set(train["image_id"]), [*kept, *rejected]
    scored = set(scores["image_id"]) if "image_id" in scores.columns else set()
    summary = {
        "score_columns": len(numbers),
        "unscored": len(ids ^ scored),
        "without_verdict": len(ids - set(verdicts)),
        "unknown": len(set(verdicts) - ids),
        "both": len(set(kept) & set(rejected)),
        "doubled": len(kept) - len(set(kept)) + len(rejected) - len(set(rejected)),
        "kept": len(kept),
        "kept_share": len(kept) / len(train) if len(train) else 0.0,
    }
    whole = [
        _at_least("there is a column of scores", "score_columns", 1),
        _equal("training images without a score, or scores of other images", "unscored", 0),
        _equal("training images that are neither kept nor rejected", "without_verdict", 0),
        _equal("kept or rejected images that are not for training", "unknown", 0),
        _equal("images both kept and rejected", "both", 0),
        _equal("images listed twice as kept or twice as rejected", "doubled", 0),
        _at_least("at least 2 images are kept", "kept", 2),
        _between("share of kept images is in (0, 1]", "kept_share", 0.0, 1.0, strict_min=True, expected="(0, 1]"),
    ]
    _gate("purified", report, [(table, rules), (pd.DataFrame([summary]), whole)])


def _table_rules() -> list[Rule]:
    """Return the rules for every image table: rows have the documented form, and each image occurs once."""
    return [
        Rule("columns are exactly the documented ones, in order", "ExpectTableColumnsToMatchOrderedList",
             {"column_list": SCHEMA.names}, SCHEMA.names),
        Rule("there is at least one image", "ExpectTableRowCountToBeBetween", {"min_value": 1}, "≥ 1"),
        _rule("image_id is never empty", "ExpectColumnValuesToNotBeNull", "no empty value", "image_id"),
        _rule("image_id is unique", "ExpectColumnValuesToBeUnique", "unique", "image_id"),
        _rule("image_id is a SHA-256 in hex", "ExpectColumnValuesToMatchRegex", HEX_64, "image_id", regex=HEX_64),
        _rule("path is never empty", "ExpectColumnValuesToNotBeNull", "no empty value", "path"),
        _rule("path is unique", "ExpectColumnValuesToBeUnique", "unique", "path"),
        _rule("path is relative", "ExpectColumnValuesToNotMatchRegex", f"not {ABSOLUTE}", "path", regex=ABSOLUTE),
        _rule("sample_id is never empty", "ExpectColumnValuesToNotBeNull", "no empty value", "sample_id"),
        _rule("width is known", "ExpectColumnValuesToNotBeNull", "no empty value", "width"),
        _at_least("width is at least 1 pixel", "width", 1),
        _rule("height is known", "ExpectColumnValuesToNotBeNull", "no empty value", "height"),
        _at_least("height is at least 1 pixel", "height", 1),
    ]  # fmt: skip


def _rule(sentence: str, name: str, expected: Any, column: str, **arguments: Any) -> Rule:
    return Rule(sentence, name, {"column": column, **arguments}, expected)


def _at_least(sentence: str, column: str, minimum: int) -> Rule:
    return _rule(sentence, "ExpectColumnValuesToBeBetween", f"≥ {minimum}", column, min_value=minimum)


def _equal(sentence: str, column: str, value: int) -> Rule:
    return _rule(sentence, "ExpectColumnValuesToBeInSet", value, column, value_set=[value])


def _between(sentence: str, column: str, low: float, high: float, *, expected: Any, strict_min: bool = False) -> Rule:
    name = "ExpectColumnValuesToBeBetween"
    return _rule(sentence, name, expected, column, min_value=low, max_value=high, strict_min=strict_min)


def _gate(suite: str, report: Path, parts: Iterable[tuple[pd.DataFrame, list[Rule]]]) -> None:
    """Test all rules and write the report. Raise ValidationError if a rule fails."""
    findings = [finding for frame, rules in parts for finding in _findings(frame, rules)]
    failed = [finding for finding in findings if not finding["success"]]
    write_json({"suite": suite, "success": not failed, "expectations": findings}, report)
    if failed:
        lines = [
            f"  {item['expectation']}: observed {item['observed']}, expected {item['expected']}" for item in failed
        ]
        head = f"{len(failed)} of {len(findings)} expectations of suite {suite} failed (all of them: {report}):"
        raise ValidationError("\n".join([head, *lines]))


def _findings(frame: pd.DataFrame, rules: list[Rule]) -> list[dict[str, Any]]:
    """Test `rules` on `frame` with one validator, and return the results in the order of the rules."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read on import: nothing is sent home
    import great_expectations as gx
    from great_expectations import expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": frame})
    suite = gx.ExpectationSuite(
        "suite",
        expectations=[
            getattr(expectations, rule.name)(**rule.arguments, meta={"number": number})
            for number, rule in enumerate(rules)
        ],
    )
    results: dict[int, Any] = {}
    for item in batch.validate(suite).results:
        configuration: Any = item.expectation_config
        results[configuration.meta["number"]] = item
    return [
        {
            "expectation": rule.sentence,
            "success": bool(results[number].success),
            "observed": _observed(frame, rule, results[number]),
            "expected": rule.expected,
        }
        for number, rule in enumerate(rules)
    ]


def _observed(frame: pd.DataFrame, rule: Rule, result: Any) -> Any:
    """Return the observation as a JSON value: the value of a summary, a table's property, or the offending values."""
    column = rule.arguments.get("column")
    if column is not None and column not in frame.columns:
        return f"no column {column}"
    if "observed_value" in result.result:
        return _plain(result.result["observed_value"])
    if "element_count" not in result.result:
        problems = [item for item in result.exception_info.values() if isinstance(item, dict)]
        return str(problems[0]["exception_message"] if problems else result.exception_info.get("exception_message"))
    if len(frame) == 1 and result.result["unexpected_count"] + result.result["missing_count"] < 2:
        return _plain(frame[column].iloc[0])
    if result.success:
        return f"all {result.result['element_count']} rows"
    offending = [_plain(value) for value in result.result["partial_unexpected_list"][:SHOWN]]
    return {"rows": _plain(result.result["unexpected_count"]), "first": offending}


def _plain(value: Any) -> Any:
    """Return `value` as a JSON value. A value that JSON does not have, such as NaN, becomes text."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return None if value is pd.NA else str(value)
