import random
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cambrian.sandbox.examination.rules import ForwardTrace
from cambrian.sandbox.examination.static import check, static_check
from cambrian.search_spaces import SPACES, Genotype, ProposalError, Signature
from cambrian.search_spaces.blocks import GlobalPool
from tests.sandbox.examination.conftest import Apply, ToySpace, convnets

SPACE = SPACES.create("convnet")
DIGITS = Signature(input_shape=(1, 8, 8), n_outputs=10)
FASHION = Signature(input_shape=(1, 28, 28), n_outputs=10)
COLOUR = Signature(input_shape=(3, 32, 32), n_outputs=10)


def on_meta(maker: type[nn.Module] | nn.Module) -> nn.Module:
    with torch.device("meta"):
        return maker()


def toy(module: nn.Module, shape: tuple[int, ...], n_outputs: int = 10, batch: int = 4):
    signature = Signature(input_shape=shape, n_outputs=n_outputs)
    return check(ToySpace(it=lambda: module), {"of": "it"}, signature, batch)


def counted(module: nn.Module, signature: Signature, batch: int = 2) -> int:
    """Operations of one sample as torch's own counter sees them."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(torch.empty((batch, *signature.input_shape), device="meta"))
    return counter.get_total_flops() // batch


class TestConvnets:
    @pytest.mark.parametrize("signature", [DIGITS, FASHION, COLOUR], ids=str)
    def test_parameters_operations_and_depth_are_exact(self, signature: Signature) -> None:
        for genotype in convnets(25):
            facts = check(SPACE, genotype, signature, 64)
            with torch.device("meta"):
                module = SPACE.build(genotype, signature)
            layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            assert facts.parameters == sum(p.numel() for p in module.parameters())
            assert facts.depth == len(layers)
            assert facts.flops == counted(module, signature)

    def test_operations_do_not_depend_on_the_batch(self) -> None:
        for genotype in convnets(10, seed=1):
            assert check(SPACE, genotype, FASHION, 2).flops == check(SPACE, genotype, FASHION, 96).flops

    def test_baselines_pass(self) -> None:
        for genotype in SPACE.baselines().values():
            assert check(SPACE, genotype, DIGITS, 64).parameters > 0

    @pytest.mark.parametrize(("signature", "batch"), [(DIGITS, 64), (FASHION, 32)], ids=str)
    def test_peak_memory_is_within_half_of_what_a_real_step_takes(
        self, signature: Signature, batch: int
    ) -> None:
        for genotype in convnets(10, seed=3):
            estimated = check(SPACE, genotype, signature, batch).peak_memory_mb
            assert estimated == pytest.approx(measured_peak_mb(genotype, signature, batch), rel=0.5)

    def test_takes_milliseconds(self) -> None:
        times = []
        for genotype in convnets(30):
            started = time.thread_time()
            check(SPACE, genotype, FASHION, 64)
            times.append(time.thread_time() - started)
        assert sorted(times)[15] < 0.04  # 8 ms measured; `FlopCounterMode` alone would take 50

    def test_leaves_the_random_state_alone(self) -> None:
        before = torch.get_rng_state()
        check(SPACE, convnets(1)[0], DIGITS, 64)
        assert torch.equal(torch.get_rng_state(), before)


def measured_peak_mb(genotype: Genotype, signature: Signature, batch: int) -> float:
    """Peak of all memory that torch allocates over two real training steps."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        module = SPACE.build(genotype, signature)
        optimizer = torch.optim.AdamW(module.parameters())
        for _ in range(2):
            inputs, labels = torch.randn(batch, *signature.input_shape), torch.randint(0, 10, (batch,))
            optimizer.zero_grad()
            functional.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 2**20


class Attentive(nn.Module):
    """Attention in torch's own module and written out by hand, and products of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mix = nn.Parameter(torch.randn(16, 8))
        self.pair = nn.Bilinear(8, 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        scores = (x @ x.transpose(1, 2)).softmax(-1)
        x = torch.bmm(scores, x)
        x = torch.einsum("nlc,cd->nld", x, self.mix).mean(1)
        return self.pair(x, x)


class TestOtherModules:
    @pytest.mark.parametrize(
        ("make", "shape"),
        [
            (Attentive, (16, 5, 7)),
            (lambda: nn.Sequential(nn.ConvTranspose2d(3, 10, 3, 2), GlobalPool("avg")), (3, 6, 6)),
            (lambda: nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(48, 10)), (4, 10)),
            (lambda: nn.Sequential(nn.Conv2d(3, 10, 3, 2, 2, dilation=2), GlobalPool("max")), (3, 9, 8)),
            (lambda: nn.Sequential(nn.Linear(6, 4, bias=False), nn.Flatten(), nn.Linear(20, 10)), (5, 6)),
        ],
    )  # fmt: skip
    def test_operations_equal_torchs_own_count(self, make, shape) -> None:
        signature = Signature(input_shape=shape, n_outputs=10)
        module = on_meta(make)
        assert static_check(module, signature, 4).flops == counted(module, signature) > 0
        # a second time, when no function is new any more
        assert static_check(module, signature, 4).flops == counted(module, signature)

    def test_frozen_parameters_are_not_counted_as_trainable(self) -> None:
        module = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
        module[1].bias.requires_grad_(False)
        assert toy(module.to("meta"), (3, 4)).parameters == 120

    def test_layers_that_do_not_run_add_no_depth(self) -> None:
        with torch.device("meta"):
            module = Apply(lambda m, x: m.used(x.flatten(1)), used=nn.Linear(12, 10), idle=nn.Linear(12, 10))
        facts = toy(module, (3, 4))
        assert facts.depth == 1 and facts.parameters == 260

    def test_a_huge_network_costs_no_memory(self) -> None:
        def make() -> nn.Module:
            return nn.Sequential(
                nn.Flatten(), nn.Linear(64, 60_000), nn.Linear(60_000, 60_000), nn.Linear(60_000, 10)
            )

        facts = check(ToySpace(it=make), {"of": "it"}, DIGITS, 64)
        assert facts.parameters > 3.6e9 and facts.peak_memory_mb > 4 * 4 * 3.6e9 / 2**20

    def test_tensors_made_in_the_forward_pass_may_be_mixed_in(self) -> None:
        def forward(x: Tensor) -> Tensor:
            x = x.flatten(1) + torch.linspace(0, 1, 64)
            return x[:, :10] * torch.ones(10)

        assert toy(Apply(forward), (8, 8)).flops == 0

    def test_constructors_may_use_arrays_and_read_values(self) -> None:
        def make() -> nn.Module:
            rates = [rate.item() for rate in torch.linspace(0, 0.5, 2)]
            module = nn.Sequential(nn.Flatten(), nn.Dropout(rates[1]), nn.Linear(64, 10))
            module.register_buffer("table", torch.from_numpy(np.ones(3)))
            return module

        assert check(ToySpace(it=make), {"of": "it"}, DIGITS, 8).parameters == 650


class TestErrors:
    def test_names_the_layer_and_the_shapes(self) -> None:
        module = nn.Sequential()
        module.add_module("stem", nn.Conv2d(1, 8, 3))
        module.add_module("body", nn.Sequential(nn.ReLU(), nn.Conv2d(16, 8, 3)))
        with pytest.raises(ProposalError, match=r"body\.1, Conv2d\(16, 8.*\(4, 8, 6, 6\)"):
            toy(module.to("meta"), (1, 8, 8))

    @pytest.mark.parametrize(
        ("layer", "said"),
        [
            (nn.Linear(65, 10), r"1, Linear\(in_features=65.*\), cannot take an input of shape \(4, 64\)"),
            (nn.BatchNorm1d(63), r"1, BatchNorm1d\(63"),
            (nn.Unflatten(1, (5, 13)), r"1, Unflatten"),
            (Apply(lambda x: x + torch.ones(63)), r"1, Apply.*64.*63"),
            (Apply(lambda x: x @ x), r"1, Apply"),
        ],
    )
    def test_of_every_kind_are_proposal_errors(self, layer: nn.Module, said: str) -> None:
        with pytest.raises(ProposalError, match=said):
            toy(nn.Sequential(nn.Flatten(), layer).to("meta"), (8, 8))

    def test_a_batch_norm_over_one_value_is_refused(self) -> None:
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)).to("meta")
        with pytest.raises(ProposalError, match="more than 1 value per channel"):
            toy(module, (8, 8), batch=1)
        assert toy(module, (8, 8), batch=2).depth == 1

    @pytest.mark.parametrize(
        ("module", "said"),
        [
            (nn.Flatten(), r"shape \(4, 64\), not \(n, n_outputs\) = \(4, 10\)"),
            (Apply(lambda x: [x, x]), r"\[\(4, 8, 8\), \(4, 8, 8\)\]"),
            (Apply(lambda x: None), "NoneType"),
            (Apply(lambda x: x.flatten()[:10]), r"shape \(10,\)"),
        ],
    )
    def test_the_output_must_have_the_right_shape(self, module: nn.Module, said: str) -> None:
        with pytest.raises(ProposalError, match=said):
            toy(module, (8, 8))

    def test_errors_of_the_space_pass_through(self) -> None:
        genotype = SPACE.validate(
            {"stages": [{"block": "conv", "width": 8, "downsample": "first"}] * 3, "stem": {}, "head": {}}
        )
        with pytest.raises(ProposalError, match="cannot be halved"):
            check(SPACE, genotype, Signature(input_shape=(1, 4, 4), n_outputs=10), 8)

    def test_code_is_never_run_here(self) -> None:
        space = ToySpace(it=nn.Flatten)
        space.kind = "code"
        with pytest.raises(ValueError, match="sandbox"):
            check(space, {"of": "it"}, DIGITS, 8)


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


attend = functional.scaled_dot_product_attention


class TestRules:
    """Each rule against torch's own meta kernel, where shapes fit and where they don't."""

    CASES: ClassVar = {
        "linear": lambda: functional.linear(tensor(2, 3, 4), tensor(5, 4), tensor(5)),
        "linear wrong": lambda: functional.linear(tensor(2, 3), tensor(5, 4)),
        "linear bias": lambda: functional.linear(tensor(2, 4), tensor(5, 4), tensor(3)),
        "norm": lambda: functional.batch_norm(tensor(2, 3, 4, 4), *(tensor(3),) * 4, training=True),
        "norm eval": lambda: functional.batch_norm(tensor(1, 3), tensor(3), tensor(3)),
        "norm wrong": lambda: functional.batch_norm(tensor(2, 3, 4), tensor(4), tensor(4), training=True),
        "relu": lambda: functional.relu(tensor(2, 3)),
        "relu in place": lambda: functional.relu(tensor(2, 3), inplace=True),
        "gelu": lambda: functional.gelu(tensor(2, 3), approximate="tanh"),
        "hardswish": lambda: functional.hardswish(tensor(2, 3)),
        "sigmoid": lambda: tensor(2, 3).sigmoid(),
        "dropout": lambda: functional.dropout(tensor(2, 3), 0.5, True),
        "dropout off": lambda: functional.dropout(tensor(2, 3), 0.5, False),
        "dropout wrong": lambda: functional.dropout(tensor(2, 3), 1.5, True),
        "add": lambda: tensor(2, 3, 4) + tensor(2, 1, 4),
        "add one": lambda: 1 + tensor(2, 3),
        "add ranks": lambda: tensor(2, 3) + tensor(3),
        "add types": lambda: tensor(2, 3) + tensor(2, 3, dtype=torch.float64),
        "add whole": lambda: tensor(2, 3, dtype=torch.int64) + 0.5,
        "add wrong": lambda: tensor(2, 3) + tensor(2, 4),
        "multiply": lambda: tensor(2, 3, 4, 4) * tensor(2, 3, 1, 1),
        "multiply wrong": lambda: tensor(2, 3) * tensor(4, 3),
        "pool": lambda: functional.adaptive_avg_pool2d(tensor(2, 3, 7, 5), (2, None)),
        "pool to one": lambda: functional.adaptive_avg_pool2d(tensor(2, 3, 7, 5), 1),
        "mean": lambda: tensor(2, 3, 4, 5).mean((2, -1)),
        "mean keep": lambda: tensor(2, 3).mean(1, keepdim=True),
        "mean all": lambda: tensor(2, 3).mean(),
        "mean wrong": lambda: tensor(2, 3).mean(2),
        "attention": lambda: attend(tensor(2, 3, 4, 5), tensor(2, 3, 6, 5), tensor(2, 3, 6, 7)),
        "attention wrong": lambda: attend(tensor(2, 3, 4, 5), tensor(2, 3, 6, 4), tensor(2, 3, 6, 7)),
        "attention causal": lambda: attend(*(tensor(2, 3, 4, 5),) * 3, is_causal=True),
        "convolve": lambda: functional.conv2d(tensor(2, 4, 9, 9), tensor(6, 2, 3, 3), None, 2, 1, 1, 2),
        "convolve wrong": lambda: functional.conv2d(tensor(2, 4, 9, 9), tensor(6, 3, 3, 3)),
    }  # fmt: skip

    @pytest.mark.parametrize("case", CASES)
    def test_agree_with_torch(self, case: str) -> None:
        call = self.CASES[case]
        try:
            wanted: object = (call().shape, call().dtype)
        except Exception as error:
            wanted = type(error)
        assert "wrong" not in case or isinstance(wanted, type), "this case should fail"
        try:
            with ForwardTrace():
                made = call()
            found: object = (made.shape, made.dtype)
        except Exception as error:
            found = type(error)
        assert found == wanted

    def test_memory_of_one_tensor_counts_once(self) -> None:
        weights = [nn.Parameter(tensor(4, 4)) for _ in range(3)]
        x = tensor(8, 4)
        with torch.no_grad(), ForwardTrace() as trace:
            for weight in weights:
                functional.linear(x, weight)
        assert trace.saved == 8 * 4 * 4
        assert list(trace.used.values()) == weights

    def test_parameters_are_noted_in_the_order_of_use(self) -> None:
        parameters = [nn.Parameter(tensor(4, 4)) for _ in range(6)]
        order = parameters[:]
        random.Random(1).shuffle(order)
        with torch.no_grad(), ForwardTrace() as trace:
            torch.cat([order[0], order[1]])
            order[2].view(2, 8)
            torch.mul(input=order[3], other=order[4])
            order[5] + order[0]
        assert [id(p) for p in trace.used.values()] == [id(p) for p in order]
