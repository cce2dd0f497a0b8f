"""Building blocks that declarative spaces share: plain torch modules on images."""

from cambrian.search_spaces.blocks.attention import AttentionBlock, PooledAttention
from cambrian.search_spaces.blocks.convolution import (
    ConvBlock,
    ConvNorm,
    InvertedBlock,
    ResidualBlock,
    SeparableBlock,
    SqueezeExcite,
    make_activation,
)
from cambrian.search_spaces.blocks.pooling import GlobalPool, GridPool

__all__ = [
    "AttentionBlock",
    "ConvBlock",
    "ConvNorm",
    "GlobalPool",
    "GridPool",
    "InvertedBlock",
    "PooledAttention",
    "ResidualBlock",
    "SeparableBlock",
    "SqueezeExcite",
    "make_activation",
]
