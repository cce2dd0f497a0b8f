"""Layers on features: vectors `(n, channels)`, tokens `(n, length, channels)`, nodes `(count, channels)`.

All but those with batch norm act on the last dimension, whatever stands before it. These definitions are also
printed into exported networks, so they may use torch and the other blocks only.
"""

import math

import torch
from torch import Tensor, nn

from cambrian.search_spaces.blocks.convolution import make_activation


class Activation(nn.Module):
    """One function of every number; any shape."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = make_activation(name)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.function(x)
        return out


class MixedActivation(nn.Module):
    """Several families of activations side by side: each has its own share of the channels, in order.

    Args:
        names: families joined by `+`, such as `relu+tanh+sine`.
    """

    def __init__(self, names: str) -> None:
        super().__init__()
        self.functions = nn.ModuleList(make_activation(name) for name in names.split("+"))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(..., channels)`; shares differ by at most one channel."""
        shares = x.tensor_split(len(self.functions), dim=-1)
        return torch.cat(
            [function(share) for function, share in zip(self.functions, shares, strict=True)], dim=-1
        )


class SelectiveActivation(nn.Module):
    """Each channel learns which family of activations to use: a softmax over the families weighs them.

    Per-node choice of activations after selectable Kolmogorov-Arnold networks; the soft choice is that of
    differentiable search (DARTS, arXiv:1806.09055).

    Args:
        names: families joined by `+`, such as `relu+tanh+sine`.
    """

    def __init__(self, channels: int, *, names: str) -> None:
        super().__init__()
        self.functions = nn.ModuleList(make_activation(name) for name in names.split("+"))
        self.choice = nn.Parameter(torch.zeros(len(self.functions), channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(..., channels)`."""
        weights = self.choice.softmax(0).unbind()
        out = torch.zeros_like(x)
        for weight, function in zip(weights, self.functions, strict=True):
            out = out + weight * function(x)
        return out


class DenseBlock(nn.Module):
    """Linear map, norm, activation, dropout.

    Args:
        norm: `none`, `layer`, or `batch`, which wants `(n, channels)`.
        dropout: share of the outputs that are zeroed in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        activation: str,
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = nn.BatchNorm1d(out_channels)
        elif norm == "layer":
            self.norm = nn.LayerNorm(out_channels)
        self.act = make_activation(activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in_channels)` to `(..., out_channels)`."""
        out: Tensor = self.dropout(self.act(self.norm(self.linear(x))))
        return out


class ResidualDense(nn.Module):
    """Pre-norm residual perceptron: x + W2 act(W1 norm(x)) (ResNet for tables, arXiv:2106.11959).

    Args:
        hidden: width between the two linear maps.
        norm: `none`, `layer`, or `batch`, which wants `(n, channels)`.
        dropout: share of the hidden features that are zeroed in training.
    """

    def __init__(
        self, channels: int, *, hidden: int, activation: str, norm: str = "none", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = nn.BatchNorm1d(channels)
        elif norm == "layer":
            self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, hidden)
        self.act = make_activation(activation)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(..., channels)`."""
        out: Tensor = x + self.narrow(self.dropout(self.act(self.widen(self.norm(x)))))
        return out


class PeriodicEmbedding(nn.Module):
    """Sines and cosines of each feature at learned frequencies (arXiv:2203.05556).

    Args:
        frequencies: for each feature.
        scale: standard deviation of the frequencies at the start, in cycles per unit of the feature.
    """

    def __init__(self, channels: int, *, frequencies: int, scale: float = 0.1) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(scale * torch.randn(channels, frequencies))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., channels)` to `(..., 2 * channels * frequencies)`."""
        angle = 2 * math.pi * x.unsqueeze(-1) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class FeatureTokens(nn.Module):
    """Each feature of a vector becomes a token: its value times one learned vector, plus another.

    That is how FT-Transformer reads tables (arXiv:2106.11959).
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        bound = out_channels**-0.5
        self.weight = nn.Parameter(torch.empty(channels, out_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels, out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, channels)` to `(n, channels, out_channels)`."""
        return x.unsqueeze(-1) * self.weight + self.bias
