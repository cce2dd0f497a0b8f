"""Space folders that tests write."""

from __future__ import annotations

from pathlib import Path

SPACE = """
name: {name}
version: "1"
title: Perceptrons of a test
about: Flat images through {block} layers.
tasks: [digits]
reference: {{input_shape: [1, 8, 8], n_outputs: 10}}
rules:
  network:
    fields:
      width: {{choice: [8, 16, 32], about: hidden features}}
      depth: {{integer: [1, 4], about: hidden layers}}
      activation: {{choice: [relu, silu, gelu, tanh], about: after each}}
    build:
      - Flatten
      - repeat: depth
        body:
          - {block}: {{out: =width}}
          - Activation: {{name: =activation}}
      - Linear: {{out: =n_outputs}}
baselines:
  plain: {{genotype: {{width: 16, depth: 1, activation: relu}}}}
"""
BLOCKS = '''
import torch
from torch import Tensor, nn


class Doubled(nn.Module):
    """A linear map whose input is doubled."""

    def __init__(self, in_channels: int, out: int) -> None:
        super().__init__()
        self.map = nn.Linear(in_channels, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(2 * x)
'''


def write_space(folder: Path, name: str | None = None, custom: bool = False) -> Path:
    """A small space in `folder`, made of a block of its own when `custom`; its name is the folder's."""
    (folder / "prompts").mkdir(parents=True)
    (folder / "knowledge").mkdir()
    text = SPACE.format(name=name or folder.name, block="Doubled" if custom else "Linear")
    (folder / "space.yaml").write_text(text)
    if custom:
        (folder / "blocks.py").write_text(BLOCKS)
    return folder
