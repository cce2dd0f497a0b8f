"""What is special to mlp: sizes of Kolmogorov-Arnold networks, families of activations, curves that win."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from cambrian.search_spaces import SPACES, TASKS, Signature
from cambrian.search_spaces.blocks.dense import MixedActivation, SelectiveActivation
from cambrian.search_spaces.blocks.kan import KANLayer
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace

SPACE = SPACES.create("mlp")
assert isinstance(SPACE, DeclarativeSpace)


def network(*layers: dict[str, Any], output: dict[str, Any] | None = None) -> dict[str, Any]:
    made = {"embedding": {"kind": "none"}, "layers": list(layers), "output": output or {"kind": "linear"}}
    return SPACE.validate(made)


@pytest.mark.parametrize("arguments", [1, 2, 17])
@pytest.mark.parametrize("grid", [3, 5, 12])
def test_a_spline_network_has_the_papers_coefficients(arguments: int, grid: int) -> None:
    """[n, 5, 1] has G + k for each of its 5 n + 5 edges (arXiv:2404.19756, section 2; k = 3 here)."""
    spline = {"kind": "kan", "basis": "spline", "grid": grid}
    design = network({**spline, "width": 5}, output=spline)
    signature = Signature(input_shape=(arguments,), n_outputs=1)
    parts = [part for part in SPACE.build(design, signature).modules() if isinstance(part, KANLayer)]
    edges = 5 * arguments + 5
    assert sum(part.curves.weight.numel() for part in parts) == edges * (grid + 3)
    # beside the splines: the weight of the SiLU on each edge, and a constant for each unit
    assert plan(SPACE.definition, design, signature).params == edges * (grid + 4) + 5 + 1


def test_families_share_the_units_or_each_unit_mixes_them() -> None:
    signature = Signature(input_shape=(3,), n_outputs=2)
    for activation, kind in (("tanh+sine", MixedActivation), ("tanh/sine", SelectiveActivation)):
        module = SPACE.build(network({"kind": "dense", "width": 8, "activation": activation}), signature)
        found = [part for part in module.modules() if isinstance(part, MixedActivation | SelectiveActivation)]
        assert [type(part) for part in found] == [kind]
        x = torch.linspace(-2, 2, 8).expand(2, 8)
        out = found[0](x)
        if kind is MixedActivation:
            assert torch.equal(out, torch.cat([x[:, :4].tanh(), x[:, 4:].sin()], dim=1))
        else:
            torch.testing.assert_close(out, (x.tanh() + x.sin()) / 2)


def test_a_gated_layer_multiplies() -> None:
    """Two units' product of linear maps holds x y exactly: (x + y)^2 - (x - y)^2 is 4 x y."""
    design = network({"kind": "dense", "width": 4, "activation": "relu+identity", "gated": True})
    module = SPACE.build(design, Signature(input_shape=(2,), n_outputs=1))
    weights = [p for p in module.parameters() if p.ndim == 2]
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
        plus_minus = torch.tensor(
            [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, -1.0]]
        )  # identity has units 3, 4
        weights[0].copy_(plus_minus)
        weights[1].copy_(plus_minus)
        weights[2].copy_(torch.tensor([[0.0, 0.0, 0.25, -0.25]]))
    x = torch.randn(16, 2)
    torch.testing.assert_close(module(x)[:, 0], x[:, 0] * x[:, 1])


def fitted(name: str, epochs: int) -> tuple[float, int]:
    """Validation rmse of a baseline on the function of runs/mlp.yaml, and its size."""
    task = TASKS.create("functions", function="waves", metric="rmse")
    design = SPACE.baselines()[name]
    splits = task.load()
    torch.manual_seed(0)
    module = SPACE.build(design, task.signature)
    x, y = torch.from_numpy(splits.x_train), torch.from_numpy(splits.y_train)
    steps = epochs * len(x) // 50
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in range(steps):
        batch = torch.randint(len(x), (50,))
        optimizer.zero_grad()
        functional.mse_loss(module(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        outputs = module.eval()(torch.from_numpy(splits.x_val)).numpy()
    return task.score(outputs, "val")["rmse"], plan(SPACE.definition, design, task.signature).params


def test_curves_beat_weights_on_a_function_at_a_tenth_of_the_size() -> None:
    (curves, small), (weights, large) = fitted("kan-deep", 25), fitted("perceptron", 25)
    assert small < large / 10
    assert curves < 0.8 * weights, (curves, weights)
