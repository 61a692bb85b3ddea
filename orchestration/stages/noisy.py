"""Stage `noisy`: a scenario's training and test images, contaminated by protocol."""

from llbnad.data.contaminate import contaminate, promised_ratio, sample_contamination
from llbnad.data.manifest import contamination, read_manifest, training_images, write_manifest
from orchestration.pipeline.outputs import raw_manifest
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Recorder, run_stage
from orchestration.pipeline.summary import say
from orchestration.pipeline.validation import check_noisy
from orchestration.tracking.best_effort import record_stage


def main(scenario: str) -> Recorder:
    """Build SCENARIO's noisy variant of its dataset."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    out = stage_dir("noisy", scenario)
    raw = read_manifest(raw_manifest(config.dataset))
    noisy = contaminate(raw, config.noise, config.seed)
    check_noisy(noisy, promised_ratio(noisy, config.noise), out / "validation.json")
    write_manifest(noisy, out / "manifest.parquet")

    train = training_images(noisy)
    share, samples = contamination(train), sample_contamination(train)
    known = "unlabelled" if share is None else f"{share:.1%} of images, {samples:.1%} of samples anomalous"
    say(f"noisy {scenario}: {len(train)} training images ({known}), {len(noisy) - len(train)} test images")
    return lambda: record_stage("noisy", scenario, settings, artifacts=[out / "manifest.parquet"])


if __name__ == "__main__":
    run_stage(main)
