"""Settings of Dinomaly."""

from typing import Literal

from pydantic import Field, field_validator

from llbnad.config import DetectorConfig


class DinomalyConfig(DetectorConfig):
    """Settings of `Dinomaly`, by default for a CNN on a CPU. Official for a category of Real-IAD: 5000 steps of 16."""

    name: Literal["dinomaly"] = "dinomaly"
    recipe: Literal["official", "llbnad"] = "official"  # optimiser, learning rate and how hard mining acts
    steps: int = Field(300, ge=1)  # of the optimiser
    batch_size: int = Field(8, ge=1)  # images a step
    # auto: the encoder's own width and 8 blocks (official) where all its layers are equally wide, as a ViT's are
    width: int | Literal["auto"] = "auto"  # decoder channels; auto for a CNN's layers: 64
    depth: int | Literal["auto"] = "auto"  # decoder blocks; auto for a CNN's layers: 4
    dropout: float = Field(0.2, ge=0, lt=1)  # of the bottleneck
    hard_mining: float = Field(0.9, ge=0, lt=1)  # share p of points whose gradient is lowered; 0 = off
    threads: int = Field(1, ge=1)  # on a CPU; here, not in `runtime`, as sums over other parts have other last digits
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 trains about twice as fast, and to other numbers

    @field_validator("width", "depth")
    @classmethod
    def _positive(cls, size: int | str) -> int | str:
        if isinstance(size, int) and size < 1:
            raise ValueError("must be at least 1, or auto")
        return size
