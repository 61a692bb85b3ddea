"""The demo's scenario after both stages, of which every picture is drawn."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llbnad.config import METHOD, ElpvDataset, Noise, Runtime
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import is_anomalous
from llbnad.data.sources import read_source
from llbnad.features.store import FeatureStore
from llbnad.model.model import Model
from llbnad.model.threshold import Threshold
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import TwoStageRun, run_two_stage
from llbnad.utils.runtime import prepare

SCENARIO = "elpv_mono_a20"  # of params.yaml


class LeftOutError(Exception):
    """A picture cannot be made here."""


@dataclass(frozen=True)
class Demo:
    """The demo's scenario after both stages."""

    noisy: pd.DataFrame
    store: FeatureStore
    root: Path
    settings: ScenarioSettings
    run: TwoStageRun
    work: Path  # an empty folder
    cache: Path  # of features

    @property
    def model(self) -> Model:
        """The final detector."""
        return self.run.models[METHOD]

    @property
    def threshold(self) -> Threshold:
        """The final detector's threshold."""
        assert self.model.threshold is not None  # the settings calibrate one
        return self.model.threshold

    def tested(self, anomalous: bool) -> pd.DataFrame:
        """Return the manifest rows of the normal or anomalous test images, the highest score first."""
        rows = self.noisy[(self.noisy["split"] == "test") & (is_anomalous(self.noisy) == anomalous)]
        scores = self.run.evaluation.scores[METHOD].of(rows["image_id"].tolist())
        return rows.assign(score=scores).sort_values(["score", "image_id"], ascending=[False, True])

    def paths(self, rows: pd.DataFrame) -> list[Path]:
        """Return the files of manifest rows."""
        return [self.root / path for path in rows["path"]]


def demo_of(settings: ScenarioSettings, noise: Noise, work: Path, cache: Path) -> Demo:
    """Send the solar cells of the scenario through both stages."""
    scan, root = read_source(ElpvDataset(), None)
    noisy = contaminate(scan.manifest, noise, settings.seed)
    store = FeatureStore(cache, settings.encoder, noisy, root, str(prepare(Runtime(device="cpu"))))
    run = run_two_stage(noisy, store, root, settings)
    return Demo(noisy, store, root, settings, run, work, cache)
