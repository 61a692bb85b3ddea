"""All settings of a scenario. They name detectors, encoders and policies, so they need the registries."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator
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
    SelectionPolicy,
)
from llbnad.detectors import DETECTORS
from llbnad.encoders import ENCODERS, registered
from llbnad.policies import POLICIES
from llbnad.utils.registry import Registry


def _detector(content: Any) -> Any:
    return _of_registry(content, DETECTORS, "name", DetectorConfig, lambda found: found.config_class)


def _policy(content: Any) -> Any:
    return _of_registry(content, POLICIES, "policy", SelectionPolicy, lambda found: found)


def _of_registry(content: Any, registry: Registry, key: str, kind: type[Config], config_class: Any) -> Any:
    """`content` validated as the class its `key` names; a bare string is that name with default settings."""
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
    except ValueError as error:  # said of the key `name`, not of the encoder as a whole
        reason = PydanticCustomError("unknown_name", "{reason}", {"reason": str(error)})
        found = InitErrorDetails(type=reason, loc=("name",), input=config.name)
        raise ValidationError.from_exception_data("encoder", [found]) from None
    return config


AnyEncoder = Annotated[EncoderConfig, BeforeValidator(_encoder), AfterValidator(_known_encoder)]
AnyPolicy = Annotated[SerializeAsAny[SelectionPolicy], BeforeValidator(_policy)]


class ScenarioSettings(Config):
    """Everything a scenario can set beside its data; params.yaml's `defaults` hold one of these."""

    seed: int = Field(0, ge=0)  # of noise, partition and detectors; sub-models derive their own from it
    encoder: AnyEncoder = EncoderConfig()
    detector: AnyDetector = Field(default_factory=lambda: _detector("patchcore"))
    sub_model_detector: AnyDetector | None = None  # of stage 1, e.g. without hard mining; null: as the final one
    partition: Partition = "disjoint"  # which subsets a sub-model learns from
    aggregation: Aggregation = "oof_mean"
    selection: AnyPolicy = Field(default_factory=lambda: _policy("mixture"))
    rounds: int = Field(1, ge=1, le=20)  # > 1: what was kept trains the sub-models again
    # patches of kept images not learnt from, as a share per share of images rejected; 0 = none
    patch_rejection: float = Field(0.7, ge=0, le=2)
    review: str = "data/review/none.csv"  # CSV of people's verdicts, which override the policy
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


def plugin_modules(settings: Any) -> set[str]:
    """Return the modules of all classes that settings name and that are not built in.

    Args:
        settings: settings of any kind, or a mapping of some.
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
