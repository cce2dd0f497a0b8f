"""Behaviour checks on networks that break one rule each, and on one that breaks none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination.behaviour import check_behaviour
from cambrian.sandbox.examination.counting import count, counted_facts
from cambrian.sandbox.examination.report import CHECKS, ExamineSpec, Finding
from cambrian.sandbox.examination.subject import Subject
from cambrian.search_spaces import Signature

IMAGES = Signature(input_shape=(1, 8, 8), n_outputs=3)


class Plain(nn.Module):
    """Breaks no rule; others change one method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.stem(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class TooFew(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


class Squeezed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class OnlyMany(Plain):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 1, "one is not enough"
        return super().forward(x)


class OneSize(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6 * 64, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.stem(x).flatten(1)


class Infinite(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / torch.zeros(())


class BrokenGradient(Plain):
    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs + 0 * (self.head.weight.sum() * 0).sqrt()


class Detached(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Unused(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)


class Neighbours(Plain):
    def features(self, x: Tensor) -> Tensor:
        found = super().features(x)
        return found - found.mean(0)


class NeighboursHidden(Neighbours):
    """As above, behind a last layer that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class LooksAtTheRest(Plain):
    """Depends on others only where they are far from ordinary."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x.abs().max() > 5).float()


class Random(Plain):
    def features(self, x: Tensor) -> Tensor:
        return functional.dropout(super().features(x), 0.5, training=True)


class RandomNeighbours(Random):
    def features(self, x: Tensor) -> Tensor:
        found = super().features(x)
        return found - found.mean(0)


class Counts(Plain):
    """Remembers how often it was called."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class Seedless(Plain):
    built = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).built += 1
        nn.init.constant_(self.head.bias, self.built)


class Twofold(Plain):
    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs if self.training else -outputs


def subject(build: Callable[[], nn.Module], signature: Signature = IMAGES) -> Subject:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((16, *signature.input_shape), generator=generator)
    return Subject(build, signature, inputs, torch.arange(16) % signature.n_outputs)


def check(build: Callable[[], nn.Module]) -> dict[str, Finding]:
    findings = check_behaviour(subject(build), ExamineSpec())
    assert [f.check for f in findings] == [name for name in CHECKS if name in {f.check for f in findings}]
    return {finding.check: finding for finding in findings}


def test_a_network_that_breaks_no_rule_passes_all() -> None:
    before = torch.get_rng_state()
    found = check(Plain)
    assert {finding.verdict for finding in found.values()} == {"passed"}
    assert found.keys() == set(CHECKS) - {"causality", "growth"}
    assert found["input-sizes"].detail == "also takes 4x4 and 12x12"
    assert found["batch-independence"].numbers["difference"] < 1e-5
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("network", "rule", "verdict", "words"),
    [
        (TooFew, "output-shape", "failed", "for 5 samples the output has shape (5, 2), not (5, 3)"),
        (Squeezed, "output-shape", "failed", "for 1 samples the output has shape (3,), not (1, 3)"),
        (
            OnlyMany,
            "output-shape",
            "failed",
            "cannot take a single sample: AssertionError: one is not enough",
        ),
        (OneSize, "input-sizes", "noted", "does not take 4x4 or 12x12"),
        (Infinite, "finite", "failed", "not finite in eval mode"),
        (BrokenGradient, "finite", "failed", "gradients are not finite: head.weight"),
        (Detached, "gradients", "failed", "no parameter gets a gradient"),
        (Unused, "gradients", "noted", "2 of 8 parameter tensors get no gradient: spare.weight, spare.bias"),
        (Neighbours, "batch-independence", "failed", "do not compute with statistics of the batch"),
        (NeighboursHidden, "batch-independence", "failed", "in eval mode"),
        (LooksAtTheRest, "batch-independence", "failed", "with other neighbours"),
        (Random, "determinism", "noted", "two passes in eval mode differ by"),
        (RandomNeighbours, "batch-independence", "failed", "with other neighbours"),
        (Counts, "determinism", "noted", "two training passes from one seed differ by"),
        (Seedless, "determinism", "noted", "built from one seed have other weights (head.bias)"),
        (Twofold, "train-eval", "noted", "between training and eval mode by 2 of"),
    ],
)
def test_who_breaks_a_rule_is_found_out(
    network: type[nn.Module], rule: str, verdict: str, words: str
) -> None:
    found = check(network)
    assert (found[rule].verdict, words in found[rule].detail) == (verdict, True), found[rule]
    faults = {name for name, finding in found.items() if finding.verdict == "failed"}
    assert faults == ({rule} if verdict == "failed" else set())


def test_randomness_alone_is_no_dependence_on_neighbours() -> None:
    assert check(Random)["batch-independence"].verdict == "passed"


def test_statistics_of_batches_are_no_difference_between_the_modes() -> None:
    found = check(Plain)["train-eval"]
    assert found.numbers["difference"] < 0.05


def test_what_the_network_raises_is_its_own_error() -> None:
    class Raises(Plain):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("by nobody")

    with pytest.raises(ZeroDivisionError, match="by nobody"):
        check(Raises)


def test_values_are_checked_with_their_own_loss() -> None:
    signature = Signature(input_shape=(4,), n_outputs=2)
    network = nn.Linear(4, 2)
    values = Subject(lambda: network, signature, torch.randn(6, 4), torch.randn(6, 2), "squared-error")
    found = {f.check: f for f in check_behaviour(values, ExamineSpec(sequence=True))}
    assert {f.verdict for f in found.values()} == {"passed"}
    assert not {"input-sizes", "causality", "growth"} & found.keys()


def test_work_of_a_pass_is_counted_below_autograd() -> None:
    network = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    counted = count(network, torch.ones(3, 4))
    assert counted.flops == 2 * 3 * (4 * 8 + 8 * 2)
    assert counted.largest == 4 * 3 * 8 and counted.kept >= 4 * 3 * 8


def test_facts_of_a_network_that_looks_at_numbers_are_those_of_the_static_check() -> None:
    from cambrian.sandbox.examination.static import static_check

    with torch.device("meta"):
        expected = static_check(Plain().train(), IMAGES, 32)
    found = counted_facts(Plain().train(), torch.randn(2, 1, 8, 8), IMAGES, 32)
    assert (found.parameters, found.flops, found.depth) == (
        expected.parameters,
        expected.flops,
        expected.depth,
    )
    assert found.peak_memory_mb == pytest.approx(expected.peak_memory_mb, rel=0.5)
