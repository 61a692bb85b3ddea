"""The served model as code (MLflow's models-from-code: nothing is pickled). MLflow copies this file into the model.

Input: one row per image, with exactly one of these columns filled:

* `path`: an image file that the server can read;
* `bytes`: an encoded image (PNG, JPEG …); in JSON its base64 text;
* `array`: pixels (H, W, 3), RGB, 0 … 255; in JSON nested lists.

Output: one row per image, in the same order:

* `score`;
* `label`: "normal", "unsure" (within the interval of the threshold) or "defect"; null if the model has no threshold;
* `heat_map`: the patch map as nested lists (h, w) in the unit of the score; a client resizes it to the image;
* `error`: why the image could not be scored, or null. Such an image does not stop the others.

The parameter `target_fpr` sets another false-positive rate for the threshold; 0 keeps the model's own rate.

A path is read with the rights of the server. The server decides who may send requests.

A detector or an encoder that is not built in needs its package. MLmodel's metadata name the package under `plugins`,
and requirements.txt installs it. Without the package, the model does not load, and the error names the module.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from llbnad.errors import DataError

COLUMNS = ("path", "bytes", "array")
SHOWN = 200  # characters of a wrong path in its error


class LlbnadModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """A trained model behind MLflow's interface: encoder, detector, score and threshold."""

    def load_context(self, context: Any) -> None:
        """Load the model file that is logged beside this code."""
        from llbnad.config import Runtime
        from llbnad.inference.predict import Predictor
        from llbnad.model.model import Model
        from llbnad.utils.runtime import prepare

        device = str(prepare(Runtime()))
        # whoever serves an MLflow model runs its code anyway, so the classes that it names are no further risk
        model = Model.load(Path(context.artifacts["model"]), device, plugins=True)
        self.predictor = Predictor(model, device)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score the rows of `model_input`. The text above describes the columns."""
        from llbnad.inference.predict import threshold_of

        sources: list[Path | bytes | np.ndarray] = []
        errors: dict[int, str] = {}
        for number, row in enumerate(model_input.to_dict("records")):
            try:
                sources.append(source_of(row))
            except DataError as error:
                errors[number] = str(error)
        threshold = threshold_of(self.predictor.model, (params or {}).get("target_fpr") or None)
        found = self.predictor.predict(sources, threshold)
        rows: list[dict[str, Any]] = []
        for number in range(len(model_input)):
            if number in errors:
                rows.append({"score": None, "label": None, "heat_map": None, "error": errors[number]})
                continue
            one = next(found)
            heat_map = None if one.patch_map is None else one.patch_map.tolist()
            rows.append(
                {"score": one.score, "label": one.label or None, "heat_map": heat_map, "error": one.error or None}
            )
        # objects: a missing number is null in JSON, where NaN would not be JSON
        return pd.DataFrame(rows, columns=["score", "label", "heat_map", "error"], dtype=object)


def source_of(row: dict[Any, Any]) -> "Path | bytes | np.ndarray":
    """Return the image of one input row.

    Raises:
        DataError: not exactly one column is filled, or its value is no image.
    """
    given = {name: row[name] for name in COLUMNS if not _missing(row.get(name))}
    if len(given) != 1:
        raise DataError(f"{len(given)} of the columns {list(COLUMNS)} are filled; expected exactly one")
    ((name, value),) = given.items()
    if name == "path":
        if not isinstance(value, str):
            raise DataError(f"path is a {type(value).__name__}; expected a string")
        try:
            there = Path(value).is_file()
        except OSError:  # a name too long to be one, a folder the server may not enter
            there = False
        if not there:
            raise DataError(f"{value[:SHOWN]} is not a file that the server can read")
        return Path(value)
    if name == "bytes":
        return value if isinstance(value, bytes) else _decoded(value)
    return _pixels(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"bytes is not base64 ({error})") from None


def _pixels(value: Any) -> np.ndarray:
    try:
        pixels = np.asarray(value.tolist() if isinstance(value, np.ndarray) else value)
    except ValueError:
        raise DataError("array has rows of unequal length; expected (H, W, 3)") from None
    if pixels.dtype.kind not in "iu" or (pixels.size and (pixels.min() < 0 or pixels.max() > 255)):
        raise DataError(f"array holds values of type {pixels.dtype} outside 0 … 255; expected whole numbers 0 … 255")
    return pixels.astype(np.uint8)


mlflow.models.set_model(LlbnadModel())
