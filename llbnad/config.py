"""Typed, frozen mirror of params.yaml.

An unknown key, a missing key or an impossible value is an error before anything runs. Defaults are for Python and the
`llbnad` command; params.yaml has to spell out every knob, so that DVC sees each one (`load_params` insists).
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from llbnad.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from llbnad.registry import Registry

SCENARIO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
NAME_REASON = "DVC joins names with '-' and splits them at '.'"


class Config(BaseModel):
    """Base: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# Datasets: what the `raw` stage reads.


class ElpvDataset(Config):
    """Solar cells of the installed package `elpv-dataset`."""

    source: Literal["elpv"] = "elpv"
    root: str = "constraints.txt"  # the images come with a package; DVC follows the file that pins its version
    category: Literal["mono", "poly"] = "mono"


class RealIadDataset(Config):
    """One category of a folder in Real-IAD's layout."""

    source: Literal["real_iad"] = "real_iad"
    root: str
    category: str
    variant: str = "realiad_jsons"  # the JSON set, e.g. realiad_jsons_sv or realiad_jsons_fuiad_0.1
    image_dir: str = "realiad_1024"  # other sizes of the official download: realiad_512, realiad_256, realiad_raw


class ImageFolderDataset(Config):
    """A folder of images, sorted into good/ and bad/ as far as anybody knows; everything else is unlabelled."""

    source: Literal["image_folder"] = "image_folder"
    root: str
    category: str


Dataset = Annotated[ElpvDataset | RealIadDataset | ImageFolderDataset, Field(discriminator="source")]


# Noise: how the training set is contaminated.


class InjectedNoise(Config):
    """Anomalous samples put into the training set by protocol (`llbnad.contaminate`)."""

    protocol: Literal["replace", "add"] = "replace"
    ratio: float = Field(0.1, ge=0, lt=1)  # α, share of the training samples
    max_ratio: float = Field(0.4, ge=0, lt=1)  # largest α of the comparison: its pool never enters any test set
    test_share: float = Field(0.3, gt=0, lt=1)  # share of normal samples held out, if the source has no split

    @model_validator(mode="after")
    def _ratio_within_reserve(self) -> "InjectedNoise":
        if self.ratio > self.max_ratio:
            raise ValueError(f"ratio {self.ratio} is above max_ratio {self.max_ratio}: raise max_ratio")
        return self


class NoNoise(Config):
    """The data as it is: a production line, or an official fuiad JSON that is contaminated already."""

    protocol: Literal["as_is"] = "as_is"


Noise = Annotated[InjectedNoise | NoNoise, Field(discriminator="protocol")]


class EncoderConfig(Config):
    """The frozen network that turns an image into feature maps."""

    name: str = "efficientnet_lite2"
    input_size: int = Field(224, ge=32, le=2048)  # pixels; the image is resized to a square of this side
    layers: tuple[int, ...] = (2, 3)  # feature stages; 2 and 3 are strides 8 and 16

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        from llbnad.encoders import ENCODERS

        if not name.startswith("vit_"):  # those are timm's, and its list takes seconds to load
            ENCODERS.get(name)
        return name

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0:
            raise ValueError(f"layers must be ascending, distinct and not negative, got {list(layers)}")
        return layers


class DetectorConfig(Config):
    """Settings of a detector; each lives beside its detector in `llbnad/detectors/`."""

    uses_features: ClassVar[bool] = True  # False: it has a network of its own and reads `Batch.images`

    name: str


class SelectionPolicy(Config):
    """A policy with its settings, in `llbnad/policies/`: how many of the training images the consensus calls normal."""

    policy: str

    def count(self, ordered: "np.ndarray") -> int:
        """How many of the ascending scores (N,) are kept, 1 … N."""
        raise NotImplementedError


def _detector(content: Any) -> Any:
    from llbnad.detectors import DETECTORS

    return _of_registry(content, DETECTORS, "name", DetectorConfig, lambda found: found.config_class)


def _policy(content: Any) -> Any:
    from llbnad.policies import POLICIES

    return _of_registry(content, POLICIES, "policy", SelectionPolicy, lambda found: found)


def _of_registry(content: Any, registry: "Registry", key: str, kind: type[Config], config_class: Any) -> Any:
    """`content` validated as the class its `key` names; a bare string is that name with default settings."""
    if isinstance(content, kind):
        return content
    if isinstance(content, str):
        content = {key: content}
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"expected a mapping with the key {key!r}, one of {registry.names}")
    return config_class(registry.get(content[key])).model_validate(content)


AnyDetector = Annotated[SerializeAsAny[DetectorConfig], BeforeValidator(_detector)]
AnyPolicy = Annotated[SerializeAsAny[SelectionPolicy], BeforeValidator(_policy)]


# Stage 2.


class CalibrationConfig(Config):
    """The decision threshold of the final detector (`llbnad.calibrate`)."""

    target_fpr: float = 0.01  # share of normal images that may be called defects
    folds: int = Field(3, ge=0)  # K; each fold costs a training on (K-1)/K of the kept images; 0 = no threshold

    @field_validator("target_fpr")
    @classmethod
    def _rate(cls, target_fpr: float) -> float:
        if not 0 < target_fpr < 1:
            hint = f": did you mean {target_fpr / 100:g}?" if 1 <= target_fpr < 100 else ""
            raise ValueError(f"target_fpr must be in (0, 1), got {target_fpr:g}{hint}")
        return target_fpr

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("folds must be 0 (no threshold) or at least 2, got 1")
        return folds


Aggregation = Literal["mean", "oof_mean", "robust_mean", "max", "rank_mean", "max_var"]
Comparator = Literal["none", "oracle", "random"]
Partition = Literal["disjoint", "leave_out"]


class ScenarioSettings(Config):
    """Everything a scenario can set beside its data; params.yaml's `defaults` hold one of these."""

    seed: int = Field(0, ge=0)  # of noise, partition and detectors; sub-models derive their own from it
    encoder: EncoderConfig = EncoderConfig()
    detector: AnyDetector = Field(default_factory=lambda: _detector("patchcore"))
    sub_model_detector: AnyDetector | None = None  # of stage 1, e.g. without hard mining; null: as the final one
    partition: Partition = "disjoint"  # what a sub-model learns from (`llbnad.partition.training_masks`)
    aggregation: Aggregation = "oof_mean"
    selection: AnyPolicy = Field(default_factory=lambda: _policy("mixture"))
    rounds: int = Field(1, ge=1, le=20)  # > 1: what was kept trains the sub-models again (`llbnad.rounds`)
    # patches of kept images not learnt from, as a share per share of images rejected (`llbnad.patches`); 0 = none
    patch_rejection: float = Field(0.7, ge=0, le=2)
    review: str = "data/review/none.csv"  # people's verdicts, which override the policy (`llbnad.verdicts`)
    calibration: CalibrationConfig = CalibrationConfig()
    comparators: tuple[Comparator, ...] = ("none", "oracle", "random")
    suspects: int = Field(24, ge=0, le=500)  # images on the contact sheet

    @model_validator(mode="after")
    def _scores_have_a_logarithm(self) -> "ScenarioSettings":
        if self.selection.policy in ("mixture", "otsu") and self.aggregation in ("robust_mean", "rank_mean"):
            raise ValueError(
                f"policy {self.selection.policy} looks for two groups in the logarithm of scores, which means nothing "
                f"for aggregation {self.aggregation}: use policy mad or fraction, or aggregation oof_mean"
            )
        return self

    @property
    def stage_1_detector(self) -> DetectorConfig:
        """The sub-models' detector."""
        return self.sub_model_detector or self.detector


class Scenario(ScenarioSettings):
    """One thing to train for: a benchmark cell or a production line."""

    dataset: str
    noise: Noise = InjectedNoise()


class Runtime(Config):
    """How to compute, not what: DVC does not follow these.

    Of one machine, none changes a byte of a result, but that padim's last digits follow the batch size.
    """

    device: str = "auto"  # auto, cpu, cuda, cuda:1 …
    processes: int = Field(1, ge=1)  # that compute at once: assets of a Dagster run side by side
    threads: int = Field(0, ge=0)  # CPU threads of one process; 0 = the cores, shared out among `processes`
    batch_size: int = Field(16, ge=1)  # images
    memory_limit: int = Field(0, ge=0)  # MiB of distances at once, 0 = 16; softpatch gathers 32 times that


class Promotion(Config):
    """When a new detector may take the place of the one in use (`llbnad.acceptance`). Changes no output of DVC's."""

    probe_size: int = Field(200, ge=8)  # images of each kind that detectors are compared on; seconds to score
    # Rank correlation with the champion on normal images. Solar cells: 0.84 to 0.95 after half as many images more,
    # 0.50 to 0.88 after half of the images were others. Normal images differ by little: 0.9 would refuse chance.
    min_agreement: float = Field(0.4, ge=-1, le=1)
    min_spread: float = Field(0.01, ge=0)  # of normal scores, relative; a collapsed detector gives every image the same
    min_separation: float = Field(0.6, ge=0, le=1)  # AUROC of rejected against kept images; 0.5 is blind
    # Against the champion. Solar cells: 0.01 at most after retraining on good images, 0.02 to 0.08 with a third of the
    # images defects.
    max_separation_loss: float = Field(0.05, ge=0, le=1)
    # Reach of the threshold above the highest score of an unseen image, in distances from there to the normal median.
    threshold_slack: float = Field(1.0, ge=0)
    min_auroc: float = Field(0.5, ge=0, le=1)  # on labelled test images, where there are some; 0.5 is chance
    max_auroc_loss: float = Field(0.02, ge=0, le=1)  # against the champion; about what another seed changes
    min_kept_share: float = Field(0.15, ge=0, le=1)  # below the paper's fixed 0.2: less is no training set
    max_kept_change: float = Field(0.2, ge=0, le=1)  # against the champion's; more means that the data changed
    # Share of the newly learnt images that the champion calls defects. Solar cells, 100 images and 40 more, patchcore
    # and padim: 0 to 0.09 on more cells, also of another module; 0.9 to 1 on turned cells (once 0: defects had been
    # kept) and 0.5 to 1 on another kind; 0 to 0.85 on brighter ones. Darker or blurred ones it mostly does not notice.
    max_alarms: float = Field(0.2, ge=0, le=1)
    # Brightness, sharpness and size of the newly learnt images against the champion's, in its standard deviations. As
    # above: up to 0.5 on more cells, 1.7 on another module's; 3.3 to 4.5 with half the light, 2.6 to 4.0 blurred.
    max_image_shift: float = Field(2.0, ge=0)
    # Energy coefficient of their features. As above: up to 0.02 on more cells, 0.26 on another module's; 0.5 to 0.7 on
    # turned cells and on another kind.
    max_feature_shift: float = Field(0.4, ge=0, le=1)


class Arrival(Config):
    """When new production images are taken in and trained on; they change no bytes, so DVC does not follow them."""

    stable_seconds: float = Field(10.0, ge=0)  # a file nobody touched for so long is taken to be complete
    min_new_images: int = Field(20, ge=1)  # new images that are worth a training
    cron: str = "0 2 * * *"  # when lines with enough new images are retrained whatever the sensor did; UTC

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError("expected minute hour day month weekday, such as '0 2 * * *'")
        return cron


class Params(Config):
    """The whole of params.yaml."""

    datasets: dict[str, Dataset]
    subsets: tuple[int, ...]  # 0 … T-1; T is the number of sub-models
    defaults: ScenarioSettings
    scenarios: dict[str, Scenario]
    arrival: Arrival
    runtime: Runtime
    promotion: Promotion

    @field_validator("subsets")
    @classmethod
    def _numbered(cls, subsets: tuple[int, ...]) -> tuple[int, ...]:
        if not subsets or list(subsets) != list(range(len(subsets))):
            raise ValueError(f"subsets must count 0, 1, … T-1, got {list(subsets)}")
        return subsets

    @model_validator(mode="after")
    def _names(self) -> "Params":
        for name in [*self.scenarios, *self.datasets]:
            if not SCENARIO_NAME.fullmatch(name):
                raise ValueError(f"the name {name!r} must be letters, digits and '_' ({NAME_REASON})")
        for name, scenario in self.scenarios.items():
            if scenario.dataset not in self.datasets:
                raise ValueError(f"scenarios.{name}.dataset is {scenario.dataset!r}; known: {sorted(self.datasets)}")
            check_subsets(len(self.subsets), scenario, f"scenarios.{name}.")
        return self

    def scenario(self, name: str) -> Scenario:
        """The scenario called `name`, or a `ConfigError` that lists those there are."""
        if name not in self.scenarios:
            raise ConfigError(f"unknown scenario {name!r}; params.yaml has {sorted(self.scenarios)}")
        return self.scenarios[name]

    def dataset(self, name: str) -> Dataset:
        """The dataset called `name`, or a `ConfigError` that lists those there are."""
        if name not in self.datasets:
            raise ConfigError(f"unknown dataset {name!r}; params.yaml has {sorted(self.datasets)}")
        return self.datasets[name]


def check_subsets(num_subsets: int, settings: ScenarioSettings, where: str = "") -> None:
    """Raise ValueError if `settings` ask of a single sub-model what takes several."""
    if num_subsets > 1:
        return
    if settings.aggregation == "oof_mean":
        raise ValueError(
            f"{where}aggregation oof_mean needs at least 2 subsets, got {num_subsets}: "
            "with one, every image was trained on; use mean"
        )
    if settings.partition == "leave_out":
        raise ValueError(
            f"{where}partition leave_out needs at least 2 subsets, got {num_subsets}: "
            "with one, nothing is left to learn from; use disjoint"
        )


def parse(kind: Any, content: Any, where: str) -> Any:
    """Validate `content` as the type `kind`; pydantic's findings become one `ConfigError` that names each key."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_finding(item)}" for item in error.errors())) from None


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is impossible.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} not found: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    params: Params = parse(Params, content, path.name)
    unset = list(_unset_fields(params, ""))
    if unset:
        raise ConfigError("\n".join(f"{path.name}: {key} is missing (usual value: {value!r})" for key, value in unset))
    return params


def _finding(item: Any) -> str:
    # The tags of discriminated unions stand in pydantic's location but not in the file.
    tags = {"elpv", "real_iad", "image_folder", "replace", "add", "as_is"}
    key = ".".join(str(part) for part in item["loc"] if part not in tags)
    if item["type"] == "extra_forbidden":
        return f"{key} is an unknown key"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict | Config) else f" (got {item['input']!r})"
    return f"{key}: {message}{given}" if key else message


def _unset_fields(config: Config, prefix: str) -> Any:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name not in config.model_fields_set:
            yield prefix + name, value
        elif isinstance(value, Config):
            yield from _unset_fields(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, Config):
                    yield from _unset_fields(item, f"{prefix}{name}.{key}.")
