"""Stage `code`: the modules that each stage's bytes depend on, so that an edit reruns only the stages it reaches."""

from pathlib import Path

from orchestration.pipeline.code import write_listings
from orchestration.pipeline.import_graph import PACKAGES
from orchestration.pipeline.stage import refuse_changed, run_stage
from orchestration.pipeline.summary import say


def main() -> None:
    """Write data/code/<stage>.csv for every stage."""
    found = write_listings(Path())
    refuse_changed(file for folder in PACKAGES for file in Path(folder).rglob("*.py"))
    say("code: " + ", ".join(f"{entry} {len(listing)}" for entry, listing in found.items()) + " modules")


if __name__ == "__main__":
    run_stage(main)
