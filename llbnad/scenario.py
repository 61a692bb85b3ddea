"""The settings of a scenario. They name detectors, encoders and policies, so this module needs the registries."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from llbnad.config import (
    Aggregation,
    CalibrationConfig,
    Comparator,
    Config,
    DetectorConfig,
    EncoderConfig,
    InjectedNoise,
    Noise,
    Partition,
    RegionConfig,
    SelectionPolicy,
    SensitivityConfig,
    Subsets,
    parse,
)
from llbnad.detectors import DETECTORS
from llbnad.encoders import ENCODERS, recipe, registered
from llbnad.policies import POLICIES
from llbnad.utils.registry import Registry


def _detector(content: Any) -> Any:
    return _of_registry(content, DETECTORS, "name", DetectorConfig, lambda found: found.config_class)


def _policy(content: Any) -> Any:
    return _of_registry(content, POLICIES, "policy", SelectionPolicy, lambda found: found)


def _of_registry(content: Any, registry: Registry, key: str, kind: type[Config], config_class: Any) -> Any:
    """Validate `content` as the settings class that its `key` names. A text is a name with default settings."""
    if isinstance(content, kind):
        return content
    if isinstance(content, str):
        content = {key: content}
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"expected a mapping with the key {key!r}, one of {registry.names}")
    settings_class: type[Config] = config_class(registry.get(content[key]))
    annotation = settings_class.model_fields[key].annotation
    if get_origin(annotation) is Literal and content[key] not in get_args(annotation):
        raise ValueError(
            f"{settings_class.__name__} cannot hold the name {content[key]!r}: write `{key}: str` there, or nothing"
        )
    return settings_class.model_validate(content)


AnyDetector = Annotated[SerializeAsAny[DetectorConfig], BeforeValidator(_detector)]


def _encoder(content: Any) -> Any:
    return {"name": content} if isinstance(content, str) else content


def _known_encoder(config: EncoderConfig) -> EncoderConfig:
    try:
        ENCODERS.get(registered(config.name))
    except ValueError as error:  # report the problem at the key `name`, not at the encoder as a whole
        reason = PydanticCustomError("unknown_name", "{reason}", {"reason": str(error)})
        found = InitErrorDetails(type=reason, loc=("name",), input=config.name)
        raise ValidationError.from_exception_data("encoder", [found]) from None
    return config


AnyEncoder = Annotated[EncoderConfig, BeforeValidator(_encoder), AfterValidator(_known_encoder)]
AnyPolicy = Annotated[SerializeAsAny[SelectionPolicy], BeforeValidator(_policy)]


class ScenarioSettings(Config):
    """All settings of a scenario except its data. `defaults` in params.yaml has this form."""

    seed: int = Field(0, ge=0)  # seed of noise, partition and detectors; each sub-model derives its own seed from it
    encoder: AnyEncoder = EncoderConfig()
    region: RegionConfig | None = None  # the part of every image that is learnt and scored; null: the whole image
    detector: AnyDetector = Field(default_factory=lambda: _detector("patchcore"))
    # detector of stage 1; null: the final one. padim ranked best on the known sets, and is cheap beside any other
    sub_model_detector: AnyDetector | None = Field(
        default_factory=lambda: _detector({"name": "padim", "dimensions": 60})
    )
    subsets: Subsets = "auto"  # T, number of sub-models; auto: 10 where a sample counts much, else 5
    partition: Partition = "leave_out"  # which subsets a sub-model learns from
    aggregation: Aggregation = "oof_mean"
    selection: AnyPolicy = Field(default_factory=lambda: _policy("adaptive"))
    rounds: int = Field(2, ge=1, le=20)  # rounds of stage 1; further rounds train the sub-models on the kept images
    # share of patches not learnt from, per share of images rejected, where the policy sees two groups apart; 0 = none
    patch_rejection: float = Field(0.7, ge=0, le=2)
    review: str = Field("data/review/none.csv", min_length=1)  # CSV of people's verdicts, which override the policy
    calibration: CalibrationConfig = CalibrationConfig()
    sensitivity: SensitivityConfig = SensitivityConfig()
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

    @model_validator(mode="after")
    def _several_sub_models(self) -> "ScenarioSettings":
        if self.subsets == 1 and self.aggregation == "oof_mean":
            raise ValueError(
                "aggregation oof_mean needs at least 2 subsets, got 1: with one, every image was trained on; use mean"
            )
        if self.subsets == 1 and self.partition == "leave_out":
            raise ValueError(
                "partition leave_out needs at least 2 subsets, got 1: with one, nothing is left to learn from; "
                "use disjoint"
            )
        return self

    @model_validator(mode="after")
    def _can_leave_patches_out(self) -> "ScenarioSettings":
        """Refuse a detector that reads whole images where some patches do not count, or where tiles are joined."""
        for detector in (self.detector, self.stage_1_detector):
            if not detector.uses_features and (self.region is not None or self.encoder.view != "squeeze"):
                raise ValueError(
                    f"detector {detector.name} reads whole images and can leave nothing out: use encoder.view squeeze "
                    "without a region, or another detector"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_no_region(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a region that is null, so that stages without one keep their settings byte by byte."""
        content: dict[str, Any] = serialise(self)
        return content if self.region is not None else {k: v for k, v in content.items() if k != "region"}

    @property
    def stage_1_detector(self) -> DetectorConfig:
        """Settings of the sub-models' detector."""
        return self.sub_model_detector or self.detector


class Scenario(ScenarioSettings):
    """All settings of one training: of a benchmark cell or of a production line."""

    dataset: str
    noise: Noise = InjectedNoise()


def make_settings(content: Mapping[str, Any], where: str) -> ScenarioSettings:
    """Check settings as people write them and return them. No image is read.

    Args:
        content: values by key of `ScenarioSettings`; a detector, encoder or selection is a name, a mapping or an
            object.
        where: begins each error message.

    Raises:
        ConfigError: a key is unknown, a value is impossible, or two settings contradict each other.
        OfflineError: the encoder's weights are not on this machine and cannot be downloaded.
    """
    settings: ScenarioSettings = parse(ScenarioSettings, dict(content), where)
    recipe(settings.encoder)
    return settings


def plugin_modules(settings: Any) -> set[str]:
    """Return the modules of all classes named in the settings that are not built in.

    Args:
        settings: settings of any kind, or a mapping whose values are settings.
    """
    if isinstance(settings, Mapping):
        return {module for value in settings.values() for module in plugin_modules(value)}
    if isinstance(settings, DetectorConfig):
        found = DETECTORS.plugin_module(settings.name)
    elif isinstance(settings, SelectionPolicy):
        found = POLICIES.plugin_module(settings.policy)
    elif isinstance(settings, EncoderConfig):
        found = ENCODERS.plugin_module(registered(settings.name))
    else:
        return plugin_modules(vars(settings)) if isinstance(settings, Config) else set()
    return {found} if found else set()
