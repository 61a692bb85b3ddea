"""Settings of Dinomaly."""

from typing import Literal

from pydantic import Field, field_validator

from llbnad.config import DetectorConfig


class DinomalyConfig(DetectorConfig):
    """Settings of `Dinomaly`. The defaults suit a CNN on a CPU.

    For one category of Real-IAD, the official setting is 5000 steps of 16 images.
    """

    name: Literal["dinomaly"] = "dinomaly"
    recipe: Literal["official", "llbnad"] = "official"  # decides optimiser, learning rate and effect of hard mining
    steps: int = Field(300, ge=1)  # training steps
    batch_size: int = Field(8, ge=1)  # images per step
    # decoder channels; auto: the width of the encoder's layers if all are equal, as a ViT's are (official), else 64
    width: int | Literal["auto"] = "auto"
    depth: int | Literal["auto"] = "auto"  # decoder blocks; auto: 8 if all layers are equally wide (official), else 4
    dropout: float = Field(0.2, ge=0, lt=1)  # dropout rate of the bottleneck
    hard_mining: float = Field(0.9, ge=0, lt=1)  # share p of points whose gradient is lowered; 0 = off
    threads: int = Field(1, ge=1)  # CPU threads; set here, not in `runtime`, because they change the last digits
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 trains about twice as fast and gives other numbers

    @field_validator("width", "depth")
    @classmethod
    def _positive(cls, size: int | str) -> int | str:
        if isinstance(size, int) and size < 1:
            raise ValueError("must be at least 1, or auto")
        return size
