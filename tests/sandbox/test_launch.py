"""What a keeper has done before its job comes, and what it is spared."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from cambrian.sandbox.worker.training import uncompiled


def test_making_ready_and_training_import_no_compiler() -> None:
    """It would cost every container a CPU second and 90 MB."""
    code = (
        "import sys, torch\n"
        "from cambrian.sandbox.worker.execute import seed_everything\n"
        "from cambrian.sandbox.worker.launch import warm_up\n"
        "from cambrian.sandbox.worker.training import make_optimizer\n"
        "from cambrian.search_spaces import Recipe\n"
        "warm_up()\n"
        "seed_everything(0)\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "assert torch.is_deterministic_algorithms_warn_only_enabled()\n"
        "for name in ('adamw', 'adam', 'sgd'):\n"
        "    layer = torch.nn.Linear(2, 1)\n"
        "    optimizer = make_optimizer(layer, Recipe(optimizer=name))\n"
        "    layer(torch.ones(1, 2)).sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.Adam, {}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_optimizers_without_their_wrappers_give_the_same_bits(kind: Any, options: dict[str, Any]) -> None:
    found = []
    for made in (kind, uncompiled(kind)):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 3)
        optimizer = made(layer.parameters(), lr=0.1, fused=True, **options)
        assert isinstance(optimizer, kind)
        for _ in range(4):
            layer(torch.randn(5, 8)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert layer.weight.grad is None
        found.append(layer.weight.detach().clone())
    assert torch.equal(*found)
