"""The operations of NAS-Bench-201's cells and what stands between them (arXiv:2001.00326).

These definitions are also printed into exported networks, so they may use torch and one another only.
"""

from torch import Tensor, nn


class CellConv(nn.Module):
    """ReLU, convolution without bias, batch norm: `nor_conv_1x1` and `nor_conv_3x3`.

    Args:
        kernel: odd size of the window.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`, rounded up."""
        out: Tensor = self.norm(self.conv(self.act(x)))
        return out


class CellPool(nn.Module):
    """The mean of the 3x3 window around each pixel, without what lies outside the map: `avg_pool_3x3`."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.pool(x)
        return out


class Zero(nn.Module):
    """Nothing passes: `none`."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the same shape; what made `x` still gets a gradient, of zero."""
        return x * 0


class CellReduction(nn.Module):
    """Halves the map between two stages: the basic residual block of NAS-Bench-201's skeleton.

    Its shortcut is the mean of 2x2 pixels and a 1x1 convolution. The skeleton's maps have even sides; odd
    ones are rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = CellConv(in_channels, out_channels, kernel=3, stride=2)
        self.second = CellConv(out_channels, out_channels, kernel=3)
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, ceil(h / 2), ceil(w / 2))`."""
        out: Tensor = self.second(self.first(x)) + self.shortcut(self.pool(x))
        return out
