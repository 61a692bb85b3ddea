"""StableAdamW: AdamW whose step shrinks where the second moment lags behind the gradient.

References: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", NeurIPS 2023
(arXiv 2304.13013), algorithm 2: the learning rate of a tensor is divided by max(1, RMS(g / √v)).
Difference: AMSGrad is added, as in Dinomaly. Neither torch nor timm has this optimiser; anomalib has one.
"""

from collections.abc import Iterable

import torch
from torch.optim import Optimizer


class StableAdamW(Optimizer):
    """AdamW with update clipping and AMSGrad. The defaults are Dinomaly's (arXiv 2405.14325)."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    for moment in ("mean", "square", "largest_square"):
                        state[moment] = torch.zeros_like(parameter)
                state["step"] += 1
                gradient, mean, square = parameter.grad, state["mean"], state["square"]
                mean.lerp_(gradient, 1 - beta1)
                square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                largest = torch.maximum(state["largest_square"], square, out=state["largest_square"])
                scale = largest.sqrt().div_((1 - beta2 ** state["step"]) ** 0.5).add_(group["eps"])

                # a tensor, not a number: it stays on the device
                excess = (gradient / scale).square_().mean().sqrt_().clamp_min_(1)
                step_size = group["lr"] / (1 - beta1 ** state["step"]) / excess
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(mean / scale * step_size)
