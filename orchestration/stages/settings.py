"""Stage `settings`: the settings of a scenario, in a file that its other stages read, and in one file per reader.

A stage depends on the file with the settings that it reads, so that an edit of another setting does not rerun it.
"""

from llbnad.utils.files import write_json
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import STAGE, read_entry, settings_path, with_versions
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.summary import say

# a scenario without a region has no such key
READ_BY = {  # `review` is missing, since stages depend on the file that it names
    "noisy": ("dataset", "noise", "seed"),
    "features": ("encoder",),
    "sub_model": ("sub_models", "subsets", "seed", "encoder", "region", "detector", "sub_model_detector",
                  "partition"),
    "scores": ("sub_models", "subsets", "seed", "partition", "aggregation"),
    # further rounds train sub-models again
    "purified": ("seed", "encoder", "region", "detector", "sub_model_detector", "partition", "aggregation",
                 "selection", "rounds", "patch_rejection", "suspects"),
    "detector": ("seed", "encoder", "region", "detector", "calibration", "comparators"),
    "evaluation": ("seed", "encoder", "region", "suspects"),
}  # fmt: skip


def main(scenario: str) -> None:
    """Write SCENARIO's settings."""
    content = with_versions(read_entry(scenario))
    path = settings_path(scenario)
    write_json(content, path)
    for reader, keys in READ_BY.items():
        write_json(
            {key: content[key] for key in keys if key in content},
            stage_dir(STAGE, scenario) / "read_by" / f"{reader}.json",
        )
    say(f"settings {scenario}: {path}")


if __name__ == "__main__":
    run_stage(main)
