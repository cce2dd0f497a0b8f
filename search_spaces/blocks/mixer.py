"""What mixes the positions of a sequence `(n, length, channels)`: kinds of attention, convolution, Fourier.

All keep the shape and have neither norm nor shortcut: layouts add those. These definitions are also printed
into exported networks, so they may use torch and one another only.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`(n, length, heads * size)` to `(n, heads, length, size)`."""
    return torch.unflatten(x, 2, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """`(n, heads, length, size)` to `(n, length, heads * size)`."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head softmax attention from every position to every position (arXiv:1706.03762).

    Args:
        heads: number of heads.
        head_dim: channels of a head; 0 takes `channels / heads`.
        similarity: `dot`, or `multiplicative`: a learned matrix of each head stands between query and key, as
            in some layers of FlexiBERT (arXiv:2205.11656).
        causal: positions see none that come later.
    """

    def __init__(
        self, channels: int, *, heads: int, head_dim: int = 0, similarity: str = "dot", causal: bool = False
    ) -> None:
        super().__init__()
        size = head_dim or channels // heads
        self.heads = heads
        self.causal = causal
        self.inputs = nn.Linear(channels, 3 * heads * size)
        self.between = None
        if similarity == "multiplicative":
            self.between = nn.Parameter(torch.eye(size).repeat(heads, 1, 1))
        self.project = nn.Linear(heads * size, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The attended sequence, same shape."""
        query, key, value = (split_heads(part, self.heads) for part in self.inputs(x).chunk(3, dim=2))
        if self.between is not None:
            query = query @ self.between
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: Tensor = self.project(join_heads(mixed))
        return out


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the length: softmax becomes a product of features (arXiv:2006.16236).

    Args:
        heads: number of heads; must divide `channels`.
    """

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The attended sequence, same shape."""
        query, key, value = (split_heads(part, self.heads) for part in self.inputs(x).chunk(3, dim=2))
        query, key = functional.elu(query) + 1, functional.elu(key) + 1
        memory = key.transpose(2, 3) @ value
        weight = (query * key.sum(2, keepdim=True)).sum(3, keepdim=True)
        out: Tensor = self.project(join_heads(query @ memory / (weight + 1e-6)))
        return out


class WindowAttention(nn.Module):
    """Softmax attention to the neighbours: positions at most `window` away (Longformer, arXiv:2004.05150).

    Long sequences are cut into chunks of `window`, each of which looks at itself and the chunks beside it, so
    that the cost is linear in the length. Those of up to three windows are masked whole, which is cheaper.

    Args:
        heads: number of heads; must divide `channels`.
        window: positions that are seen on either side.
    """

    def __init__(self, channels: int, *, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.inputs = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The attended sequence, same shape."""
        length, window = x.shape[1], self.window
        query, key, value = (split_heads(part, self.heads) for part in self.inputs(x).chunk(3, dim=2))
        place = torch.arange(length, device=x.device)
        if length <= 3 * window:
            near = (place.unsqueeze(1) - place).abs() <= window
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=near)
            whole: Tensor = self.project(join_heads(mixed))
            return whole
        chunks = math.ceil(length / window)
        spare = chunks * window - length
        # (n, heads, chunks, window, size), and the same with three windows of keys
        query = torch.unflatten(functional.pad(query, (0, 0, 0, spare)), 2, (chunks, window))
        key = self.beside(key, spare)
        value = self.beside(value, spare)
        asks = torch.arange(chunks * window, device=x.device).reshape(chunks, window)
        sees = asks[:, :1] + torch.arange(-window, 2 * window, device=x.device)
        near = (asks.unsqueeze(2) - sees.unsqueeze(1)).abs() <= window
        near = near & (sees >= 0).unsqueeze(1) & (sees < length).unsqueeze(1)
        # the padding asks too, and a softmax over nothing is no number: it sees itself
        near = near | (asks.unsqueeze(2) == sees.unsqueeze(1))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=near)
        out: Tensor = self.project(join_heads(mixed.flatten(2, 3)[:, :, :length]))
        return out

    def beside(self, x: Tensor, spare: int) -> Tensor:
        """Every chunk between its neighbours.

        Maps `(n, heads, length, size)` to `(n, heads, chunks, 3 * window, size)`, zeros beyond the ends.
        """
        padded = functional.pad(x, (0, 0, self.window, spare + self.window))
        return padded.unfold(2, 3 * self.window, self.window).transpose(3, 4)


class SequenceConv(nn.Module):
    """Depthwise convolution in time, then a linear map of the channels.

    Args:
        kernel: odd size of the window.
        dilation: steps between the inputs of a window.
    """

    def __init__(self, channels: int, *, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=channels
        )
        self.pointwise = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The convolved sequence, same shape."""
        out: Tensor = self.pointwise(self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        return out


class SpanConv(nn.Module):
    """Span-based dynamic convolution: its kernels come from the input (ConvBERT, arXiv:2008.02496).

    The kernel of a head at a position is a softmax of a linear map of query times key, where the key is a
    separable convolution of the neighbourhood.

    Args:
        heads: number of kernels at a position; must divide `channels`.
        kernel: odd size of the window.
    """

    def __init__(self, channels: int, *, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.kernel = kernel
        self.inputs = nn.Linear(channels, 2 * channels)
        self.span = SequenceConv(channels, kernel=kernel)
        self.weigh = nn.Linear(channels, heads * kernel)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The convolved sequence, same shape."""
        query, value = self.inputs(x).chunk(2, dim=2)
        weights = split_heads(self.weigh(query * self.span(x)), self.heads).softmax(3)
        side = self.kernel // 2
        # (n, heads, length, size, kernel)
        spans = functional.pad(split_heads(value, self.heads), (0, 0, side, side)).unfold(2, self.kernel, 1)
        out: Tensor = self.project(join_heads((spans * weights.unsqueeze(3)).sum(4)))
        return out


class Fourier(nn.Module):
    """Mixes positions and channels by a fixed transform without parameters (FNet, arXiv:2105.03824).

    Transforms are scaled to keep the sum of squares, so that a shortcut beside them keeps its weight.

    Args:
        kind: `fourier`, the real part of the discrete Fourier transform over both dimensions; `cosine`, the
            discrete cosine transform over both.
    """

    def __init__(self, *, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """The transformed sequence, same shape."""
        if self.kind == "fourier":
            mixed: Tensor = torch.fft.fft2(x, norm="ortho").real
            return mixed
        return self.cosine(self.cosine(x).transpose(1, 2)).transpose(1, 2)

    def cosine(self, x: Tensor) -> Tensor:
        """The orthonormal discrete cosine transform of the last dimension."""
        size = x.shape[-1]
        mirrored: Tensor = torch.fft.fft(torch.cat([x, x.flip(-1)], dim=-1))[..., :size]
        angle = torch.arange(size, device=x.device, dtype=x.dtype) * (-math.pi / (2 * size))
        waves = mirrored.real * angle.cos() - mirrored.imag * angle.sin()
        scale = torch.full((size,), math.sqrt(1 / (2 * size)), device=x.device, dtype=x.dtype)
        scale[0] = math.sqrt(1 / (4 * size))
        return waves * scale
