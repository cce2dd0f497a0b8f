"""More blocks on images: what networks of convolutions and attention are put together from.

Maps are `(n, channels, height, width)`. These definitions are also printed into exported networks, so they
may use torch and the other blocks only.
"""

from torch import Tensor, nn

from cambrian.search_spaces.blocks.convolution import ConvNorm, make_activation, make_gate, make_shortcut
from cambrian.search_spaces.blocks.primitives import ChannelNorm, Scale


class BottleneckBlock(nn.Module):
    """Narrow, convolve, widen, beside a shortcut (He et al. 2015, arXiv:1512.03385; stride as in v1.5).

    The shortcut is a strided 1x1 convolution where the shapes differ. With groups it is ResNeXt's block
    (arXiv:1611.05431).

    Args:
        hidden: channels of the convolution in the middle.
        kernel: odd size of its window.
        groups: of that convolution; must divide `hidden`.
        se: hidden width of the squeeze-excite gate before the sum; 0 means none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int,
        kernel: int,
        activation: str,
        stride: int = 1,
        groups: int = 1,
        se: int = 0,
    ) -> None:
        super().__init__()
        self.narrow = ConvNorm(in_channels, hidden)
        self.act1 = make_activation(activation)
        self.conv = ConvNorm(hidden, hidden, kernel=kernel, stride=stride, groups=groups)
        self.act2 = make_activation(activation)
        self.widen = ConvNorm(hidden, out_channels)
        self.se = make_gate(out_channels, se)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        self.act3 = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`, rounded up."""
        hidden = self.act2(self.conv(self.act1(self.narrow(x))))
        out: Tensor = self.act3(self.se(self.widen(hidden)) + self.shortcut(x))
        return out


class ConvNextBlock(nn.Module):
    """Depthwise convolution, layer norm and a two-layer perceptron, residual (ConvNeXt, arXiv:2201.03545).

    A strided convolution halves the map or a 1x1 convolution changes its width first, where needed. The
    learned scale of the branch starts at 0.1, which suits networks of few layers.

    Args:
        kernel: odd size of the depthwise window.
        expansion: hidden channels of the perceptron per channel.
        stride: 1 or 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        expansion: int,
        activation: str,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.embed = make_shortcut(in_channels, out_channels, stride, kernel=3 if stride > 1 else 1)
        self.depthwise = nn.Conv2d(
            out_channels, out_channels, kernel, padding=kernel // 2, groups=out_channels
        )
        self.norm = ChannelNorm(out_channels, image=True)
        self.widen = nn.Conv2d(out_channels, out_channels * expansion, 1)
        self.act = make_activation(activation)
        self.narrow = nn.Conv2d(out_channels * expansion, out_channels, 1)
        self.scale = Scale(out_channels, initial=0.1, image=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`, rounded up."""
        x = self.embed(x)
        hidden = self.act(self.widen(self.norm(self.depthwise(x))))
        out: Tensor = x + self.scale(self.narrow(hidden))
        return out


class PatchEmbed(nn.Module):
    """Patches that don't overlap, each mapped to one pixel: the stem of a vision transformer.

    Args:
        patch: side of a patch.
        padding: rows above and below, columns left and right, that make the sides divisible.
        norm: `batch`, `layer` (over channels) or `none`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        patch: int,
        padding: tuple[int, int] = (0, 0),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        norms: dict[str, nn.Module] = {
            "batch": nn.BatchNorm2d(out_channels),
            "layer": ChannelNorm(out_channels, image=True),
            "none": nn.Identity(),
        }
        self.project = nn.Conv2d(
            in_channels, out_channels, patch, stride=patch, padding=padding, bias=norm != "batch"
        )
        self.norm = norms[norm]

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, ceil(h / patch), ceil(w / patch))`."""
        out: Tensor = self.norm(self.project(x))
        return out


class SpatialReduction(nn.Module):
    """Halves the map between stages of a transformer without cutting the residual path (arXiv:2109.00642).

    A batch-normed strided convolution beside the mean of 2x2 pixels and a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.reduce = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, ceil(h / 2), ceil(w / 2))`."""
        out: Tensor = self.reduce(self.norm(x)) + self.shortcut(self.pool(x))
        return out
