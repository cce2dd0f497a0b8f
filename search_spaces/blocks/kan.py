"""Kolmogorov-Arnold layers: a learned function on every edge instead of one weight (arXiv:2404.19756).

These definitions are also printed into exported networks, so they may use torch and one another only.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Basis(nn.Module):
    """Values of fixed functions of one variable, which Kolmogorov-Arnold layers combine.

    All but the Fourier basis live on [-1, 1], where tanh brings any input: a grid of knots needs bounds, and
    those never have to be fitted to the data.

    Args:
        kind: `spline`, cubic B-splines on even knots; `rbf`, Gaussians on an even grid (FastKAN,
            arXiv:2405.06721); `chebyshev`, polynomials (arXiv:2405.07200); `fourier`, sines and cosines.
        grid: intervals of the spline or of the Gaussians' centres, the highest degree, the highest frequency.

    Attributes:
        size: number of functions.
    """

    def __init__(self, kind: str, grid: int) -> None:
        super().__init__()
        self.kind = kind
        self.grid = grid
        self.size = {"spline": grid + 3, "rbf": grid + 1, "chebyshev": grid, "fourier": 2 * grid}[kind]

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to `(..., size)`."""
        if self.kind == "fourier":
            angle = x.unsqueeze(-1) * torch.arange(1, self.grid + 1, device=x.device, dtype=x.dtype)
            return torch.cat([angle.sin(), angle.cos()], dim=-1)
        x = x.tanh().unsqueeze(-1)
        if self.kind == "chebyshev":
            # T_0 is left out: the layer's bias is that constant
            below, last = torch.ones_like(x), x
            values = [last]
            for _ in range(self.grid - 1):
                below, last = last, 2 * x * last - below
                values.append(last)
            return torch.cat(values, dim=-1)
        step = 2 / self.grid
        first = 1 if self.kind == "spline" else 0
        index = torch.arange(self.size, device=x.device, dtype=x.dtype)
        distance = (x - (step * (index - first) - 1)) / step
        if self.kind == "rbf":
            return distance.square().neg().exp()
        # the cubic B-spline around a knot, from its truncated powers
        away = distance.abs()
        return ((2 - away).clamp(min=0) ** 3 - 4 * (1 - away).clamp(min=0) ** 3) / 6


class KANLayer(nn.Module):
    """Kolmogorov-Arnold layer: output j is a bias plus the sum over inputs i of learned functions f_ji(x_i).

    Each f is a weighted SiLU, as in the paper for every basis here, plus a weighted sum of the basis.

    Args:
        basis: `spline`, `rbf`, `chebyshev` or `fourier`; see `Basis`.
        grid: resolution of the basis.
    """

    def __init__(self, in_channels: int, out_channels: int, *, basis: str, grid: int) -> None:
        super().__init__()
        self.base = nn.Linear(in_channels, out_channels)
        self.basis = Basis(basis, grid)
        self.curves = nn.Linear(in_channels * self.basis.size, out_channels, bias=False)
        # starts near the base function, as in the paper: curves are a small disturbance of it
        nn.init.normal_(self.curves.weight, std=0.3 / math.sqrt(in_channels * self.basis.size))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in_channels)` to `(..., out_channels)`."""
        out: Tensor = self.base(functional.silu(x)) + self.curves(self.basis(x).flatten(-2))
        return out
