"""What every job begins with: generators at their seeds, the task's arrays, the network."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cambrian.sandbox.protocol import CONTEXT, SPACE, Job
from cambrian.sandbox.worker.channel import Channel
from cambrian.sandbox.worker.training import CandidateError, Data
from cambrian.search_spaces import SPACES, Signature, Space
from cambrian.search_spaces.blocks.graph import set_context
from cambrian.search_spaces.finding import open_folder


def space_of(job: Job, data_folder: Path) -> Space:
    """The space that the job's network is built from: a folder beside the data, or one that is registered."""
    folder = data_folder / SPACE
    return open_folder(folder) if folder.is_dir() else SPACES.create(job.space)


def make_network(space: Space, job: Job, data: Data) -> nn.Module:
    """The job's network under the current seed, on the device of the data, with the task's constants.

    Raises:
        CandidateError: what was built is no module.
    """
    module = space.build(job.genotype, job.signature)
    if not isinstance(module, nn.Module):
        raise CandidateError(f"the space built a {type(module).__name__}, not an nn.Module")
    module = module.to(data.x_train.device)
    if data.context:
        set_context(module, data.context)
    if len(job.signature.input_shape) == 3:
        # channels last: a quarter less time on CPUs, for training and for the latency, in every candidate
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def count_trainable(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def seed_everything(seed: int) -> None:
    """Seed every generator that a candidate may draw from, and ask torch for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # a warning where torch has no deterministic kernel: such a candidate may still be trained
    # (`use_deterministic_algorithms` would set the same, and import torch's compiler first: a CPU second)
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
    torch.backends.cudnn.benchmark = False


def load_data(folder: Path, device: torch.device, channel: Channel) -> Data:
    """The training split and the task's constants as tensors on `device`; the rest comes when asked for.

    On the CPU arrays stay on disk until they are read.
    """

    def read(path: Path) -> Tensor:
        # mode c: private pages, so that torch gets a writable array while the file stays as it is
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)).to(device)

    def ask(name: str) -> Tensor:
        return array_of(*channel.ask(name)).to(device)

    context = {path.stem.removeprefix(CONTEXT): read(path) for path in sorted(folder.glob(f"{CONTEXT}*.npy"))}
    return Data(read(folder / "x_train.npy"), read(folder / "y_train.npy"), ask, context)


def array_of(header: dict[str, Any], content: bytes | bytearray) -> Tensor:
    """The array that came with `header`."""
    flat = np.frombuffer(bytearray(content), dtype=np.dtype(header["dtype"]))
    return torch.from_numpy(flat.reshape(header["shape"]))


def check_outputs(module: nn.Module, inputs: Tensor, signature: Signature) -> None:
    """One small forward pass, so that a wrong shape is named before anything is paid for."""
    module.eval()
    batch = inputs[:2]
    with torch.inference_mode():
        outputs = module(batch)
    expected = (len(batch), signature.n_outputs)
    if not isinstance(outputs, Tensor):
        raise CandidateError(f"forward returns a {type(outputs).__name__}, expected a tensor {expected}")
    if tuple(outputs.shape) != expected:
        raise CandidateError(f"forward returns shape {tuple(outputs.shape)}, expected {expected}")


def some_samples(inputs: Tensor, n: int) -> Tensor:
    """`n` real samples, repeated where there are not enough of them."""
    return inputs[torch.arange(n, device=inputs.device) % len(inputs)]
