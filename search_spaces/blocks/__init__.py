"""Building blocks that declarative spaces share: plain torch modules."""

from cambrian.search_spaces.blocks.attention import AttentionBlock, MapWindowAttention, PooledAttention
from cambrian.search_spaces.blocks.cells import CellConv, CellPool, CellReduction, Zero
from cambrian.search_spaces.blocks.convolution import (
    ConvBlock,
    ConvNorm,
    InvertedBlock,
    ResidualBlock,
    SeparableBlock,
    SqueezeExcite,
    make_activation,
)
from cambrian.search_spaces.blocks.pooling import GlobalPool, GridPool, Pool
from cambrian.search_spaces.blocks.primitives import (
    BatchNorm,
    ChannelNorm,
    Pointwise,
    PositionalEncoding,
    Scale,
    Softmax,
    TokenMix,
    TokenScores,
    Unfold,
)
from cambrian.search_spaces.blocks.vision import BottleneckBlock, ConvNextBlock, PatchEmbed, SpatialReduction

__all__ = [
    "AttentionBlock",
    "BatchNorm",
    "BottleneckBlock",
    "CellConv",
    "CellPool",
    "CellReduction",
    "ChannelNorm",
    "ConvBlock",
    "ConvNextBlock",
    "ConvNorm",
    "GlobalPool",
    "GridPool",
    "InvertedBlock",
    "MapWindowAttention",
    "PatchEmbed",
    "Pointwise",
    "Pool",
    "PooledAttention",
    "PositionalEncoding",
    "ResidualBlock",
    "Scale",
    "SeparableBlock",
    "Softmax",
    "SpatialReduction",
    "SqueezeExcite",
    "TokenMix",
    "TokenScores",
    "Unfold",
    "Zero",
    "make_activation",
]
