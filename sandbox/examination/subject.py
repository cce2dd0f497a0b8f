"""The network under examination, the samples that it is run on, and how its outputs are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination.report import Finding
from cambrian.search_spaces import Loss, Signature

SEED = 17
SAMPLES = 8
"""Samples of a check that needs a batch."""


@dataclass(frozen=True)
class Subject:
    """What is examined.

    Attributes:
        build: gives the network, freshly initialised under torch's current seed, on the CPU.
        signature: what it takes and gives.
        inputs: at least one real sample, `(n, *input_shape)`.
        targets: of these samples, `(n,)` or `(n, n_outputs)`.
        loss: what training minimises.
    """

    build: Callable[[], nn.Module]
    signature: Signature
    inputs: Tensor
    targets: Tensor
    loss: Loss = "cross-entropy"

    def samples(self, n: int) -> Tensor:
        """`n` inputs, repeated where there are not enough."""
        return self.inputs[torch.arange(n) % len(self.inputs)]

    def fresh(self) -> nn.Module:
        """A network with the initial weights of the checks' seed, in training mode."""
        torch.manual_seed(SEED)
        return self.build().train()

    def step(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Outputs and loss of a training pass over `SAMPLES` samples; gradients are in the parameters."""
        module.train()
        for parameter in module.parameters():
            parameter.grad = None
        torch.manual_seed(SEED)
        outputs = module(self.samples(SAMPLES)).float()
        targets = self.targets[torch.arange(SAMPLES) % len(self.targets)]
        of_loss = functional.cross_entropy if self.loss == "cross-entropy" else functional.mse_loss
        loss = of_loss(outputs, targets)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return outputs.detach(), loss.detach()


def shake(module: nn.Module) -> None:
    """Move every weight by a tenth of the spread of its tensor, as some steps of training would."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point():
                continue
            spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
            if not spread > 0:
                spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 and parameter.numel() else 1.0
            moves = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            parameter.add_(0.1 * spread * moves)


def evaluated(module: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs in eval mode, from one and the same state of torch's generator."""
    module.eval()
    torch.manual_seed(SEED)
    with torch.no_grad():
        outputs: Tensor = module(inputs)
    return outputs


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, by the largest of `theirs`."""
    size = float(theirs.abs().max()) if theirs.numel() else 0.0
    return float((ours - theirs).abs().max()) / max(size, 1e-12) if theirs.numel() else 0.0


def failed(check: str, detail: str, **numbers: float) -> Finding:
    """A finding that ends a candidate."""
    return Finding(check=check, verdict="failed", detail=one_line(detail), numbers=numbers)


def one_line(text: str, limit: int = 380) -> str:
    """`text` as a finding may hold it."""
    shown = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def strange(samples: Tensor, signature: Signature) -> Tensor:
    """Other inputs of the same shape, far from the real ones."""
    if signature.n_ids is not None:
        return (samples * 7 + 3) % signature.n_ids
    return 10 * samples.flip(0) + 1
