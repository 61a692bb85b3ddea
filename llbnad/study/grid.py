"""The grid of the purification table: data sets, detectors, noise, seeds and policies (benchmarks/*.yaml)."""

from dataclasses import dataclass

from pydantic import Field, ValidationError, model_validator

from llbnad.config import (
    Aggregation,
    Config,
    Dataset,
    DetectorConfig,
    InjectedNoise,
    Noise,
    NoNoise,
    Partition,
    RealIadDataset,
    Subsets,
)
from llbnad.scenario import AnyDetector, AnyEncoder, AnyPolicy, ScenarioSettings

DEFAULT = "default"  # the policy that `random` matches in size


class TablePolicy(Config):
    """A row of the table: how stage 1's scores become a training set."""

    selection: AnyPolicy
    patch_rejection: float = Field(0, ge=0)
    aggregation: Aggregation | None = None  # None: the aggregation of the grid
    partition: Partition = "disjoint"
    subsets: Subsets | None = None  # T; None: that of the grid
    rounds: int = Field(1, ge=1)
    sub_model_detector: AnyDetector | None = None  # None: the detector of the cell
    misindexed: bool = False  # train stage 2 on images at the chosen positions of a shuffled list, as the release does

    def settings(self, grid: "Grid", detector: DetectorConfig, seed: int) -> ScenarioSettings:
        """Return the settings of a scenario with this policy, for one cell of `grid`."""
        return ScenarioSettings(
            seed=seed,
            encoder=grid.encoder,
            detector=detector,
            sub_model_detector=self.sub_model_detector,
            subsets=self.subsets or grid.subsets,
            partition=self.partition,
            aggregation=self.aggregation or grid.aggregation,
            selection=self.selection,
            rounds=self.rounds,
            patch_rejection=self.patch_rejection,
        )


class Grid(Config):
    """The data sets, detectors, noise ratios, seeds and policies to compare (benchmarks/*.yaml)."""

    datasets: dict[str, Dataset]
    encoder: AnyEncoder
    pool: int = Field(1, ge=1)
    detectors: dict[str, AnyDetector]
    rivals: dict[str, AnyDetector] = Field(default_factory=dict)
    noise: InjectedNoise  # its ratio is replaced by each of `ratios`
    official: dict[float, str] = Field(default_factory=dict)  # Real-IAD's JSON set that is contaminated at this ratio
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    pixel_seeds: tuple[int, ...] | None = None  # seeds with pixel metrics, which take most of the time; None: all
    subsets: Subsets  # T
    aggregation: Aggregation
    policies: dict[str, TablePolicy]
    candidates: tuple[str, ...] = ()  # policies among which leave-one-set-out chooses (`llbnad.study.left_out`)

    def source(self, name: str, ratio: float) -> Dataset:
        """Return the data set `name`, in its official variant with α = `ratio` if there is one."""
        dataset = self.datasets[name]
        if ratio in self.official and isinstance(dataset, RealIadDataset):
            return dataset.model_copy(update={"variant": self.official[ratio]})
        return dataset

    def noise_at(self, ratio: float) -> Noise:
        """Return the noise that gives the result of `source` the contamination α = `ratio`."""
        return NoNoise() if ratio in self.official else self.noise.model_copy(update={"ratio": ratio})

    @model_validator(mode="after")
    def _official_needs_real_iad(self) -> "Grid":
        for name, dataset in self.datasets.items():
            if self.official and not isinstance(dataset, RealIadDataset):
                raise ValueError(f"official: data set {name} is {dataset.source}; only real_iad has such JSON sets")
        return self

    @model_validator(mode="after")
    def _named(self) -> "Grid":
        if DEFAULT not in self.policies:
            raise ValueError(
                f"policies: one must be called {DEFAULT}, as `random` keeps as many images; got {list(self.policies)}"
            )
        for name, policy in self.policies.items():
            for detector in self.detectors.values():
                try:
                    policy.settings(self, detector, 0)
                except ValidationError as error:
                    raise ValueError(f"policies.{name}: {error.errors()[0]['msg']}") from None
        if unknown := sorted(set(self.candidates) - set(self.policies)):
            raise ValueError(f"candidates: {unknown[0]} is none of the policies {list(self.policies)}")
        if both := sorted(set(self.detectors) & set(self.rivals)):
            raise ValueError(f"rivals: {both[0]} is the name of a detector as well")
        return self

    def cells(self) -> list["Cell"]:
        """Return all cells. Seeds are the outermost loop, so that a stopped run has finished whole seeds."""
        names = [(name, False) for name in self.detectors] + [(name, True) for name in self.rivals]
        return [
            Cell(dataset, ratio, detector, rival, seed)
            for seed in self.seeds
            for dataset in self.datasets
            for ratio in self.ratios
            for detector, rival in names
        ]


@dataclass(frozen=True)
class Cell:
    """One contaminated training set and one detector."""

    dataset: str
    ratio: float  # α
    detector: str
    rival: bool
    seed: int

    @property
    def name(self) -> str:
        """File name of the cell's results, without suffix."""
        return f"{self.dataset}_{self.detector}_{self.ratio:g}_{self.seed}"
