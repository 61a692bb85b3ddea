"""Stage `settings`: what params.yaml says of a scenario, for its other stages to read."""

from orchestration.pipeline.settings import write_settings
from orchestration.pipeline.stage import run_stage


def main(scenario: str) -> None:
    """Write SCENARIO's settings."""
    path = write_settings(scenario)
    print(f"settings {scenario}: {path}")


if __name__ == "__main__":
    run_stage(main)
