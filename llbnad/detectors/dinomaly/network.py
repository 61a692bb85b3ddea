"""Dinomaly's trainable part: a noisy bottleneck, a decoder of linear-attention blocks, and the loss.

References: Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025
(arXiv 2405.14325); linear attention: Katharopoulos et al., ICML 2020 (arXiv 2006.16236).
Differences: the attention's denominator has an eps, because a head whose keys all vanish would give NaN. Layers may
have unequal widths, as a CNN's have; the bottleneck then takes their concatenation, and one linear head per layer
restores the layer's width.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION_EPS = 1e-6
HEAD_WIDTH = 64  # channels per attention head, as in every DINOv2


class Bottleneck(nn.Module):
    """An MLP with dropout, the only noise of the network: (B, n, C_in) -> (B, n, C)."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(inputs, 4 * width)
        self.reduce = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Summarise the tokens. There is no residual and no norm, so that the decoder never sees its input unharmed."""
        hidden = self.dropout(functional.gelu(self.expand(self.dropout(tokens))))
        return self.dropout(self.reduce(hidden))


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention with the kernel elu + 1 instead of the softmax, in O(n): (B, heads, n, c), as each argument.

    Linear attention cannot focus on single tokens, so it cannot copy a defect from the defect's own position.
    """
    query, key = functional.elu(query) + 1, functional.elu(key) + 1
    context = key.transpose(-2, -1) @ value  # (B, heads, c, c)
    norm = query @ key.sum(dim=-2).unsqueeze(-1)  # (B, heads, n, 1)
    return query @ context / (norm + ATTENTION_EPS)


class Block(nn.Module):
    """Pre-norm transformer block with linear attention: (B, n, C) -> (B, n, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-8)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-8)
        self.expand = nn.Linear(width, 4 * width)
        self.reduce = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply attention, then the MLP; each is added to its input."""
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, n, c) each
        attended = linear_attention(query, key, value).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.project(attended)
        return tokens + self.reduce(functional.gelu(self.expand(self.norm2(tokens))))


class DinomalyNetwork(nn.Module):
    """The network that reconstructs P layers of tokens from their summary.

    Args:
        channels: C_l of the P layers, shallow first. Layers as wide as the decoder are summarised by their mean
            (Dinomaly), other layers by their concatenation.
        width: C, channels of the decoder.
        depth: decoder blocks. They form P groups; the first group reconstructs the deepest layer.
        dropout: dropout rate of the bottleneck.
    """

    def __init__(self, channels: Sequence[int], width: int, depth: int, dropout: float) -> None:
        super().__init__()
        alike = set(channels) == {width}
        heads = next(heads for heads in range(max(1, width // HEAD_WIDTH), 0, -1) if width % heads == 0)
        self.bottleneck = Bottleneck(width if alike else sum(channels), width, dropout)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.heads = nn.ModuleList(nn.Identity() if alike else nn.Linear(width, wanted) for wanted in channels)
        # decoder group of each layer: the last blocks, closest to the output, reconstruct the first, shallowest layer
        bounds = [round(part * depth / len(channels)) for part in range(len(channels) + 1)]
        self.groups = [range(*pair) for pair in pairwise(bounds)][::-1]
        self.alike = alike
        self.apply(_initialise)

    def forward(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Reconstruct the layers: P tensors (B, n, C_l) -> P tensors (B, n, C_l)."""
        summary = torch.stack(list(layers)).mean(dim=0) if self.alike else torch.cat(list(layers), dim=-1)
        tokens = self.bottleneck(summary)
        outputs = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(tokens)
        means = [torch.stack([outputs[index] for index in group]).mean(dim=0) for group in self.groups]
        return [head(mean) for head, mean in zip(self.heads, means, strict=True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
        nn.init.zeros_(module.bias)


def reconstruction_loss(targets: Sequence[Tensor], outputs: Sequence[Tensor], quantile: float, factor: float) -> Tensor:
    """Return 1 - cos between a layer's flattened target and output, averaged over layers and images.

    Hard mining changes only the gradient. Where a token's own distance is below the batch's `quantile`, the gradient of
    the output is multiplied by `factor`.

    Args:
        targets: P tensors (B, n, C_l).
        outputs: P tensors (B, n, C_l).
        quantile: in [0, 1); 0 switches hard mining off.
        factor: of the gradient of easy tokens.
    """
    losses = []
    for target, output in zip(targets, outputs, strict=True):
        target, output = target.detach().float(), output.float()
        if quantile > 0 and output.requires_grad:
            with torch.no_grad():
                distances = token_distances(target, output)  # (B, n)
                hardest = max(1, int((1 - quantile) * distances.numel()))
                easy = distances < distances.flatten().topk(hardest).values[-1]
            output.register_hook(partial(_scale_easy, easy, factor))
        losses.append((1 - functional.cosine_similarity(target.flatten(1), output.flatten(1))).mean())
    return torch.stack(losses).mean()


def token_distances(target: Tensor, output: Tensor) -> Tensor:
    """Return 1 - cos of every token, in [0, 2]: two tensors (B, n, C) -> (B, n)."""
    return 1 - functional.cosine_similarity(target, output, dim=-1)


def _scale_easy(easy: Tensor, factor: float, gradient: Tensor) -> Tensor:
    return torch.where(easy.unsqueeze(-1), gradient * factor, gradient)
