"""The space `convnet`: staged convolutional and attention networks for images."""

from cambrian.search_spaces.convnet.space import ConvNetSpace

__all__ = ["ConvNetSpace"]
