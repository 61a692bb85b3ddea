"""Stage `settings`: the settings of a scenario from params.yaml, in a file that its other stages read."""

from orchestration.pipeline.settings import write_settings
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.summary import say


def main(scenario: str) -> None:
    """Write SCENARIO's settings."""
    path = write_settings(scenario)
    say(f"settings {scenario}: {path}")


if __name__ == "__main__":
    run_stage(main)
