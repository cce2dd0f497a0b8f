"""Sequences `(n, length, channels)`: embeddings, perceptrons, convolutions in time, pooling.

These definitions are also printed into exported networks, so they may use torch and the other blocks only.
"""

import math

import torch
from torch import Tensor, nn

from cambrian.search_spaces.blocks.convolution import make_activation


class TokenEmbedding(nn.Module):
    """A learned vector for each id.

    Args:
        vocabulary: ids are from 0 to this, exclusive.
    """

    def __init__(self, vocabulary: int, out_channels: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, out_channels)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids `(n, length)` to `(n, length, out_channels)`."""
        out: Tensor = self.table(ids)
        return out


class Positions(nn.Module):
    """Adds a vector that depends on the position.

    Args:
        length: of the longest sequence.
        kind: `learned`, or `sinusoidal` (arXiv:1706.03762).
    """

    table: Tensor

    def __init__(self, channels: int, *, length: int, kind: str) -> None:
        super().__init__()
        if kind == "learned":
            self.table = nn.Parameter(0.02 * torch.randn(length, channels))
        else:
            pairs = math.ceil(channels / 2)
            rates = torch.exp(torch.arange(pairs) * (-math.log(10000.0) / pairs))
            angles = torch.arange(length).unsqueeze(1) * rates
            waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :channels]
            self.register_buffer("table", waves, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(n, length, channels)`; sequences may be shorter than `length`."""
        return x + self.table[: x.shape[1]]


class ClassToken(nn.Module):
    """Puts one learned token before the sequence; `SequencePool` of kind `first` reads it at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, length, channels)` to `(n, length + 1, channels)`."""
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)


class FeedForward(nn.Module):
    """Perceptron on each position: hidden layers of one width, then back to the channels.

    Args:
        hidden: width of the hidden layers.
        depth: number of hidden layers; FlexiBERT (arXiv:2205.11656) has more than one.
        gated: the first hidden layer is multiplied by a linear map of the input (GLU, arXiv:2002.05202).
        dropout: share of the last hidden layer that is zeroed in training.
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden: int,
        activation: str,
        depth: int = 1,
        gated: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, hidden)
        self.gate = nn.Linear(channels, hidden) if gated else None
        self.act = make_activation(activation)
        self.deeper = nn.Sequential()
        for _ in range(depth - 1):
            self.deeper.append(nn.Linear(hidden, hidden))
            self.deeper.append(make_activation(activation))
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(..., channels)`."""
        hidden = self.act(self.widen(x))
        if self.gate is not None:
            hidden = hidden * self.gate(x)
        out: Tensor = self.narrow(self.dropout(self.deeper(hidden)))
        return out


class Conv1dBlock(nn.Module):
    """Convolution in time, batch norm, activation.

    Args:
        kernel: odd size of the window.
        stride: the length is divided by it, rounding up.
        groups: the channels are convolved in so many groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        activation: str,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm1d(out_channels)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, length, in_channels)` to `(n, ceil(length / stride), out_channels)`."""
        out: Tensor = self.act(self.norm(self.conv(x.transpose(1, 2)))).transpose(1, 2)
        return out


class TemporalBlock(nn.Module):
    """Two causal dilated convolutions beside a shortcut (TCN, arXiv:1803.01271).

    Batch norm stands where the paper normalises weights; once its statistics are fixed no output sees a later
    input. The shortcut is a linear map where the channels change.

    Args:
        kernel: size of both windows.
        dilation: steps between the inputs of a window; outputs see `2 * (kernel - 1) * dilation` steps back.
        dropout: share of whole channels that are zeroed in training, after each convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        dilation: int,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d(((kernel - 1) * dilation, 0), 0.0)
        self.first = nn.Conv1d(in_channels, out_channels, kernel, dilation=dilation, bias=False)
        self.norm1 = nn.BatchNorm1d(out_channels)
        self.second = nn.Conv1d(out_channels, out_channels, kernel, dilation=dilation, bias=False)
        self.norm2 = nn.BatchNorm1d(out_channels)
        self.act = make_activation(activation)
        self.dropout = nn.Dropout1d(dropout)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv1d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, length, in_channels)` to `(n, length, out_channels)`."""
        x = x.transpose(1, 2)
        body = self.dropout(self.act(self.norm1(self.first(self.pad(x)))))
        body = self.dropout(self.act(self.norm2(self.second(self.pad(body)))))
        out: Tensor = self.act(body + self.shortcut(x)).transpose(1, 2)
        return out


class SequenceDownsample(nn.Module):
    """One token from each `factor` neighbours: their mean (`mean`) or maximum (`max`)."""

    def __init__(self, *, factor: int, kind: str) -> None:
        super().__init__()
        self.pool: nn.Module = (
            nn.AvgPool1d(factor, ceil_mode=True) if kind == "mean" else nn.MaxPool1d(factor, ceil_mode=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, length, channels)` to `(n, ceil(length / factor), channels)`."""
        out: Tensor = self.pool(x.transpose(1, 2)).transpose(1, 2)
        return out


class SequencePool(nn.Module):
    """A sequence as one vector.

    Args:
        kind: `mean`, `max`, `first`, `middle` or `last` token, or `attention`: a mean whose weights are a
            softmax of a learned score.
    """

    def __init__(self, channels: int, *, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.score = nn.Linear(channels, 1, bias=False) if kind == "attention" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, length, channels)` to `(n, channels)`."""
        if self.score is not None:
            weights: Tensor = self.score(x).softmax(1)
            return (weights * x).sum(1)
        if self.kind == "mean":
            return x.mean(1)
        if self.kind == "max":
            return x.amax(1)
        return x[:, {"first": 0, "middle": x.shape[1] // 2, "last": -1}[self.kind]]
