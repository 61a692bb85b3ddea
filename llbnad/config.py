"""The settings classes that all other modules import: frozen, typed, without unknown keys.

This module imports only the errors of the package. Settings that need the registries of detectors, encoders and
policies are in `llbnad.scenario`.
"""

from collections.abc import Iterator
from datetime import date
from math import isfinite
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from llbnad.errors import ConfigError, percent_hint

if TYPE_CHECKING:
    import numpy as np

LARGEST = 2**53  # of whole numbers: what a float, and so JSON of other programs, holds exactly
USUAL_PIXELS = 89_478_485  # 256 MiB of RGB: above this, Pillow warns of a decompression bomb
MOST_PIXELS = 2**31 - 1
METHOD = "llbnad"  # name of this package's method beside the comparators none, oracle and random


class Config(BaseModel):
    """Base of all settings: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_other_type_for_a_number(cls, content: Any) -> Any:
        """Refuse a truth value or a text where a number is due. Python would take them for numbers in silence."""
        found = []
        for name, value in content.items() if isinstance(content, dict) else ():
            annotation = field.annotation if (field := cls.model_fields.get(name)) else None
            listed = value if annotation == tuple[int, ...] and isinstance(value, list | tuple) else [value]
            if annotation in (int, float, tuple[int, ...]) and any(isinstance(one, bool | str) for one in listed):
                reason = "expected a number, without quotes" if listed is not value else "expected whole numbers"
                found.append(InitErrorDetails(type=PydanticCustomError("number", reason), loc=(name,), input=value))
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return content


# Data sets: where images come from.


class ElpvDataset(Config):
    """Solar cells of the installed package `elpv-dataset`."""

    source: Literal["elpv"] = "elpv"
    root: str = Field(
        "constraints.txt", min_length=1
    )  # file that pins the version of the package with the images; DVC follows it
    category: Literal["mono", "poly"] = "mono"


Window = tuple[float, float]  # values shown as black and as white


def _window(intensity: Any) -> Any:
    if intensity in ("auto", "full"):
        return intensity
    edges = intensity if isinstance(intensity, list | tuple) else ()
    numbers = [edge for edge in edges if isinstance(edge, int | float) and not isinstance(edge, bool)]
    if len(edges) != 2 or len(numbers) != 2 or not all(abs(edge) <= 1e30 for edge in numbers) or edges[0] >= edges[1]:
        raise ValueError("expected auto, full, or a window [low, high] of two numbers, such as [0, 4095] for 12 bits")
    return intensity


Intensity = Annotated[Literal["auto", "full"] | Window, BeforeValidator(_window)]
Pages = Literal["error", "first", "each"]


class Files(Config):
    """How the files of a data set are read."""

    intensity: Intensity = "auto"  # values shown as black and white, above 8 bits: auto, full or [low, high]
    pages: Pages = "error"  # a file of several pages is an error, its first page, or one image per page
    # most pixels of an image or a mask, width times height; a larger one is left out before it is decoded
    max_pixels: int = Field(USUAL_PIXELS, ge=1, le=MOST_PIXELS)


class RealIadDataset(Files):
    """One category of a folder in Real-IAD's layout."""

    source: Literal["real_iad"] = "real_iad"
    root: str = Field(min_length=1)
    category: str = Field(min_length=1)
    variant: str = "realiad_jsons"  # folder of the JSON set, e.g. realiad_jsons_sv or realiad_jsons_fuiad_0.1
    image_dir: str = "realiad_1024"  # folder of the images; other sizes: realiad_512, realiad_256, realiad_raw


class ImageFolderDataset(Files):
    """A folder of images. Images in folders such as good/ and bad/ have labels; all other images are unlabelled."""

    source: Literal["image_folder"] = "image_folder"
    root: str = Field(min_length=1)
    category: str = Field(min_length=1)


class ManifestDataset(Files):
    """The images that a CSV or JSON-lines file names, with labels, splits, masks and groups."""

    source: Literal["manifest"] = "manifest"
    root: str
    file: str = "manifest.csv"  # CSV or JSON-lines file inside `root`; its paths are relative to `root`
    category: str


Dataset = Annotated[ElpvDataset | RealIadDataset | ImageFolderDataset | ManifestDataset, Field(discriminator="source")]


# Noise: how the training set is contaminated.


class InjectedNoise(Config):
    """Anomalous samples put into the training set by protocol (`llbnad.data.contaminate`)."""

    protocol: Literal["replace", "add"] = "replace"
    ratio: float = Field(0.1, ge=0, lt=1)  # α, share of the training samples that are anomalous
    max_ratio: float = Field(0.4, ge=0, lt=1)  # largest α of the comparison; samples reserved for it are never tested
    test_share: float = Field(
        0.3, gt=0, lt=1
    )  # share of normal samples held out for testing, if the source has no split

    @model_validator(mode="after")
    def _ratio_within_reserve(self) -> "InjectedNoise":
        if self.ratio > self.max_ratio:
            raise ValueError(f"ratio {self.ratio} is above max_ratio {self.max_ratio}: raise max_ratio")
        return self


class NoNoise(Config):
    """The data as it is: a production line, or one of Real-IAD's JSON sets that is contaminated already."""

    protocol: Literal["as_is"] = "as_is"


Noise = Annotated[InjectedNoise | NoNoise, Field(discriminator="protocol")]


View = Literal["squeeze", "letterbox", "tiles"]
MOST_TILES = 1024  # of one image
VIEW_KEYS = {"squeeze": (), "letterbox": ("view",), "tiles": ("view", "tiles", "overlap")}  # keys that decide a view


class EncoderConfig(Config):
    """The frozen network that turns an image into feature maps."""

    name: str = "efficientnet_lite2"
    input_size: int = Field(224, ge=32, le=2048)  # side in pixels of the square that images are resized to
    layers: tuple[int, ...] = (2, 3)  # feature stages; 2 and 3 have strides 8 and 16
    view: View = "squeeze"  # the image fills the square, keeps its aspect ratio in it, or is cut into such squares
    tiles: tuple[int, ...] = (2, 2)  # rows and columns of view tiles
    overlap: float = Field(0.125, ge=0, le=0.5)  # of neighbouring tiles, as a share of a tile's side

    @field_validator("tiles")
    @classmethod
    def _rows_and_columns(cls, tiles: tuple[int, ...]) -> tuple[int, ...]:
        if len(tiles) != 2 or min(tiles) < 1 or tiles[0] * tiles[1] > MOST_TILES:
            raise ValueError(f"expected rows and columns, such as [2, 3], of at most {MOST_TILES} tiles")
        return tiles

    @model_serializer(mode="wrap")
    def _without_unused_keys(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the keys that do not decide the view, so that cache and models of `squeeze` keep their bytes."""
        used, optional = VIEW_KEYS[self.view], VIEW_KEYS["tiles"]
        content: dict[str, Any] = serialise(self)
        return {key: value for key, value in content.items() if key in used or key not in optional}

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0:
            raise ValueError(f"layers must be ascending, distinct and not negative, got {list(layers)}")
        return layers


class RegionConfig(Config):
    """The part of every image that counts. The rest is neither learnt nor scored."""

    mask: str | None = Field(None, min_length=1)  # image file: its bright half is inside; it is laid over each image
    polygon: tuple[tuple[float, float], ...] = ()  # corners (x, y) of the part inside; none: the whole image
    border: float = Field(0, ge=0)  # width of an ignored border; with unit share, of the shorter side
    unit: Literal["share", "pixels"] = "share"  # polygon and border are shares of width and height, or pixels

    @model_validator(mode="after")
    def _possible(self) -> "RegionConfig":
        if self.mask is not None and self.polygon:
            raise ValueError("mask and polygon are both given: leave one out")
        if self.polygon and len(self.polygon) < 3:
            raise ValueError(f"polygon has {len(self.polygon)} corners; expected at least 3")
        numbers = [number for corner in self.polygon for number in corner]
        if self.unit == "share" and any(not 0 <= number <= 1 for number in numbers):
            raise ValueError("polygon holds numbers outside [0, 1]: write unit: pixels, or shares of width and height")
        if self.unit == "share" and self.border >= 0.5:
            raise ValueError(f"border {self.border:g} leaves nothing: write unit: pixels, or a share below 0.5")
        return self


class DetectorConfig(Config):
    """Settings of a detector. Each detector in `llbnad/detectors/` has its own subclass."""

    uses_features: ClassVar[bool] = True  # False: the detector has a network of its own and reads `Batch.images`

    name: str


class SelectionPolicy(Config):
    """A policy with its settings: it decides how many training images are kept (see `llbnad/policies/`)."""

    policy: str
    by_evidence: ClassVar[bool] = (
        True  # False: it keeps a share whatever the scores are, so what it leaves out is no suspect
    )

    def count(self, ordered: "np.ndarray") -> int:
        """Return how many of the ascending scores (N,) are kept, 1 … N."""
        raise NotImplementedError

    def apart(self, ordered: "np.ndarray") -> bool:
        """Return whether the rejected images form a group of their own, so that patches may be rejected as well."""
        return True

    @property
    def before_last(self) -> "SelectionPolicy":
        """The policy of all rounds of stage 1 but the last."""
        return self


# Stage 2.

Bound = Literal["robust", "none"]


def _count_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError("expected auto or a whole number from 1 on")
    return int(value)


CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]


class CalibrationConfig(Config):
    """The decision threshold of the final detector (`llbnad.model.calibrate`)."""

    target_fpr: float = 0.01  # share of normal images that may be called defects, in (0, 1)
    folds: int = Field(5, ge=0)  # K; each fold costs one training on (K-1)/K of the kept images; 0 = no threshold
    bound: Bound = "robust"  # robust: limited by the body of the scores, which kept defects cannot raise; or none
    unsure: bool = True  # call scores unsure that lie within the interval of the threshold
    min_area: float = Field(0.0, ge=0, lt=1)  # smallest region, as a share of the image; 0 = one patch of the map
    # samples that follow each other by path and are held out together, as a camera takes bursts of one part; auto: 10
    # where the scores say that neighbours are alike, else 1 (one training more asks them); 1: each alone, and asked too
    burst: CountOrAuto = "auto"

    @field_validator("target_fpr")
    @classmethod
    def _rate(cls, target_fpr: float) -> float:
        if not 0 < target_fpr < 1:
            raise ValueError(f"target_fpr must be in (0, 1), got {target_fpr:g}{percent_hint(target_fpr)}")
        return target_fpr

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("folds must be 0 (no threshold) or at least 2, got 1")
        return folds


class SensitivityConfig(Config):
    """Synthetic defects that evaluation draws on unseen images, to say what a detector finds (`llbnad.sensitivity`)."""

    images: int = Field(0, ge=0, le=1000)  # images to draw on; 0 = off
    # sizes in pixels of the image; auto: 1/64, 1/32, 1/16, 1/8 and 1/4 of its shorter side
    sizes: Literal["auto"] | tuple[int, ...] = "auto"
    contrasts: tuple[float, ...] = (0.2,)  # change of grey value as a share of 255, in (0, 1]; metrics are of the first

    @field_validator("sizes")
    @classmethod
    def _pixels(cls, sizes: Any) -> Any:
        if sizes != "auto" and (not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes))):
            raise ValueError(f"sizes must be auto, or ascending whole numbers of pixels from 1 on, got {list(sizes)}")
        return sizes

    @field_validator("contrasts")
    @classmethod
    def _shares(cls, contrasts: tuple[float, ...]) -> tuple[float, ...]:
        if not contrasts or not all(0 < one <= 1 for one in contrasts) or len(set(contrasts)) < len(contrasts):
            raise ValueError(f"contrasts must be distinct numbers in (0, 1], got {list(contrasts)}")
        return contrasts


Aggregation = Literal["mean", "oof_mean", "robust_mean", "max", "rank_mean", "max_var"]
Comparator = Literal["none", "oracle", "random"]
Partition = Literal["disjoint", "leave_out"]


# T; auto: by the number of samples (`llbnad.purification.partition.count_subsets`)
Subsets = CountOrAuto


class Runtime(Config):
    """How to compute, not what to compute. DVC does not follow these settings.

    On one machine they do not change the bytes of any result, with one exception: the last digits of padim depend on
    `batch_size`.
    """

    device: str = "auto"  # auto, cpu, cuda, cuda:1 …
    # dvc processes at once: sub-models of a Dagster run; scenarios of a large `run`
    processes: int = Field(1, ge=1, le=1024)
    threads: int = Field(0, ge=0, le=1024)  # CPU threads of one process; 0 = the cores, divided among `processes`
    batch_size: int = Field(16, ge=1, le=65536)  # images read and scored at once
    memory_limit: int = Field(0, ge=0)  # MiB of distances held at once, 0 = 16; softpatch holds 32 times as much
    # folder or fsspec address, such as s3://BUCKET/features, where machines share encoded images; null = none
    feature_cache: str | None = Field(None, min_length=1)


class Promotion(Config):
    """Limits within which a new detector may replace the detector in use (`llbnad.monitoring.challenger_checks`).

    They change no output of the pipeline. docs/acceptance-limits.md holds the measurements behind them.
    """

    probe_size: int = Field(200, ge=8)  # images of each kind that detectors are compared on; scoring takes seconds
    min_agreement: float = Field(0.4, ge=-1, le=1)  # rank correlation with the champion on normal images
    min_spread: float = Field(0.01, ge=0)  # relative spread of normal scores; a collapsed detector has none
    min_separation: float = Field(0.6, ge=0, le=1)  # AUROC of images not kept against kept ones; 0.5 is blind
    max_separation_loss: float = Field(0.05, ge=0, le=1)  # loss of that AUROC, compared with the champion's
    # reach of the threshold above the body of its calibration scores, in spreads of the lower half of their logarithms
    min_threshold_reach: float = 0.3  # below: the threshold is inside the scores of normal images
    max_threshold_reach: float = Field(6.0, gt=0)  # above: a kept defect set the threshold, and it is blind
    # reach of the threshold above the highest score of an unseen image, in distances from there to the normal median
    threshold_slack: float = Field(1.0, ge=0)
    max_missed: float = Field(0.0, ge=0, le=1)  # share of the defects named by people that may be called normal
    min_auroc: float = Field(0.5, ge=0, le=1)  # AUROC on labelled test images, if there are any; 0.5 is chance
    max_auroc_loss: float = Field(0.02, ge=0, le=1)  # loss of AUROC against the champion; another seed changes as much
    sensitivity_images: int = Field(12, ge=0, le=1000)  # images on which synthetic defects are drawn; 0 = no such check
    # share of a kind of synthetic defect that the new detector passes, of those that the champion finds for sure
    max_sensitivity_loss: float = Field(0.2, ge=0, le=1)
    min_kept_share: float = Field(0.15, ge=0, le=1)  # share of images kept; just below the paper's fixed 0.2
    max_kept_change: float = Field(0.2, ge=0, le=1)  # change of the kept share; a larger change means other data
    max_alarms: float = Field(0.2, ge=0, le=1)  # share of the newly learnt images that the champion calls defects
    # shift in brightness, sharpness or size of the newly learnt images, in standard deviations of the champion's images
    max_image_shift: float = Field(2.0, ge=0)
    max_feature_shift: float = Field(0.4, ge=0, le=1)  # energy coefficient of their features against the champion's


def parse(kind: Any, content: Any, where: str) -> Any:
    """Validate `content` as the type `kind` and return it.

    Args:
        kind: a settings class, or a type that pydantic knows.
        content: the settings to validate.
        where: begins each line of the error message.

    Raises:
        ConfigError: the settings are invalid; the message has one line per problem, with its key.
    """
    if odd := list(_odd_values(content, "")):
        raise ConfigError("\n".join(f"{where}: {line}" for line in odd))
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_finding(item)}" for item in error.errors())) from None


def _odd_values(content: Any, key: str) -> Iterator[str]:
    """Yield a line for each value that a file can hold and no setting means: what would fail later, or hang."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _odd_values(name, f"the key {name!r:.80} of {key}" if key else f"the key {name!r:.80}")
            yield from _odd_values(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _odd_values(value, key)
    elif isinstance(content, set | bytes | date):
        yield f"{key}: expected text, a number, a list or a mapping, got the {type(content).__name__} {content!r:.80}"
    elif isinstance(content, str) and any(not " " <= one <= "\ud7ff" and not one > "\udfff" for one in content):
        yield f"{key}: expected text without line breaks and control characters, got {content!r:.80}"
    elif isinstance(content, float) and not isfinite(content):
        yield f"{key}: expected a finite number, got {content}"
    elif isinstance(content, int) and abs(content) > LARGEST:
        yield f"{key}: expected a whole number up to {LARGEST:,}, got one of {content.bit_length()} bits"


def _finding(item: Any) -> str:
    # pydantic's location holds the tags of discriminated unions, which are no keys in the file
    tags = {"elpv", "real_iad", "image_folder", "manifest", "replace", "add", "as_is"}
    key = ".".join(str(part) for part in item["loc"] if part not in tags)
    if item["type"] == "extra_forbidden":
        return f"{key} is an unknown key"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict | Config) else f" (got {item['input']!r:.200})"
    return f"{key}: {message}{given}" if key else message
