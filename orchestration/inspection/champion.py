"""The model that scores: a line's champion or a model file, followed while it changes, without a restart."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llbnad.errors import printable
from llbnad.inference.predict import Predictor, threshold_of
from llbnad.inference.region_files import pixel_threshold_of
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import Threshold
from llbnad.utils.files import file_digest
from orchestration.registry.store import RegistryError, champion_of, is_address, model_file, model_name, registry_client

FOLLOW_SECONDS = 5.0  # time between two looks for another champion


@dataclass(frozen=True)
class Found:
    """A model that can be loaded."""

    name: str  # with its version; another model has another name
    file: Callable[[], Path]  # returns the model file, downloaded if it is elsewhere
    plugins: bool = False  # whether it may import the modules that it names


@dataclass(frozen=True)
class ChampionScorer:
    """A loaded model, ready to score."""

    name: str
    file: Path
    predictor: Predictor
    threshold: Threshold | None
    pixels: PixelThreshold | None = None  # where regions begin; None: the model finds none
    min_area: int | None = None  # fewest pixels of a region; None: what the model was calibrated for


def champion_finder(line: str) -> Callable[[], Found]:
    """Return a function that looks for the champion of a line in the registry.

    The function raises RegistryError if there is none, or the registry does not answer.
    """

    def find() -> Found:
        with registry_client(line) as client:
            version = champion_of(client, line)
        if version is None:
            raise RegistryError(
                f"line {line} has no champion yet: put images into data/incoming/{line}/, or see "
                f"`python -m orchestration registry list {line}`"
            )
        address = f"models:/{model_name(line)}/{version.version}"
        # whoever may change the registry runs the code of its models anyway
        return Found(f"{model_name(line)} version {version.version}", lambda: model_file(address), plugins=True)

    return find


def model_finder(model: str) -> Callable[[], Found]:
    """Return a function that looks at a model file, whose bytes may be replaced, or at an address of MLflow."""

    def find() -> Found:
        if is_address(model):
            return Found(model, lambda: model_file(model), plugins=True)
        path = Path(model)
        if not path.is_file():
            return Found(path.name, lambda: path)  # loading it says what is wrong
        return Found(f"{path.name} {file_digest(path)[:12]}", lambda: path)

    return find


class Champion:
    """The newest model that could be loaded.

    Args:
        find: looks for the model.
        device: torch's name of the device.
        target_fpr: false-positive rate of both thresholds; None: the model's own.
        min_area: fewest pixels of a region; None: what the model was calibrated for.

    Raises:
        LlbnadError: there is no model to begin with, it cannot be loaded, or it finds no regions for `min_area`.
    """

    def __init__(
        self,
        find: Callable[[], Found],
        device: str = "cpu",
        target_fpr: float | None = None,
        min_area: int | None = None,
    ) -> None:
        self.find, self.device, self.target_fpr, self.min_area = find, device, target_fpr, min_area
        self.current = self._load(find())
        self._said = ""

    def refresh(self) -> bool:
        """Load the model if it is another one, and return whether it is. The old one stays if that fails."""
        try:
            found = self.find()
            if found.name == self.current.name:
                return False
            self.current = self._load(found)
        except Exception as error:  # whatever a registry answers, scoring goes on
            if str(error) != self._said:  # once, not every few seconds
                print(f"{self.current.name} goes on scoring: {printable(str(error))}", file=sys.stderr, flush=True)
            self._said = str(error)
            return False
        self._said = ""
        return True

    def follow(self, stop: threading.Event) -> threading.Thread:
        """Look for another model every few seconds, in a thread that is returned, until `stop` is set."""

        def look() -> None:
            while not stop.wait(FOLLOW_SECONDS):
                if self.refresh():
                    print(f"{self.current.name} scores from now on", flush=True)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        return thread

    def _load(self, found: Found) -> ChampionScorer:
        file = found.file()
        model = Model.load(file, self.device, found.plugins)
        pixels = pixel_threshold_of(model, self.target_fpr, wanted=self.min_area is not None)
        return ChampionScorer(
            found.name, file, Predictor(model, self.device, batch_size=8), threshold_of(model, self.target_fpr),
            pixels, self.min_area,
        )  # fmt: skip
