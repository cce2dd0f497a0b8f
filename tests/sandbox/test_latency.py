"""Latency, throughput and memory of real networks, in this process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import timeit

import pytest
import torch
from torch import Tensor, nn

from cambrian.sandbox import LatencySpec
from cambrian.sandbox.worker.latency import (
    BLOCK_S,
    ROUNDS,
    WIDE,
    device_name,
    measure,
    peak_memory_mb,
)
from cambrian.sandbox.worker.reference import NAME, reference

QUICK = LatencySpec(warmup=3, repeats=4, throughput_batch=None)
MIB = 2**18
"""Float32 values in one MiB."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Witness:
    """Notes what it is told, and when."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.seconds: list[float] = []
        self._begun: float | None = None

    def begin(self, calls: int) -> None:
        assert self._begun is None
        self.calls.append(calls)
        self._begun = time.perf_counter()

    def end(self) -> None:
        assert self._begun is not None
        self.seconds.append(time.perf_counter() - self._begun)
        self._begun = None


class Counting(nn.Module):
    """Sleeps, and counts its calls."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training or torch.is_grad_enabled() or gc.isenabled())
        time.sleep(self.seconds)
        return x


def test_the_parts_of_a_latency_agree() -> None:
    latency = measure(nn.Linear(64, 64), torch.rand(2, 64), LatencySpec(batch=2, repeats=6), bulk=torch.rand)
    assert 0 < latency.q1_ms <= latency.median_ms <= latency.q3_ms
    assert latency.device == device_name(torch.device("cpu")) != ""
    assert (latency.threads, latency.batch, latency.repeats) == (1, 2, 6)
    assert latency.noisy == (latency.q3_ms > WIDE * latency.q1_ms)
    assert latency.reference == NAME and latency.reference_ms is not None and latency.ratio is not None
    # a median of ratios is near the ratio of medians; a linear map is far quicker than the reference
    assert 0.1 < latency.ratio / (latency.median_ms / latency.reference_ms) < 10
    assert latency.ratio < 0.5
    assert latency.alone is False


def test_calls_are_in_eval_mode_without_gradients_and_garbage_collection() -> None:
    module = Counting().train()
    assert gc.isenabled()
    measure(module, torch.rand(1), QUICK)
    assert module.modes and not any(module.modes)
    assert gc.isenabled()


def test_known_times_are_found() -> None:
    latency = measure(Counting(0.005), torch.rand(1), QUICK, bulk=lambda n: torch.rand(n))
    assert 5 <= latency.median_ms < 50
    assert latency.throughput is None is latency.throughput_batch, "it was not asked for"
    asked = QUICK.model_copy(update={"throughput_batch": 32})
    latency = measure(Counting(0.005), torch.rand(1), asked, bulk=lambda n: torch.rand(n))
    assert latency.throughput_batch == 32
    assert latency.throughput is not None and 32 / 0.05 < latency.throughput <= 32 / 0.005


def test_short_calls_are_timed_in_blocks_and_long_ones_one_by_one() -> None:
    assert measure(Counting(2 * BLOCK_S), torch.rand(1), QUICK).calls == 1
    short = measure(nn.Identity(), torch.rand(1), QUICK)
    assert 0.2 < short.calls * short.median_ms / (BLOCK_S * 1e3) < 5


def test_every_block_of_the_candidate_is_told_to_the_clock_and_none_of_the_reference() -> None:
    module, witness = Counting(0.001), Witness()
    latency = measure(module, torch.rand(1), QUICK, clock=witness)
    rounds, rest = divmod(len(witness.calls), QUICK.repeats)
    assert rest == 0 and 1 <= rounds <= ROUNDS
    assert set(witness.calls) == {latency.calls + 2}, "Timer.timeit makes two calls to warm up"
    # all calls but those to warm up and the two of the memory measurement lie within the told blocks
    assert len(module.modes) == sum(witness.calls) + QUICK.warmup + 1
    outside = [s / n * 1e3 for s, n in zip(witness.seconds, witness.calls, strict=True)]
    assert min(outside) == pytest.approx(latency.median_ms, rel=0.5)


def test_a_timer_that_was_patched_afterwards_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("perf_counter", "perf_counter_ns", "monotonic", "time"):
        monkeypatch.setattr(time, name, lambda: 0)
    monkeypatch.setattr(timeit, "default_timer", lambda: 0)
    monkeypatch.setattr(torch.utils.benchmark, "timer", lambda: 0)
    assert measure(Counting(0.002), torch.rand(1), QUICK).median_ms >= 2


def test_a_wide_spread_is_measured_again_and_then_marked() -> None:
    class Unsteady(Counting):
        """Every other block takes four times as long."""

        def forward(self, x: Tensor) -> Tensor:
            blocks = max(0, len(self.modes) - QUICK.warmup) // 3  # of one call, and two to warm up
            self.seconds = 0.02 * (1 + 3 * (blocks % 2))
            return super().forward(x)

    module, witness = Unsteady(), Witness()
    latency = measure(module, torch.rand(1), QUICK, clock=witness)
    assert latency.calls == 1 and len(witness.calls) == ROUNDS * QUICK.repeats
    assert latency.noisy
    assert latency.q3_ms > 2 * latency.q1_ms


def test_what_seems_over_the_limit_is_measured_again_and_the_round_within_it_counts() -> None:
    class Calms(Counting):
        """Slow for the first round, as beside something that ends then."""

        def forward(self, x: Tensor) -> Tensor:
            self.seconds = 0.03 if len(self.modes) < QUICK.warmup + 3 * QUICK.repeats else 0.005
            return super().forward(x)

    spec = QUICK.model_copy(update={"limit_ms": 15.0})
    witness = Witness()
    assert measure(Calms(), torch.rand(1), spec, clock=witness).median_ms < 15
    assert len(witness.calls) >= 2 * spec.repeats
    witness = Witness()
    never = spec.model_copy(update={"limit_ms": 1e-9})
    assert measure(nn.Identity(), torch.rand(1), never, clock=witness).median_ms > 1e-9
    assert len(witness.calls) == ROUNDS * spec.repeats


def test_the_ratio_of_the_reference_to_itself_is_one() -> None:
    network, inputs = reference(torch.device("cpu"))
    latency = measure(network, inputs, LatencySpec(repeats=10, throughput_batch=None))
    assert latency.ratio == pytest.approx(1, rel=0.5)


def test_the_reference_is_the_same_everywhere_and_disturbs_no_generator() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    network, inputs = reference(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    outputs = network(inputs)
    # new weights or layers need a new name: its latencies are kept beside candidates'
    assert NAME == "conv-1"
    assert float(outputs.double().norm()) == pytest.approx(1.07314, rel=1e-3)
    assert outputs.isfinite().all() and not outputs.requires_grad


class Spikes(nn.Module):
    """Holds 2 MiB, makes 3 MiB more at its worst moment and returns half of one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(MIB))
        self.register_buffer("table", torch.ones(MIB))

    def forward(self, x: Tensor) -> Tensor:
        first = x + 1
        both = torch.cat((first, first))  # 3 MiB are alive
        del first
        return both[: MIB // 2] * 2


def test_memory_is_what_is_alive_at_the_worst_moment() -> None:
    assert peak_memory_mb(Spikes(), torch.zeros(MIB)) == pytest.approx(2 + 1 + 3, abs=0.01)


def test_memory_counts_shared_parameters_once() -> None:
    tied = nn.Sequential(nn.Linear(512, 512, bias=False), nn.Linear(512, 512, bias=False))
    tied[1].weight = tied[0].weight
    assert peak_memory_mb(tied, torch.zeros(1, 512)) == pytest.approx(1, abs=0.02)
    tied[1].weight = nn.Parameter(torch.ones(512, 512))
    assert peak_memory_mb(tied, torch.zeros(1, 512)) == pytest.approx(2, abs=0.02)


def test_memory_grows_with_the_batch_by_inputs_and_activations() -> None:
    """Of an elementwise chain: the inputs, what goes in and what comes out of one link."""
    module = nn.Sequential(nn.Sigmoid(), nn.Sigmoid(), nn.Sigmoid())
    for batch in (1, 4):
        assert peak_memory_mb(module, torch.zeros(batch, MIB)) == pytest.approx(3 * batch, abs=0.01)


def test_the_report_holds_the_memory() -> None:
    latency = measure(nn.ReLU(), torch.zeros(MIB), QUICK)
    assert latency.memory_mb == pytest.approx(2, abs=0.01)


def test_the_profiler_prints_nothing() -> None:
    """In a fresh process: whether it prints is settled at its first use, which may be another test's."""
    code = (
        "import torch, cambrian.sandbox.worker.latency as latency\n"
        "print(latency.peak_memory_mb(torch.nn.ReLU(), torch.zeros(2**18)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(2, abs=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_time_of_kernels_counts_and_memory_is_the_allocators() -> None:
    device = torch.device("cuda")
    samples = torch.zeros(2048, 2048, device=device)
    module = nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(20))).to(device)
    latency = measure(module, samples, QUICK)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    with torch.inference_mode():
        module(samples)
    end.record()
    torch.cuda.synchronize()
    assert latency.median_ms == pytest.approx(start.elapsed_time(end), rel=0.5)
    assert latency.memory_mb == pytest.approx(20 * 16 + 16 + 2 * 16, rel=0.1)
    assert latency.device == torch.cuda.get_device_name()
