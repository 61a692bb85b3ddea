"""`python -m orchestration review LINE --out page.html`: the page on which people judge a line's suspect images.

The exported verdicts go into data/review/<line>.csv, which git versions. params.yaml names that file as the scenario's
`review`, and the next run applies it.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from llbnad.data.canvas import off_canvas
from llbnad.errors import DataError
from llbnad.features.image_vectors import image_vectors
from llbnad.purification.heat import StoredHeat
from llbnad.purification.purify import Purified
from llbnad.purification.verdicts import read_verdicts
from llbnad.review.decision import decided
from llbnad.review.page import GRID, build_suspects, choose_suspects, near_duplicates, review_page
from llbnad.utils.files import refuse_special, replacing
from orchestration.line.arrivals import camera_names
from orchestration.pipeline.features import IMAGE_ROOT, feature_store
from orchestration.pipeline.outputs import read_noisy, read_purified, read_summary
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS, review_file, stage_dir
from orchestration.registry.comparison_files import read_alarms

NEWLY_LEARNT = "newly learnt, a defect to the champion"  # reason why an image is on the page


def write_page(scenario: str, out: Path, limit: int, known: Path | None) -> str:
    """Write the page of a scenario and return what to do next.

    Args:
        scenario: name in params.yaml.
        out: HTML file.
        limit: number of suspects beside the images judged before; and as many at most that the latest challenger newly
            learnt as normal though the champion calls them defects.
        known: review file to start from; default: the scenario's own file.

    Raises:
        ConfigError: there is no such scenario.
        DataError: the scenario has not been run, or the review file is wrong.
    """
    params = load_params(PARAMS)
    config = params.scenario(scenario)
    refuse_special(out, "an HTML file that may be written")
    verdicts = read_verdicts(known or Path(config.review))
    folder = stage_dir("purified", scenario)
    if not (folder / "summary.json").exists():
        raise DataError(f"no outputs of scenario {scenario} ({folder}/summary.json is missing): run `dvc repro` first")
    kept, rejected = (read_purified(scenario, name)["image_id"] for name in ("kept", "rejected"))
    summary = read_summary(scenario)
    by_evidence = config.selection.by_evidence
    purified = Purified(tuple(kept), tuple(rejected), summary["cut"], by_evidence=by_evidence)
    scores = pd.read_parquet(folder / "scores.parquet").set_index("image_id")
    train = read_noisy(scenario).query("split == 'train'")

    still_kept = {*kept}
    doubted = [image_id for image_id in read_alarms(scenario) if image_id in still_kept]
    reasons = choose_suspects(scores, purified, verdicts, limit, dict.fromkeys(doubted[:limit], NEWLY_LEARNT))
    ids = sorted(reasons.index)
    store = feature_store(params, scenario)
    stored = StoredHeat(folder / "maps.safetensors")
    heat = off_canvas({image_id: stored[image_id] for image_id in ids}, store.frames)
    groups = near_duplicates(ids, image_vectors(store, ids, GRID, "near-duplicates"))
    decision = decided(scores["score"], purified, config.aggregation)
    names = camera_names(Path(), config.dataset, train)
    suspects = build_suspects(train, scores, reasons, decision, groups, heat, IMAGE_ROOT, names)
    notes = [*summary["notes"], *([_newly_learnt(len(doubted), limit)] if doubted else [])]
    page = review_page(scenario, suspects, verdicts, decision, decision.scale(heat), notes)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")

    target = review_file(scenario)
    steps = (
        f"{out}: {len(suspects)} of {len(train)} training images. Open it in a browser, judge, export, then put the "
    )
    steps += f"CSV at {target}"
    if Path(config.review) != target:
        steps += f" and set `review: {target.as_posix()}` for {scenario} in params.yaml (it is {config.review} now)"
    return steps + "; the next run applies it."


def _newly_learnt(count: int, limit: int) -> str:
    which = "them" if count <= limit else f"the {limit} with the highest scores"
    return f"{count} kept images are newly learnt, and defects to the champion: “Show” has {which} under “why here”."


def review(
    line: Annotated[str, typer.Argument(help="Line, or any scenario of params.yaml.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    suspects: Annotated[int, typer.Option(min=1, help="Images to show, beside those judged before.")] = 120,
    verdicts: Annotated[Path | None, typer.Option(help="Review CSV to start from (default: the scenario's).")] = None,
) -> None:
    """Write one self-contained HTML page of LINE's suspect images."""
    typer.echo(write_page(line, out, suspects, verdicts))
