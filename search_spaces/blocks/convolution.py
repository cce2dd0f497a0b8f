"""Convolutional blocks on images of shape `(n, channels, height, width)`.

Every block keeps the map's size at stride 1 and halves it, rounding up, at stride 2. These definitions are
also printed into exported networks, so they may use torch and one another only.
"""

from torch import Tensor, nn


class Sine(nn.Module):
    """The sine of every number."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.sin()


class SquaredReLU(nn.Module):
    """The square of what is positive (Primer, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.clamp(min=0).square()


def make_activation(name: str) -> nn.Module:
    """The activation called `name`, one of the keys below."""
    kinds: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "hardswish": nn.Hardswish,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "elu": nn.ELU,
        "leaky-relu": nn.LeakyReLU,
        "relu6": nn.ReLU6,
        "softplus": nn.Softplus,
        "sine": Sine,
        "squared-relu": SquaredReLU,
        "identity": nn.Identity,
    }
    return kinds[name]()


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, ceil(h / stride), ceil(w / stride))`."""
        out: Tensor = self.norm(self.conv(x))
        return out


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (Hu et al. 2018, arXiv:1709.01507).

    Args:
        channels: channels of the map.
        hidden: width of the gate's bottleneck.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """The gated map, same shape."""
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


def make_gate(channels: int, hidden: int) -> nn.Module:
    """A squeeze-excite gate of width `hidden`; 0 means none."""
    return SqueezeExcite(channels, hidden) if hidden else nn.Identity()


def make_shortcut(in_channels: int, out_channels: int, stride: int, kernel: int = 1) -> nn.Module:
    """What makes a map fit a block's output: nothing where the shapes agree, else a normed convolution."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, kernel=kernel, stride=stride)


class ConvBlock(nn.Module):
    """Convolution, batch norm, activation; smaller maps come from a stride or from max-pooling.

    Args:
        kernel: odd size of the window.
        stride: of the convolution.
        pool: window and stride of the max-pooling at the end; 1 means none.
        se: hidden width of the squeeze-excite gate; 0 means none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        activation: str,
        stride: int = 1,
        pool: int = 1,
        se: int = 0,
    ) -> None:
        super().__init__()
        self.body = ConvNorm(in_channels, out_channels, kernel=kernel, stride=stride)
        self.act = make_activation(activation)
        self.se = make_gate(out_channels, se)
        self.pool = nn.MaxPool2d(pool, ceil_mode=True) if pool > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride * pool`."""
        out: Tensor = self.pool(self.se(self.act(self.body(x))))
        return out


class SeparableBlock(nn.Module):
    """Depthwise then pointwise convolution, each with norm and activation (MobileNet, arXiv:1704.04861).

    Args:
        kernel: odd size of the depthwise window.
        stride: of the depthwise convolution.
        se: hidden width of the squeeze-excite gate between the two; 0 means none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        activation: str,
        stride: int = 1,
        se: int = 0,
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(in_channels, in_channels, kernel=kernel, stride=stride, groups=in_channels)
        self.act1 = make_activation(activation)
        self.se = make_gate(in_channels, se)
        self.pointwise = ConvNorm(in_channels, out_channels)
        self.act2 = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`."""
        x = self.se(self.act1(self.depthwise(x)))
        out: Tensor = self.act2(self.pointwise(x))
        return out


class InvertedBlock(nn.Module):
    """Inverted bottleneck: expand, depthwise, gate, project (MobileNetV2, V3; arXiv:1801.04381, 1905.02244).

    The input is added to the output wherever their shapes agree.

    Args:
        kernel: odd size of the depthwise window.
        expansion: hidden channels per input channel; 1 leaves the expanding convolution out.
        stride: of the depthwise convolution.
        se: hidden width of the squeeze-excite gate; 0 means none.
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
        se: int = 0,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.skip = stride == 1 and in_channels == out_channels
        self.expand = ConvNorm(in_channels, hidden) if expansion > 1 else nn.Identity()
        self.act1 = make_activation(activation) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden)
        self.act2 = make_activation(activation)
        self.se = make_gate(hidden, se)
        self.project = ConvNorm(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`."""
        hidden = self.act2(self.depthwise(self.act1(self.expand(x))))
        out: Tensor = self.project(self.se(hidden))
        return x + out if self.skip else out


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2015, arXiv:1512.03385, basic block).

    The shortcut is a strided 1x1 convolution where the shapes differ.

    Args:
        kernel: odd size of both windows.
        stride: of the first convolution.
        se: hidden width of the squeeze-excite gate before the sum; 0 means none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        activation: str,
        stride: int = 1,
        se: int = 0,
    ) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, kernel=kernel, stride=stride)
        self.act1 = make_activation(activation)
        self.second = ConvNorm(out_channels, out_channels, kernel=kernel)
        self.se = make_gate(out_channels, se)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        self.act2 = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `out_channels`, each side divided by `stride`."""
        body = self.se(self.second(self.act1(self.first(x))))
        out: Tensor = self.act2(body + self.shortcut(x))
        return out
