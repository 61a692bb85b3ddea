"""Make the pictures of the README and of docs/, from the solar cells that every installation brings.

    python -m benchmarks.pictures              # minutes on two cores; --only NAME for one picture, --out FOLDER

Features that the pipeline has encoded (data/cache/features) are not encoded again.

The demo's scenario with a fifth of the training images defective goes through both stages; every picture is drawn by
the code that draws it for a user. Screenshots of pages need Chromium and are left out, with a line, where it is not.
The cells are those of the ELPV data set (CC BY-NC-SA 4.0), and so are the pictures that show some.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pictures import chart, exported, inspection, regions, review, sensitivity, suspects, views
from benchmarks.pictures.demo import SCENARIO, Demo, LeftOutError, demo_of
from llbnad.config import Noise
from llbnad.scenario import ScenarioSettings
from orchestration.pipeline.params import load_params

ROOT = Path(__file__).resolve().parents[2]
OUT, CACHE = ROOT / "docs" / "pictures", ROOT / "data" / "cache" / "features"
PICTURES: dict[str, Callable[[Demo, Path], None]] = {
    "suspects": suspects.draw,
    "regions": regions.draw,
    "views": views.draw,
    "export": exported.draw,
    "sensitivity": sensitivity.draw,
    "control_chart": chart.draw,
    "review": review.draw,
    "inspection": inspection.draw,
}

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(PICTURES)}; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = OUT,
    cache: Annotated[Path, typer.Option(help="Feature cache (default: the pipeline's).", show_default=False)] = CACHE,
) -> None:
    """Make the pictures, and say which were left out and why."""
    scenario = load_params(ROOT / "params.yaml").scenario(SCENARIO)
    make(only or list(PICTURES), out, scenario.model_copy(update={"comparators": ()}), scenario.noise, cache)


def make(wanted: Sequence[str], out: Path, settings: ScenarioSettings, noise: Noise, cache: Path) -> None:
    """Make the pictures that are wanted, by name, into a folder."""
    if unknown := set(wanted) - set(PICTURES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: expected some of {', '.join(PICTURES)}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo = demo_of(settings, noise, Path(folder), cache)
        for name in wanted:
            try:
                PICTURES[name](demo, out)
            except LeftOutError as error:
                print(f"{name} left out: {error}")
            else:
                print(f"{name}: done")


if __name__ == "__main__":
    app()
