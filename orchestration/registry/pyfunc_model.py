"""The served model as code (MLflow's models-from-code: nothing is pickled). MLflow copies this file into the model.

Input: one row per image, with exactly one of these columns filled (`llbnad.inference.request_row` describes them):

* `path`: an image file below the folder of the environment variable LLBNAD_SERVE_FOLDER; off without it;
* `bytes`: an encoded image (PNG, JPEG …); in JSON its base64 text or a data URL;
* `array`: pixels, grey, RGB or RGBA, 0 … 255; in JSON nested lists.

Output: one row per image, in the same order:

* `score`;
* `label`: "normal", "unsure" (within the interval of the threshold) or "defect"; null if the model has no threshold;
* `heat_map`: the patch map as nested lists (h, w) in the unit of the score; a client resizes it to the image;
* `regions`: a list of regions, highest peak first, in pixels of the image as it is seen: `area`, `box` (x, y, width,
  height), `centre` (x, y) and `peak`; null if the model has no pixel threshold. Label and regions may disagree;
* `error`: why the image could not be scored, or null. Such an image does not stop the others.

A request in which no row has one of the columns is an error as a whole (HTTP 400), as is one of too many rows.

The parameter `target_fpr` sets another false-positive rate for the thresholds of images and of regions; 0 keeps the
model's own rate. The parameter `min_area` drops regions of fewer pixels of the original image; 0 keeps the area that
the model was calibrated for.

A detector or an encoder that is not built in needs its package. MLmodel's metadata name the package under `plugins`,
and requirements.txt installs it. Without the package, the model does not load, and the error names the module.
"""

import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import scoring_server

from llbnad.errors import DataError, LlbnadError


class RefusedError(MlflowException):
    """A request that is refused as a whole. MLflow's server answers with HTTP 400 and one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, error_code=BAD_REQUEST)

    def serialize_as_json(self) -> str:
        """Return the answer's body, without the request's content that the server puts before the message."""
        return json.dumps({"error_code": self.error_code, "message": str(self.args[0])})


class LlbnadModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """A trained model behind MLflow's interface: encoder, detector, score and threshold."""

    def load_context(self, context: Any) -> None:
        """Load the model file that is logged beside this code, and read the limits from the environment."""
        from llbnad.config import Runtime
        from llbnad.inference.predict import Predictor
        from llbnad.inference.request import Limits
        from llbnad.model.model import Model
        from llbnad.utils.pixel_limit import limit_pixels
        from llbnad.utils.runtime import prepare

        self.limits = Limits.read(os.environ)
        if self.limits.pixels != Limits.pixels:  # else the process keeps its own limit
            limit_pixels(self.limits.pixels)
        device = str(prepare(Runtime()))
        # whoever serves an MLflow model runs its code anyway, so the classes that it names are no further risk
        model = Model.load(Path(context.artifacts["model"]), device, plugins=True)
        self.predictor = Predictor(model, device)
        scoring_server.parse_tf_serving_input = rows_as_sent

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score the rows of `model_input`: a table, a list of rows, or columns by name.

        MLflow warns of every hint but a table's.

        Raises:
            RefusedError: no row can be answered. The text above says when.
        """
        from llbnad.inference.predict import threshold_of
        from llbnad.inference.region_files import pixel_threshold_of
        from llbnad.inference.request import rows_of
        from llbnad.inference.request_row import source_of

        try:
            rows = rows_of(model_input, self.limits)
            target, min_area = (params or {}).get("target_fpr") or None, area_of(params)
            threshold = threshold_of(self.predictor.model, target)
            pixels = pixel_threshold_of(self.predictor.model, target, wanted=min_area is not None)
        except LlbnadError as error:
            raise RefusedError(str(error)) from None
        sources: list[Path | bytes | np.ndarray] = []
        errors: dict[int, str] = {}
        for number, row in enumerate(rows):
            try:
                sources.append(source_of(row, self.limits))
            except DataError as error:
                errors[number] = str(error)
        found = self.predictor.predict(sources, threshold, pixels, min_area)
        answers: list[dict[str, Any]] = []
        for number in range(len(rows)):
            if number in errors:
                answers.append({"error": errors[number]})
                continue
            one = next(found)
            heat_map = None if one.patch_map is None else one.patch_map.tolist()
            failure = one.error.replace(f"{self.limits.folder}{os.sep}", "") or None  # the client need not know where
            regions = None if one.regions is None else [region.numbers() for region in one.regions]
            answers.append(
                {
                    "score": one.score,
                    "label": one.label or None,
                    "heat_map": heat_map,
                    "regions": regions,
                    "error": failure,
                }
            )
        # objects: a missing number is null in JSON, where NaN would not be JSON
        columns = ("score", "label", "heat_map", "regions", "error")
        return pd.DataFrame(
            [{name: answer.get(name) for name in columns} for answer in answers], columns=columns, dtype=object
        )


def area_of(params: dict[str, Any] | None) -> int | None:
    """Return the fewest pixels of a region that a request asks for; None for the model's own.

    Raises:
        DataError: the number is negative.
    """
    given = int((params or {}).get("min_area") or 0)
    if given < 0:
        raise DataError(f"min_area is {given}; expected pixels from 1 on, or 0 for what the model was calibrated for")
    return given or None


def rows_as_sent(request: dict[str, Any], schema: Any = None) -> Any:
    """Return the content of `instances` or `inputs`: rows as they were sent, as a table if all of them have columns.

    The function of MLflow's server that this replaces turns rows into columns: a row without a column of the others
    vanishes, and images of different sizes are an error.
    """
    (content,) = request.values()
    named = isinstance(content, list) and all(isinstance(row, dict) for row in content)
    return pd.DataFrame(content) if named else content


mlflow.models.set_model(LlbnadModel())
