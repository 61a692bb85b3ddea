"""Stage `settings`: the settings of a scenario, in a file that its other stages read, and in one file per reader.

A stage depends on the file with the settings that it reads, so that an edit of another setting does not rerun it.
"""

from llbnad.utils.files import write_json
from orchestration.pipeline.settings import read_entry, settings_path, with_versions
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.stage_settings import files
from orchestration.pipeline.summary import say


def main(scenario: str) -> None:
    """Write SCENARIO's settings."""
    for path, content in files(scenario, with_versions(read_entry(scenario))).items():
        write_json(content, path)
    say(f"settings {scenario}: {settings_path(scenario)}")


if __name__ == "__main__":
    run_stage(main)
