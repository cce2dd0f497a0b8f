"""Growth with length: a claimed sub-quadratic mixer that is quadratic is found out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination import growth as module
from cambrian.sandbox.examination.growth import fit, growth, long_run
from cambrian.sandbox.examination.report import Finding

WIDTH = 16


class Mixer(nn.Module):
    """One layer whose perceptron costs far more than its mixer on sequences as long as these."""

    def __init__(self, kind: str, longest: int = 10_000) -> None:
        super().__init__()
        self.kind, self.longest = kind, longest
        self.embed = nn.Embedding(7, WIDTH)
        self.maps = nn.Linear(WIDTH, 3 * WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 512), nn.ReLU(), nn.Linear(512, WIDTH))
        self.head = nn.Linear(WIDTH, 3)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.kind == "softmax":
            return (q @ k.transpose(1, 2)).softmax(-1) @ v
        if self.kind == "fused":
            return functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        if self.kind == "linear":
            return q.softmax(-1) @ (k.softmax(1).transpose(1, 2) @ v)
        if self.kind == "pairs":  # neither a matrix product nor kept: elements only
            return (q.unsqueeze(1) + k.unsqueeze(2)).amax(2) * v
        if self.kind == "sorted":
            return q.sort(1).values * v
        assert self.kind == "outside"  # where no counter of torch's sees it
        pairs = q.detach().numpy() @ k.detach().numpy().transpose(0, 2, 1)
        return torch.from_numpy(pairs @ v.detach().numpy())

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.longest:
            raise IndexError("too long")
        x = self.embed(x)
        x = x + self.mix(*self.maps(x).chunk(3, -1))
        return self.head((x + self.perceptron(x)).mean(1))


def found(kind: str, limit: float | None = None, longest: int = 10_000) -> Finding:
    torch.manual_seed(0)
    return growth(Mixer(kind, longest), torch.randint(0, 7, (1, 40)), limit)


@pytest.mark.parametrize(
    ("kind", "work", "memory"),
    [("softmax", 2, 2), ("fused", 2, 1), ("pairs", 2, 2), ("linear", 1, 1), ("sorted", 1, 1)],
)
def test_the_exponent_is_the_mixer_s_however_small_its_share(kind: str, work: float, memory: float) -> None:
    numbers = found(kind).numbers
    assert (numbers["shortest"], numbers["longest"]) == (64, 1024)
    assert numbers["work_exponent"] == pytest.approx(work, abs=0.05)
    assert numbers["memory_exponent"] == pytest.approx(memory, abs=0.2)
    assert numbers["work_error"] < 0.05


def test_a_claim_of_less_than_quadratic_is_held_to() -> None:
    assert found("softmax").verdict == "passed"  # nothing was claimed
    quadratic = found("fused", 1.5)
    assert quadratic.verdict == "failed" and quadratic.detail.startswith(
        "work outgrows length to the power 1.5"
    )
    assert found("linear", 1.2).verdict == "passed"
    assert found("softmax", 2).verdict == "passed"


def test_short_sequences_tell_too() -> None:
    finding = found("softmax", 1.5, longest=40)
    assert (finding.numbers["shortest"], finding.numbers["longest"]) == (2, 32)
    assert finding.numbers["work_exponent"] == pytest.approx(2, abs=0.05)
    assert finding.verdict == "failed"
    assert found("linear", 1.2, longest=40).verdict == "passed"


def test_one_length_alone_tells_nothing() -> None:
    class OneLength(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(1, 40).float()

    tokens = torch.zeros(1, 40, dtype=torch.long)
    assert growth(OneLength(), tokens, None).verdict == "skipped"
    assert growth(OneLength(), tokens, 1.5).verdict == "failed", "what is demanded has to be shown"


def test_time_tells_where_counting_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the work that the test knows of, so that a busy machine changes nothing."""
    spent = 0.0
    network = Mixer("outside")
    forward = network.forward

    def timed(x: Tensor) -> Tensor:
        nonlocal spent
        spent += 1e-8 * x.shape[1] ** 2
        return forward(x)

    monkeypatch.setattr(network, "forward", timed)
    monkeypatch.setattr(module, "_clock", lambda: spent)
    finding = growth(network, torch.randint(0, 7, (1, 40)), 1.5)
    assert finding.numbers["work_exponent"] == pytest.approx(1, abs=0.05)
    assert finding.numbers["time_exponent"] == pytest.approx(2, abs=0.01)
    assert finding.verdict == "failed" and finding.detail.startswith("time outgrows")


def test_a_network_that_is_slow_is_not_run_on_ever_longer_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 2_000_000)
    assert found("softmax").numbers["longest"] < 1024


def test_exponents_of_known_powers() -> None:
    lengths = [64 << i for i in range(5)]
    assert long_run([5 + 1000 * n + 0.1 * n**2 for n in lengths]).exponent == pytest.approx(2)
    assert long_run([1000 * n + n**1.5 for n in lengths]).exponent == pytest.approx(1.5)
    assert long_run([7 + 3 * n for n in lengths]).exponent == pytest.approx(1)
    assert long_run([n * (n - 1).bit_length() for n in lengths]).exponent == pytest.approx(1)
    assert long_run([7.0 for _ in lengths]).exponent == 0
    assert long_run([float(min(n, 256) * n) for n in lengths]).exponent == pytest.approx(1)
    exact = fit([1, 2, 4], [3, 12, 48])
    assert (exact.exponent, exact.error) == (pytest.approx(2), pytest.approx(0, abs=1e-9))
    assert fit([1, 2, 4], [3, 14, 40]).error > 0.05
