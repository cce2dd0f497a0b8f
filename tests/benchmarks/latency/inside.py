"""What runs in processes of their own: the networks, both ways to time them, the load on the other core."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cambrian.sandbox import Latency, LatencySpec
from cambrian.sandbox.worker.latency import measure
from cambrian.search_spaces import SPACES, Genotype, Signature

SIGNATURE = Signature(input_shape=(3, 48, 48), n_outputs=10)
NAIVE_CALLS, NAIVE_WARMUP = 50, 10


@dataclass(frozen=True)
class Network:
    """A member of a shipped space: a baseline by name, or what `sample` draws from a seed."""

    space: str
    member: str | int

    @property
    def name(self) -> str:
        """As the table shows it."""
        return (
            f"{self.space} {self.member}" if isinstance(self.member, str) else f"{self.space} #{self.member}"
        )

    def genotype(self) -> Genotype:
        """The canonical genotype."""
        space = SPACES.create(self.space)
        if isinstance(self.member, str):
            return space.baselines()[self.member]
        return space.sample(random.Random(self.member))


NETWORKS = (
    Network("grammar", 26),
    Network("grammar", 28),
    Network("convnet", 28),
    Network("convnet", "two-layer-cnn"),
    Network("hybrid", "resnet-like"),
    Network("grammar", "vit-like"),
    Network("convnet", "mobilenetv2-like"),
    Network("hybrid", "coatnet-like"),
    Network("cell", 35),
    Network("cell", "resnet-cell"),
    Network("convnet", 36),
    Network("cell", "dense-cell"),
)
"""From about 0.1 to 20 ms on one core of a server; the nearest neighbours are a tenth apart."""


def build(network: Network) -> tuple[nn.Module, Tensor]:
    """The network as the sandbox builds it, and one sample."""
    torch.manual_seed(0)
    module = SPACES.create(network.space).build(network.genotype(), SIGNATURE)
    module = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module, torch.randn(1, *SIGNATURE.input_shape)


def ours(network: Network, core: int) -> Latency:
    """What the sandbox's worker measures."""
    _pin(core)
    module, sample = build(network)
    return measure(module, sample, LatencySpec(throughput_batch=None))


def naive(network: Network, core: int) -> float:
    """What one would write instead: the mean of some calls, in milliseconds."""
    _pin(core)
    module, sample = build(network)
    with torch.inference_mode():
        for _ in range(NAIVE_WARMUP):
            module(sample)
        start = time.perf_counter()
        for _ in range(NAIVE_CALLS):
            module(sample)
        return (time.perf_counter() - start) / NAIVE_CALLS * 1e3


def load(core: int, parent: int) -> None:
    """Train a network and copy memory on `core` until `parent` is gone, as the slot beside does."""
    _pin(core)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters())
    images, labels = torch.randn(512, 3, 32, 32), torch.randint(10, (512,))
    big = torch.zeros(32 * 2**20)  # 128 MiB: far beyond a core's caches
    step = 0
    while os.getppid() == parent:
        rows = torch.randint(512, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        if step % 4 == 0:
            big = big.clone()


def _pin(core: int) -> None:
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {core})
