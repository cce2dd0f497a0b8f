"""Fundamental operations for grammars in the manner of einspace (arXiv:2405.20838).

What networks are made of, one step a class, for images `(n, channels, height, width)` and for tensors whose
channels come last. `Unfold` and `Pointwise` make any convolution; `TokenScores`, `Softmax` and `TokenMix`
make attention; a transposing route around `Pointwise` makes the token mixing of an MLP-mixer. These
definitions are also printed into exported networks, so they may use torch and one another only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Pointwise(nn.Module):
    """One linear map of the channels, the same at every position.

    Args:
        image: channels come first, as in images; a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, image: bool = False) -> None:
        super().__init__()
        self.map = nn.Conv2d(in_channels, out_channels, 1) if image else nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same positions with `out_channels`."""
        out: Tensor = self.map(x)
        return out


class BatchNorm(nn.BatchNorm2d):
    """Each channel of an image normalised over the batch and all positions."""


class ChannelNorm(nn.Module):
    """Each position normalised over its channels (layer norm).

    Args:
        image: channels come first, as in images.
    """

    def __init__(self, channels: int, *, image: bool = False) -> None:
        super().__init__()
        self.image = image
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if self.image:
            x = x.permute(0, 2, 3, 1)
        out: Tensor = self.norm(x)
        return out.permute(0, 3, 1, 2) if self.image else out


class Softmax(nn.Module):
    """Each position's channels as shares that sum to one.

    Args:
        image: channels come first, as in images.
    """

    def __init__(self, *, image: bool = False) -> None:
        super().__init__()
        self.dim = 1 if image else -1

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return torch.softmax(x, dim=self.dim)


class Scale(nn.Module):
    """Each channel times a learned number (layer scale, arXiv:2103.17239).

    Args:
        initial: what all numbers start from.
        image: channels come first, as in images.
    """

    def __init__(self, channels: int, *, initial: float = 1.0, image: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1) if image else (channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * self.weight


class PositionalEncoding(nn.Module):
    """A learned number for every position and channel, added; ties the network to one size of input.

    Args:
        shape: of one sample.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.table


class Unfold(nn.Module):
    """Every pixel gets the window around it as its channels (im2col), zeros outside of the image.

    Followed by `Pointwise` it is a convolution.

    Args:
        kernel: odd side of the window.
        stride: keeps every so-manieth row and column.
    """

    def __init__(self, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c, h, w)` to `(n, c * kernel * kernel, ceil(h / stride), ceil(w / stride))`."""
        windows = functional.unfold(x, self.kernel, padding=self.kernel // 2, stride=self.stride)
        return torch.unflatten(windows, 2, ((x.shape[2] - 1) // self.stride + 1, -1))


class TokenScores(nn.Module):
    """How well every token's query (first half of its channels) fits every token's key (second half).

    The scores are products over the square root of their width, as attention has them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(n, length, 2 width)` to `(n, length, length)`: a token's channels are its scores."""
        query, key = x.chunk(2, dim=-1)
        scores: Tensor = query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5
        return scores


class TokenMix(nn.Module):
    """Every token becomes a weighted sum of all tokens' values.

    Its first `length` channels are the weights that it gives to the tokens, the rest is its own value.

    Args:
        length: number of tokens.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(n, length, length + width)` to `(n, length, width)`."""
        return x[..., : self.length] @ x[..., self.length :]
