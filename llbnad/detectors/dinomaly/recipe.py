"""Two ways to optimise Dinomaly, its authors' and LLBNAD's. Both count steps instead of epochs.

official: StableAdamW with weight decay 1e-4. The learning rate rises to 2e-3 in 100 warm-up steps and follows a cosine
to 2e-4. The gradient is clipped to norm 0.1. Hard mining's share p grows over 1000 steps. Easy points keep a tenth of
their gradient.
llbnad: Adam at a learning rate of 5e-3, and of 5e-4 for the last fifth of the steps. Hard mining's share is p from the
first step on. Easy points have no gradient.

Differences: the warm-up takes at most a tenth of a short training. LLBNAD's code divides the rate by ten every 0.8
epochs of the sub-model's images, without end, so it has about 23 steps at the full rate. Here the rate is divided once.
"""

import math
from typing import TYPE_CHECKING

import torch

from llbnad.detectors.dinomaly.stable_adamw import StableAdamW

if TYPE_CHECKING:
    from llbnad.detectors.dinomaly.config import DinomalyConfig
    from llbnad.detectors.dinomaly.network import DinomalyNetwork

WARM_UP, PEAK, FLOOR = 100, 2e-3, 2e-4
MINING_RAMP = 1000
CLIP = 0.1
LLBNAD_RATE, LLBNAD_DROP = 5e-3, 0.8


def optimiser(config: "DinomalyConfig", network: "DinomalyNetwork") -> torch.optim.Optimizer:
    """Return the recipe's optimiser. The caller sets its learning rate before every step."""
    return (StableAdamW if config.recipe == "official" else torch.optim.Adam)(network.parameters())


def learning_rate(config: "DinomalyConfig", step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    if config.recipe == "llbnad":
        return LLBNAD_RATE if step < LLBNAD_DROP * config.steps else LLBNAD_RATE / 10
    warm_up = min(WARM_UP, config.steps // 10)
    if step < warm_up:
        return PEAK * step / warm_up
    progress = (step - warm_up) / (config.steps - warm_up)
    return FLOOR + (PEAK - FLOOR) * (1 + math.cos(math.pi * progress)) / 2


def mining(config: "DinomalyConfig", step: int) -> tuple[float, float]:
    """Return the quantile below which a point is easy, and the factor that its gradient is multiplied by.

    Args:
        config: settings.
        step: counted from 0.
    """
    if config.recipe == "llbnad":
        return config.hard_mining, 0.0
    return config.hard_mining * min(1.0, step / MINING_RAMP), 0.1


def clip(config: "DinomalyConfig", network: "DinomalyNetwork") -> None:
    """Clip the norm of the whole gradient, if the recipe asks for it."""
    if config.recipe == "official":
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
