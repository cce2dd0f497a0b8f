"""Self-attention on images: each pixel of the map is a token.

These definitions are also printed into exported networks, so they may use torch and the other blocks only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.search_spaces.blocks.convolution import make_activation, make_shortcut


class PooledAttention(nn.Module):
    """Multi-head attention from every pixel to the averages of `reduction` x `reduction` patches.

    Averaging keys and values keeps the cost linear in the map's area (PVT v2, arXiv:2106.13797).

    Args:
        channels: divisible by `heads`.
        reduction: side of a patch; 1 attends to every pixel.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduce = nn.AvgPool2d(reduction, ceil_mode=True) if reduction > 1 else nn.Identity()
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The attended map, same shape."""
        query = self.query(x)
        key, value = self.key_value(self.reduce(x)).chunk(2, dim=1)
        out = functional.scaled_dot_product_attention(
            self.tokens(query), self.tokens(key), self.tokens(value)
        )
        image: Tensor = self.project(out.transpose(2, 3).reshape(query.shape))
        return image

    def tokens(self, image: Tensor) -> Tensor:
        """`(n, channels, height, width)` to `(n, heads, height * width, channels / heads)`."""
        split = torch.unflatten(image.flatten(2), 1, (self.heads, -1))
        return split.transpose(2, 3)


class MapWindowAttention(nn.Module):
    """Multi-head attention inside windows that don't overlap (Swin, arXiv:2103.14030, without shifting).

    Where a side is no multiple of the window's, keys and values of zero fill up the last windows.

    Args:
        channels: divisible by `heads`.
        window: height and width of a window.
    """

    def __init__(self, channels: int, *, heads: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The attended map, same shape."""
        rows, columns = self.window
        height, width = x.shape[2], x.shape[3]
        padding = (0, -width % columns, 0, -height % rows)
        tall, wide = (height + rows - 1) // rows, (width + columns - 1) // columns
        mixed = functional.pad(self.query_key_value(x), padding)
        # (n, heads, features, windows down, rows, windows across, columns)
        split = mixed.reshape(x.shape[0], self.heads, -1, tall, rows, wide, columns).permute(
            0, 3, 5, 1, 4, 6, 2
        )
        tokens = split.reshape(x.shape[0] * tall * wide, self.heads, rows * columns, -1)
        query, key, value = tokens.chunk(3, dim=-1)
        out = functional.scaled_dot_product_attention(query, key, value)
        parts = out.reshape(x.shape[0], tall, wide, self.heads, rows, columns, -1)
        whole = parts.permute(0, 3, 6, 1, 4, 2, 5).reshape(x.shape[0], -1, tall * rows, wide * columns)
        image: Tensor = self.project(whole[:, :, :height, :width])
        return image


class AttentionBlock(nn.Module):
    """Pre-norm self-attention and a two-layer perceptron, both residual, on a map of any size.

    A strided convolution halves the map or a 1x1 convolution changes its width first, where needed. Positions
    enter through a depthwise 3x3 convolution (conditional encoding, arXiv:2102.10882), so that no table ties
    the block to one resolution.

    Args:
        heads: attention heads; must divide `out_channels`.
        reduction: side of the patches that keys and values are averaged over.
        expansion: hidden channels of the perceptron per channel.
        stride: 1 or 2.
        window: height and width of the windows that attention stays inside of, at a `reduction` of 1; None
            attends to the whole map.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        heads: int,
        reduction: int,
        expansion: int,
        activation: str,
        stride: int = 1,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        hidden = out_channels * expansion
        self.embed = make_shortcut(in_channels, out_channels, stride, kernel=3 if stride > 1 else 1)
        self.position = nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.attention = (
            MapWindowAttention(out_channels, heads=heads, window=window)
            if window
            else PooledAttention(out_channels, heads=heads, reduction=reduction)
        )
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.widen = nn.Conv2d(out_channels, hidden, 1)
        self.act = make_activation(activation)
        self.narrow = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`."""
        x = self.embed(x)
        x = x + self.position(x)
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.narrow(self.act(self.widen(self.norm2(x))))
        return out
