"""The reference network: timed in turns with each candidate, so that latencies survive a busy machine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NAME = "conv-1"
"""Name and version. Whatever changes its time needs a new one: ratios to it are kept with candidates."""
INPUT_SHAPE = (1, 16, 28, 28)


def reference(device: torch.device) -> tuple[nn.Module, Tensor]:
    """The network in eval mode and the inputs it is called with, both on `device`.

    It does what candidates do, in small: convolutions that live on arithmetic, elementwise work and calls
    that live on the interpreter, and a linear map whose weights (4 MiB) come from beyond a core's own cache.
    So a lower clock, a busy memory bus or a stolen core slows it down about as it slows them. It depends on
    nothing but its version: weights and inputs are made by a generator of its own, and the global one is
    left as it is.

    Returns:
        The network, and inputs of `INPUT_SHAPE` in channels-last order.
    """
    with torch.device("meta"):  # no memory, no random numbers
        network = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, groups=32),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 336),
            nn.ReLU(),
            nn.Linear(336, 10),
        )
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.fill_(1.0)
        elif value.is_floating_point():
            # of unit variance through the network: no value ever gets near the slow, denormal ones
            fan_in = value[0].numel() if value.ndim > 1 else 100
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5)
        else:
            value.zero_()
    inputs = torch.randn(INPUT_SHAPE, generator=generator)
    channels_last = torch.channels_last
    return (
        network.to(device).to(memory_format=channels_last),  # type: ignore[call-overload]
        inputs.to(device).contiguous(memory_format=channels_last),
    )
