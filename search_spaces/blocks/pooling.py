"""Pooling: smaller maps, and from a map of features to a vector before the classifier.

These definitions are also printed into exported networks, so they may use torch only.
"""

import torch
from torch import Tensor, nn


class GlobalPool(nn.Module):
    """One number a channel: its mean (`avg`), its maximum (`max`), or both side by side (`avgmax`)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c, h, w)` to `(n, c)`, or to `(n, 2 c)` for `avgmax`."""
        if self.kind == "avg":
            return x.mean((2, 3))
        if self.kind == "max":
            return x.amax((2, 3))
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


class GridPool(nn.Module):
    """Average the map down to `height` x `width` cells and flatten, so that coarse positions survive."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((height, width))
        self.flatten = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c, h, w)` to `(n, c * height * width)`."""
        out: Tensor = self.flatten(self.pool(x))
        return out


class Pool(nn.Module):
    """The maximum (`max`) or mean (`avg`) of the window around each pixel, what lies outside left out.

    Args:
        kernel: odd side of the window.
        stride: 1 keeps the map's size, 2 halves it, rounding up.
    """

    def __init__(self, kind: str, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2
        self.pool = (
            nn.MaxPool2d(kernel, stride, padding)
            if kind == "max"
            else nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, c, h, w)` to `(n, c, ceil(h / stride), ceil(w / stride))`."""
        out: Tensor = self.pool(x)
        return out
