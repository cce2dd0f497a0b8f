"""A space whose trainings last a given time; lives inside sandboxes only, as a plugin."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn


class Busy(nn.Module):
    """Computes convolutions in each training step until its share of the time is over, and counts them.

    So a training lasts as long as it should whatever else runs on its cores; how much it got done in that
    time is in the buffer `done`, which comes back with the weights.

    Args:
        classes: outputs.
        seconds: that a training lasts.
        steps: training steps that there will be.
    """

    def __init__(self, classes: int, seconds: float, steps: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))
        self.register_buffer("image", torch.ones(8, 16, 16, 16), persistent=False)
        self.register_buffer("kernel", torch.ones(16, 16, 3, 3) / 144, persistent=False)
        self.share = seconds / steps
        self.until: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.until = (self.until or time.monotonic()) + self.share
            with torch.no_grad():
                while time.monotonic() < self.until:
                    nn.functional.conv2d(self.image, self.kernel, padding=1)
                    self.done += 1
        return self.layer(x)


class BusySpace:
    """Genotype: `{"seconds": of training, "steps": of training}`."""

    name = "busy"

    def build(self, genotype: dict[str, Any], signature: Any) -> nn.Module:
        return Busy(signature.n_outputs, genotype["seconds"], genotype["steps"])
