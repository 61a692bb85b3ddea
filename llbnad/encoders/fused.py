"""A frozen convolutional network rewritten for inference: the same function in fewer passes.

Batch normalisation becomes part of the convolution before it. On a CPU, a 1 × 1 convolution becomes a matrix product
over pixels. The product is faster on a single image, and its last digits depend neither on the size of the batch nor on
the number of threads. oneDNN's 1 × 1 convolution lacks this property: for small work on one thread it picks another
kernel, which sums in another order.

`python -m benchmarks.performance --only encoding` measures the gain.
"""

from typing import Any


def fuse(network: Any) -> Any:
    """Rewrite `network` in place and return it in channels-last layout.

    Args:
        network: a network of timm in evaluation mode.

    Raises:
        ValueError: a batch normalisation does not follow a convolution with as many channels.
    """
    import torch
    from timm.layers import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    convolution: torch.nn.Conv2d | None = None
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.Conv2d):
            convolution = module
        elif isinstance(module, BatchNormAct2d):
            if convolution is None or convolution.out_channels != module.num_features:
                raise ValueError(f"{name}: batch normalisation does not follow a convolution with as many channels")
            mean, variance = module.running_mean, module.running_var
            assert mean is not None and variance is not None  # a trained network has running statistics
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight, convolution.bias, mean, variance, module.eps, module.weight, module.bias
            )
            network.set_submodule(name, module.act)
            convolution = None
    pointwise = _pointwise()
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            network.set_submodule(name, pointwise(module))
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def _pointwise() -> Any:
    import torch
    from torch.nn import functional

    class Pointwise(torch.nn.Module):
        """A linear layer on each pixel: (B, C, H, W) -> (B, C', H, W)."""

        def __init__(self, convolution: torch.nn.Conv2d) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(convolution.weight.flatten(1).clone())  # (C', C)
            self.bias = convolution.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.is_cuda or torch.compiler.is_exporting():  # GPUs and runtimes have faster kernels for a convolution
                return functional.conv2d(x, self.weight[:, :, None, None], self.bias)
            return functional.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)

    return Pointwise
